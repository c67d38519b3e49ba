"""What several ranks cannot train together, and what they change."""

from torch import nn

from dlx.engine.device import Compute
from dlx.settings.spec import Spec
from dlx.system.errors import SettingError


def check_ranks(spec: Spec, model: nn.Module, compute: Compute) -> list[str]:
    """Refuses settings under which ranks could not train as one process does; returns remarks for the user."""
    num_ranks, sync = spec.compute.num_ranks, spec.compute.sync_batchnorm
    has_batch_norm = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    if sync and num_ranks == 1:
        return ["compute.sync_batchnorm has no effect on one process"]
    if num_ranks == 1:
        return []
    if spec.batch.fitted_size % num_ranks:
        raise SettingError(
            f"batch.size: {spec.batch.fitted_size} patches cannot be divided among {num_ranks} ranks equally; set a "
            f"multiple of {num_ranks}"
        )
    if spec.evaluate.probes:
        raise SettingError("evaluate.probes: probes are measured on one process only; leave them out with torchrun")
    if getattr(model, "draws_from_default_generator", False):
        raise SettingError(
            f"model '{spec.model.name}': draws random numbers itself, which several ranks cannot draw as one process "
            "does"
        )
    if not has_batch_norm:
        return []
    if compute.device.type != "cuda":
        raise SettingError(
            f"model '{spec.model.name}': has batch norm, whose statistics ranks on a {compute.device} cannot share; "
            "use another norm (--set model.norm=group), CUDA, or one process"
        )
    if sync:
        return []
    each = spec.batch.fitted_size // num_ranks
    return [
        f"batch norm takes its statistics over the {each} patches of each rank, not over the batch of "
        f"{spec.batch.fitted_size}; compute.sync_batchnorm=true shares them"
    ]
