"""What the device can do at most, measured: matrix products in bf16 and float32, and copying memory."""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.plain import standard_gflop
from benchmarks.workload import Workload, synchronizer


def ceilings(workload: Workload) -> dict[str, float]:
    """Medians of seven runs; sizes at which the rates had levelled off."""
    is_cuda = workload.device.startswith("cuda")
    side, copied_mib = (8192, 4096) if is_cuda else (2048, 512)
    torch.backends.cuda.matmul.allow_tf32 = False
    rates = {}
    for name, dtype in (("bf16", torch.bfloat16), ("float32", torch.float32)):
        a, b = (torch.randn(side, side, device=workload.device).to(dtype) for _ in range(2))
        rates[f"matmul_{name}_gflops"] = 2 * side**3 / median_s(lambda a=a, b=b: a @ b, workload.device) / 1e9
    source = torch.zeros(copied_mib * 2**20, dtype=torch.uint8, device=workload.device)
    target = torch.empty_like(source)
    rates["copy_gb_per_s"] = 2 * source.nbytes / median_s(lambda: target.copy_(source), workload.device) / 1e9
    gflop = standard_gflop(workload.width, workload.side, workload.channels, workload.classes)
    return {**rates, "step_gflop": gflop * workload.slices}


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
    asked = Workload(**json.loads(parser.parse_args().workload))
    torch.set_num_threads(asked.threads)
    print(json.dumps(ceilings(asked)))
