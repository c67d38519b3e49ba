"""dlx's own engine, with the notes recipe's settings on the same volumes."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from workload import from_command_line, synchronizer, time_steps

workload = from_command_line()

import numpy as np  # noqa: E402
import torch  # noqa: E402

from dlx.build import make_job  # noqa: E402
from dlx.data.cases import Dataset, Declaration, fingerprint  # noqa: E402
from dlx.data.prepare import prepare_arrays  # noqa: E402
from dlx.engine.fit import Progress, begin_epoch  # noqa: E402
from dlx.resolve import resolve  # noqa: E402
from dlx.run.stores import make_store  # noqa: E402
from dlx.settings import make_spec, merge, read_recipe  # noqa: E402
from dlx.specs import Part  # noqa: E402

torch.set_num_threads(workload.threads)
images, masks = workload.volumes()
channels, classes = tuple("ABCD"[: workload.channels]), tuple(f"class {k}" for k in range(workload.classes))
declaration = Declaration(
    layout="random",
    channels=channels,
    class_names=classes,
    label_values=tuple(range(workload.classes)),
    normalize=Part(name="none"),
)
cases = tuple(
    prepare_arrays(f"subject-{index + 1}", image, mask.astype(np.uint8), (1.0, 1.0, 1.0), declaration)
    for index, (image, mask) in enumerate(zip(images, masks, strict=True))
)
dataset = Dataset("random", "random", channels, classes, cases, fingerprint(declaration, cases))
settings = merge(
    read_recipe("notes"),
    {
        "data": {"normalize": "none", "crop": False},
        "batch": {"size": workload.side, "patch_size_px": [workload.side] * 2},
        "model": {"width": workload.width},
        "train": {"epochs": 1, "steps_per_epoch": workload.warm_up + workload.steps},
        "evaluate": {"soft_dice": False},
        "compute": {"device": workload.device, "precision": workload.precision, "threads": workload.threads},
    },
    {} if workload.loss == "lovasz+focal" else {"loss": workload.loss},
)
spec = make_spec(settings)
bound = spec.data.model_copy(update={"source": Part(name="phantom"), "normalize": Part(name="none")})
spec = spec.model_copy(update={"data": bound})


class OpenedData(dict):
    """Gives the random volumes for whatever data are asked for."""

    def __contains__(self, _: object) -> bool:
        return True

    def __getitem__(self, _: object) -> Dataset:
        return dataset


resolved = resolve(spec, datasets=OpenedData())
job = make_job(resolved, make_store(resolved), seed=0)
begin_epoch(job, Progress(), 1)
time_steps(
    workload,
    job.step,
    synchronizer(workload.device),
    precision=resolved.compute.precision,
    parameters=resolved.parameters,
)
