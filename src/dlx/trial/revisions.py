"""Changes of dlx that gave some trials other numbers: these trials have other ids since, and all others keep theirs.

A change that reaches every trial raises `RESULTS_VERSION` instead.
"""

from dlx.data.cases import Dataset
from dlx.engine.device import Compute
from dlx.settings.spec import Spec


def revisions(spec: Spec, dataset: Dataset, compute: Compute) -> list[str]:
    """The changes that reach a trial of this bound spec, in the order in which they were made."""
    args, is_on_cpu = spec.model.args, compute.device.type == "cpu"
    is_enlarged_in_3d = (args.get("dims"), args.get("up")) == (3, "nearest")
    changes = {
        "instance norm on a CPU by batch norm of each sample": is_on_cpu and args.get("norm") == "instance",
        "up-convolution in 3D on a CPU of the small map": is_on_cpu and is_enlarged_in_3d,
        "patches and losses of data with ignored voxels": dataset.ignored_value is not None,
    }
    return [change for change, is_reached in changes.items() if is_reached]
