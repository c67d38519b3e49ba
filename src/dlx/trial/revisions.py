"""Changes of dlx that gave some trials other numbers: these trials have other ids since, and all others keep theirs.

A change that reaches every trial raises `RESULTS_VERSION` instead.
"""

from dlx.data.cases import Dataset
from dlx.engine.device import Compute
from dlx.settings.spec import Spec


def revisions(spec: Spec, dataset: Dataset, compute: Compute, patch_voxel_size: tuple[float, ...]) -> list[str]:
    """The changes that reach a trial of this bound spec, in the order in which they were made."""
    args = {} if spec.model.is_own else spec.model.args
    is_3d_on_cpu = args.get("dims") == 3 and compute.device.type == "cpu"
    changes = {
        "instance norm in 3D on a CPU by batch norm of each sample": is_3d_on_cpu
        and "instance" in (args.get("norm"), args.get("down_norm")),
        "up-convolution in 3D on a CPU of the small map": is_3d_on_cpu and args.get("up") == "nearest",
        "patches and losses of data with ignored voxels": dataset.ignored_value is not None,
        "rotation in mm": spec.augment.rotate_deg > 0 and len({*patch_voxel_size}) > 1,
    }
    return [change for change, is_reached in changes.items() if is_reached]
