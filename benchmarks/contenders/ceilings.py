"""What the device can do at most, measured: matrix products in bf16 and float32, and copying memory."""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from workload import from_command_line, synchronizer

workload = from_command_line()

import torch  # noqa: E402

torch.set_num_threads(workload.threads)
torch.backends.cuda.matmul.allow_tf32 = False
synchronize = synchronizer(workload.device)
is_cuda = workload.device.startswith("cuda")
SIDE = 8192 if is_cuda else 2048
COPY_MIB = 4096 if is_cuda else 512


def best_of(run, repeats: int = 7) -> float:
    run()
    times = []
    for _ in range(repeats):
        synchronize()
        started = time.perf_counter()
        run()
        synchronize()
        times.append(time.perf_counter() - started)
    return sorted(times)[repeats // 2]


rates = {}
for name, dtype in (("bf16", torch.bfloat16), ("float32", torch.float32)):
    a, b = (torch.randn(SIDE, SIDE, device=workload.device).to(dtype) for _ in range(2))
    rates[f"matmul_{name}_gflops"] = 2 * SIDE**3 / best_of(lambda a=a, b=b: a @ b) / 1e9
source = torch.zeros(COPY_MIB * 2**20, dtype=torch.uint8, device=workload.device)
target = torch.empty_like(source)
rates["copy_gbs"] = 2 * source.nbytes / best_of(lambda: target.copy_(source)) / 1e9
json.dump(rates, sys.stdout)
