"""A study small enough for tests: four phantom subjects of 24^3, a network of a few thousand weights."""

from dlx.data.batches.voxels import VoxelStore
from dlx.data.dataset import open_dataset
from dlx.execution.trials.stores import host_stores, put_on_device
from dlx.settings.layers import make_spec, merge
from dlx.settings.spec import Spec
from dlx.trial.build import make_job
from dlx.trial.resolve import Resolved, resolve

SETTINGS = {
    "data": {"source": "phantom:subjects=4,size=24"},
    "split": {"val_fraction": 0.25},
    "batch": {"size": 4, "patch_size_px": [16, 16]},
    "model": {"name": "unet2", "width": 4, "levels": 2},
    "optimizer": {"name": "adamw", "lr": 0.01},
    "train": {"epochs": 3, "steps_per_epoch": 4},
    "evaluate": {"train_subset": 1, "every": 1},
    "compute": {"device": "cpu", "precision": "float32", "threads": 1},
}


DATASETS: dict = {}  # opened once for all tests


def small_spec(*changes: dict) -> Spec:
    return make_spec(merge(SETTINGS, *changes))


def small_resolved(*changes: dict) -> Resolved:
    spec = small_spec(*changes)
    key = spec.data.model_dump_json()
    if key not in DATASETS:
        DATASETS[key] = open_dataset(spec.data, cache_dir=None)
    return resolve(spec, DATASETS[key])


def make_store(resolved: Resolved) -> VoxelStore:
    """The store of one trial, on its device if it fits."""
    return put_on_device(host_stores([resolved])[resolved.dataset.fingerprint], resolved.compute.device)


def small_job(*changes: dict, seed: int = 0):
    resolved = small_resolved(*changes)
    return make_job(resolved, make_store(resolved), seed)


# the same as options of a command
SMALL_ARGS = [
    *("--data", "phantom:subjects=4,size=24", "--val-fraction", "0.25", "--threads", "1", "--device", "cpu"),
    *("--model", "unet2:width=4,levels=2", "--batch-size", "4", "--set", "batch.patch_size_px=[16,16]"),
    *("--steps-per-epoch", "3", "--precision", "float32"),
]
