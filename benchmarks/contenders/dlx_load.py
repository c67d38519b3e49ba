"""Opening a folder of volumes as `dlx train` does, without a cache: seconds, and memory at its peak and kept."""

import argparse
import json
import time
from pathlib import Path

from benchmarks.workload import peak_mib


def resident_mib() -> float:
    """The resident set of now (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 2**10


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    import SimpleITK  # noqa: F401 - now, so that its memory is not counted as the data's

    from dlx.data.batches.voxels import VoxelStore
    from dlx.data.dataset import open_dataset
    from dlx.settings.spec import DataSpec

    before = resident_mib()
    started = time.perf_counter()
    dataset = open_dataset(DataSpec(source=str(folder)), cache_dir=None)
    store = VoxelStore(dataset.cases)
    seconds = time.perf_counter() - started
    kept = store.nbytes / 2**20
    measured = {"s": seconds, "peak_mib": peak_mib() - before, "kept_mib": kept, "subjects": len(dataset.cases)}
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
