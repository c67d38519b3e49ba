"""What the device can do at most, measured: matrix products in bf16 and float32, copying memory, and in 3D the float32
convolutions of the step by themselves.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.plain import make_network, standard_gflop
from benchmarks.workload import Workload, from_text, synchronizer
from dlx.engine.device import keep_freed_memory


def ceilings(workload: Workload) -> dict[str, float]:
    """Medians of seven runs; sizes at which the rates had levelled off."""
    is_cuda = workload.device.startswith("cuda")
    side, copied_mib = (8192, 4096) if is_cuda else (2048, 512)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    rates = {}
    for name, dtype in (("bf16", torch.bfloat16), ("float32", torch.float32)):
        a, b = (torch.randn(side, side, device=workload.device).to(dtype) for _ in range(2))
        rates[f"matmul_{name}_gflops"] = 2 * side**3 / median_s(lambda a=a, b=b: a @ b, workload.device) / 1e9
    source = torch.zeros(copied_mib * 2**20, dtype=torch.uint8, device=workload.device)
    target = torch.empty_like(source)
    rates["copy_gb_per_s"] = 2 * source.nbytes / median_s(lambda: target.copy_(source), workload.device) / 1e9
    gflop = standard_gflop(workload)
    if workload.dims == 3:
        rates["convolution_float32_gflops"] = gflop / convolutions_s(workload)
    return {**rates, "step_gflop": gflop}


def convolutions_s(workload: Workload) -> float:
    """Seconds of all convolutions of the network, forward and backward, each by itself: float32, channels last, at its
    size in the step. On a CPU freed memory is kept, as in dlx's engine, so that no pages are zeroed meanwhile.
    """
    if workload.device == "cpu":
        keep_freed_memory()
    layers = enumerate(convolutions_of(workload))
    return sum(convolution_s(layer, shape, workload.device, is_first=index == 0) for index, (layer, shape) in layers)


def convolutions_of(workload: Workload) -> list[tuple[nn.Module, torch.Size]]:
    """Each convolution with the shape of its input, in their order."""
    found: list[tuple[nn.Module, torch.Size]] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        found.append((layer, inputs[0].shape))

    with torch.device("meta"):
        model = make_network(workload)
        layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d)]
        hooks = [layer.register_forward_hook(note) for layer in layers]
        model(torch.empty(workload.batch_shape))
    for hook in hooks:
        hook.remove()
    return found


def convolution_s(layer: nn.Module, shape: torch.Size, device: str, *, is_first: bool) -> float:
    """Forward and backward of one convolution; the first one has no gradient to its input, the image."""
    layer = layer.to_empty(device=device)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.1)
    layer = layer.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    features = torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last_3d)
    features.requires_grad_(not is_first)
    wanted = [*layer.parameters(), *([] if is_first else [features])]
    gradient = torch.randn_like(layer(features).detach())
    return median_s(lambda: torch.autograd.grad(layer(features), wanted, gradient), device)


def median_s(run: Callable[[], object], device: str, repeats: int = 7) -> float:
    synchronize = synchronizer(device)
    run()
    times = []
    for _ in range(repeats):
        synchronize()
        started = time.perf_counter()
        run()
        synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("workload")
    asked = from_text(parser.parse_args().workload)
    torch.set_num_threads(asked.threads)
    print(json.dumps(ceilings(asked)))
