"""The precision in which a network is computed, where the device's choice would give wrong numbers."""

from dataclasses import replace

from torch import nn

from dlx.engine.device import Compute
from dlx.models.layers.processor import has_amx
from dlx.settings.spec import Spec
from dlx.system.errors import SettingError


def fit_precision(spec: Spec, model: nn.Module, compute: Compute) -> Compute:
    """float32 for 3D convolutions on a CPU that are not known to be right in bf16: torch's own of more than one voxel,
    and on processors with AMX its own transposed ones (`models/layers/conv3d.py`).
    """
    if compute.device.type != "cpu" or compute.precision == "float32":
        return compute
    wrong = {nn.Conv3d, nn.ConvTranspose3d} if has_amx() else {nn.Conv3d}
    convolutions = [module for module in model.modules() if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d))]
    if any(type(module) in wrong and max(module.kernel_size) > 1 for module in convolutions):
        if spec.compute.precision == "bf16":
            raise SettingError(
                "compute.precision: bf16 gradients of torch's 3D convolutions are wrong on this CPU; use float32, or "
                f"those of dlx.models.layers.conv3d in '{spec.model.name}'"
            )
        return replace(compute, precision="float32")
    return compute
