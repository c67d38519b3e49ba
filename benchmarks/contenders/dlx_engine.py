"""dlx's own engine on the same volumes, with the notes recipe's settings or in 3D with those of the strong recipe's
network."""

from typing import Any

from benchmarks.workload import Step, Workload, main
from dlx.data.cases import Dataset, Declaration, fingerprint
from dlx.data.prepare import prepare_arrays
from dlx.engine.fit import TrialProgress, begin_epoch
from dlx.execution.trials.process_cache import ProcessCache
from dlx.execution.trials.stores import host_stores
from dlx.settings.layers import make_spec, merge, read_recipe
from dlx.settings.part import Part
from dlx.settings.spec import Spec
from dlx.trial.build import make_job
from dlx.trial.resolve import resolve


def make_step(workload: Workload) -> tuple[Step, dict[str, Any]]:
    resolved = resolve(spec_of(workload), random_dataset(workload))
    job = make_job(resolved, ProcessCache().store(resolved, host_stores([resolved])), seed=0)
    begin_epoch(job, TrialProgress(), 1)
    return job.step, {"parameters": resolved.parameters, "precision": resolved.compute.precision}


def random_dataset(workload: Workload) -> Dataset:
    """The random volumes as dlx keeps them: its own float16 and uint8, not normalised."""
    images, masks = workload.volumes()
    channels = tuple(f"channel {c}" for c in range(workload.channels))
    classes = tuple(f"class {k}" for k in range(workload.classes))
    declaration = Declaration(
        layout="random",
        channels=channels,
        class_names=classes,
        label_values=tuple(range(workload.classes)),
        normalize=Part(name="none"),
    )
    cases = tuple(
        prepare_arrays(f"subject-{index + 1}", image, mask, (1.0, 1.0, 1.0), declaration)
        for index, (image, mask) in enumerate(zip(images, masks, strict=True))
    )
    return Dataset("random", "random", channels, classes, cases, fingerprint(declaration, cases))


def spec_of(workload: Workload) -> Spec:
    """The notes recipe, but for the sizes, the loss where it is another, and what only validation would need."""
    changes: dict[str, Any] = {
        "data": {"source": "phantom", "normalize": "none", "crop": False},
        "batch": {"size": workload.slices, "patch_size_px": [workload.side] * 2},
        "model": {"width": workload.width},
        "train": {"epochs": 1, "steps_per_epoch": workload.count},
        "evaluate": {"soft_dice": False},
        "compute": {"device": workload.device, "precision": workload.precision, "threads": workload.threads},
    }
    if workload.dims == 3:
        changes["batch"] = {"kind": "patches", "size": workload.patches, "patch_size_px": list(workload.patch)}
        changes["model"] |= {"dims": 3, "norm": "instance", "activation": "leaky-relu", "up": "transposed"}
        changes["optimizer"] = {"name": "adamw:beta2=0.95", "lr": 2e-3, "weight_decay": 1e-2}
    if workload.loss != "lovasz+focal":
        changes["loss"] = workload.loss
    return make_spec(merge(read_recipe("notes"), changes))


if __name__ == "__main__":
    main(make_step)
