"""Loads the network of a checkpoint, and how scans are prepared for it: `load_network`."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from dlx.data.cases import DATA_VERSION, Dataset, Grid
from dlx.data.geometry.orientation import TURN_VERSION
from dlx.data.geometry.resample import RESAMPLE_VERSION
from dlx.data.intensities.ct import Window, Windows
from dlx.data.layouts.listing import MAX_REGIONS
from dlx.engine import checkpoint
from dlx.engine.randomness import weights_from
from dlx.settings.binding import bind_parts, first_cause
from dlx.settings.own.code import spell_cause, vouched_code
from dlx.settings.own.named import with_own_code
from dlx.settings.part import Part
from dlx.settings.spec import Spec
from dlx.system.errors import DataError, DlxError, SettingError
from dlx.trial.factories import make_model

# The sections of a trial's settings on which predictions depend; of `data` only what prepares one scan.
SECTIONS = ("batch", "model", "dropout", "augment", "evaluate")
DATA_SETTINGS = ("normalize", "geometry")


class SavedTrial(BaseModel):
    """What predicting reads from the header of a checkpoint; older ones lack what has a default."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    trial: str
    settings: dict[str, Any]
    label_values: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=2)]
    windows: tuple[Window | None, ...] = ()
    grid: Grid | None = None
    ignored_value: int | None = None
    regions: tuple[tuple[int, ...], ...] = ()
    region_order: tuple[int, ...] = ()
    progress: dict[str, Any] = {}


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network with the weights that its trial was measured with, on the host in evaluation mode, and what it needs.

    `spec` is the trial's, resolved, without what concerns training or data sources. `dataset` has no cases: it says
    which channels the network takes, what its classes are and how they are written into masks, and to which grid scans
    are brought. `windows` clip and scale channels in place of the normaliser. `digest` is a hash of all this: networks
    of one digest give the same predictions. `name` is for messages.
    """

    name: str
    network: nn.Module
    spec: Spec
    dataset: Dataset
    windows: Windows
    digest: str
    trial: str
    epoch: int | None

    @property
    def normalizer(self) -> Part:
        """The normaliser with all its arguments."""
        return self.spec.data.normalize


def load_network(path: Path, name: str | None = None, own: Sequence[str] = ()) -> TrainedNetwork:
    """The network of a checkpoint; `name` is what messages call it, by default the path.

    With averaged weights these are taken, as validation does. Nothing in the file is unpickled, or looked up as code:
    a network of the user's own is loaded only if `own`, the names that the user typed (`nets/my_net.py:Net`), has it
    with the content that was trained. DataError if the file is damaged, or of a network or version that cannot be used;
    SettingError if a network of the user's own is not named, or has changed.
    """
    name = name or str(path)
    content = checkpoint.read(path, checkpoint.WEIGHTS)
    try:
        saved = SavedTrial.model_validate(content.header)
        spec, dataset = _spec_of(saved, own), _dataset_of(saved)
    except OwnCodeError as error:
        raise SettingError(f"{name}: {error}") from None
    except (SettingError, KeyError, TypeError, ValueError) as error:
        cause = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        if isinstance(error, ValidationError):
            cause = first_cause(error)
        raise DataError(f"{path}: not a checkpoint that this version of dlx can predict with: {cause}") from None
    weights = checkpoint.evaluated_weights(content)
    network = _built(spec, dataset, path)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        cause = str(error).splitlines()[-1].strip()
        raise DataError(f"{path}: its weights are not those of its network: {cause}") from None
    broken = [key for key, tensor in weights.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise DataError(f"{path}: {broken[0]} is not finite: the trial had diverged")
    epoch = saved.progress.get("epoch")
    return TrainedNetwork(
        name=name,
        network=network.eval(),
        spec=spec,
        dataset=dataset,
        windows=saved.windows,
        digest=_digest(weights, spec, saved),
        trial=saved.trial,
        epoch=epoch if isinstance(epoch, int) else None,
    )


def build_network(spec: Spec, dataset: Dataset) -> nn.Module:
    """The network that the settings of a checkpoint name, on the default device, with any weights.

    The only place where a name in a checkpoint becomes code: it is registered in `settings/registry.py`, or its code
    was vouched for. Raises what the code of a network of the user's own raises.
    """
    with weights_from(0):  # leaves torch's random streams as they are
        return make_model(spec, dataset)


def spell_own_error(error: Exception, part: Part) -> str:
    """What failed in the code of a network of the user's own, with file and line."""
    return f"model '{part.name}': {spell_cause(error, vouched_code(part))}"


class OwnCodeError(Exception):
    """The code of a network of the user's own was not named, or it is not the recorded one."""


def _built(spec: Spec, dataset: Dataset, path: Path) -> nn.Module:
    try:
        return build_network(spec, dataset)
    except DlxError:
        raise
    except Exception as error:
        if not spec.model.is_own:
            raise
        raise SettingError(f"{path}: {spell_own_error(error, spec.model)}") from error


def _spec_of(saved: SavedTrial, own: Sequence[str]) -> Spec:
    """The settings that predictions depend on. Raises ValidationError or SettingError for unknown or wrong ones, and
    OwnCodeError.
    """
    settings = {key: saved.settings[key] for key in SECTIONS if key in saved.settings}
    data = saved.settings["data"]
    settings["data"] = {key: data[key] for key in DATA_SETTINGS if key in data}
    settings["compute"] = {"precision": saved.settings["compute"]["precision"]}
    spec = Spec.model_validate(settings)
    try:
        spec = with_own_code(spec, own)
    except SettingError as error:
        raise OwnCodeError(str(error)) from None
    spec = bind_parts(spec)
    if spec.batch.patch_size_px is None or spec.batch.slice_axis == "auto":
        raise SettingError("the size of its patches or the axis of its slices is not fitted")
    return spec


def _dataset_of(saved: SavedTrial) -> Dataset:
    """The channels and classes of the trial's data, with no cases. ValueError if they contradict each other."""
    channels, classes = (tuple(str(name) for name in saved.settings[key]) for key in ("channels", "classes"))
    num_labels = len(saved.label_values)
    members = {k for region in saved.regions for k in region}
    if len(classes) != (len(saved.regions) + 1 if saved.regions else num_labels):
        raise ValueError(f"it has {len(classes)} classes, which do not fit its label values and regions")
    if not members <= {*range(1, num_labels)} or len(saved.regions) > MAX_REGIONS:
        raise ValueError("its regions do not fit its label values")
    if len(saved.region_order) != len(saved.regions) or not {*saved.region_order} <= members:
        raise ValueError("the order of its regions does not fit them")
    if saved.windows and len(saved.windows) != len(channels):
        raise ValueError("its windows do not fit its channels")
    return Dataset(
        layout="",
        source="",
        channels=channels,
        classes=classes,
        cases=(),
        fingerprint="",
        label_values=saved.label_values,
        ignored_value=saved.ignored_value,
        regions=saved.regions,
        region_order=saved.region_order,
        normalize=str(Part.model_validate(saved.settings["data"]["normalize"])),
        grid=saved.grid,
    )


def _digest(weights: dict[str, Tensor], spec: Spec, saved: SavedTrial) -> str:
    """A hash of the weights, and of all that decides what is made of a scan but device, batch size and mirroring."""
    grid = saved.grid
    prepared = {
        "versions": [DATA_VERSION, TURN_VERSION, RESAMPLE_VERSION],
        "channels": saved.settings["channels"],
        "label_values": saved.label_values,
        "regions": saved.regions,
        "region_order": saved.region_order,
        "windows": [window and window.model_dump() for window in saved.windows],
        "grid": grid and [grid.orientation, grid.spacing_mm, grid.slice_axis],
        "data": spec.data.model_dump(mode="json", include={*DATA_SETTINGS}),
        "model": spec.model.model_dump(mode="json"),
        "cut": [spec.batch.slice_axis, spec.batch.patch_size_px, spec.evaluate.overlap_fraction],
    }
    text = json.dumps(prepared, sort_keys=True)
    return hashlib.blake2b(f"{checkpoint.tensors_hash(weights)} {text}".encode(), digest_size=16).hexdigest()
