"""The `dataset.json` beside predictions, as nnU-Net writes it: `dlx evaluate` takes the names of classes from it."""

from pathlib import Path
from typing import Any

from dlx import __version__
from dlx.data.cases import Dataset
from dlx.data.layouts.dataset_json import NAME
from dlx.data.layouts.nnunet import IGNORE, ORDER
from dlx.system.files import write_json
from dlx.system.own_files import is_own_json


def write_label_names(folder: Path, dataset: Dataset) -> None:
    """Writes channels and labels in nnU-Net's form; a dataset.json that dlx did not write is left as it is."""
    path = folder / NAME
    if not path.exists() or is_own_json(path):
        write_json(path, names_of(dataset) | {"written_by": f"dlx {__version__}"})


def names_of(dataset: Dataset) -> dict[str, Any]:
    """`channel_names` and `labels`, name -> value, or the values of a region, whose order is `regions_class_order`."""
    values = dataset.values_of_classes()
    labels: dict[str, Any] = {dataset.classes[0]: dataset.label_values[0]}
    labels |= {name: list(of) if dataset.regions else of[0] for name, of in values.items()}
    if dataset.ignored_value is not None and dataset.ignored_value > max(dataset.label_values):
        labels[IGNORE] = dataset.ignored_value
    found: dict[str, Any] = {
        "channel_names": {str(k): name for k, name in enumerate(dataset.channels)},
        "labels": labels,
    }
    if dataset.regions:
        found[ORDER] = [dataset.label_values[k] for k in dataset.region_order]
    return found
