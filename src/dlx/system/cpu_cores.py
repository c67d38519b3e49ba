"""The number of processor cores that this process may use, and how its threads wait."""

import os
from pathlib import Path

from dlx.system.files import text_of

CGROUP = Path("/sys/fs/cgroup")
# Spins of an OpenMP thread before it sleeps. With the default (300,000), two threads beside one other busy process were
# measured to be about ten times slower; on an idle machine 10,000 is as fast (docs/log.md).
SPIN_COUNT = "10000"


def available_cores(cgroup: Path = CGROUP) -> int:
    """The number of cores in this process's affinity, limited by its container's CPU quota; at least 1.

    The quota is read from `cgroup`: version 2's cpu.max, else version 1's cpu.cfs_quota_us. It is rounded up.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, _quota(cgroup) or cores))


def _quota(cgroup: Path) -> int | None:
    """The quota in cores, rounded up; None without a quota."""
    if (cgroup / "cpu.max").is_file():
        texts = text_of(cgroup / "cpu.max").split()
    else:
        texts = [text_of(cgroup / "cpu" / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    if len(texts) != 2 or not all(text.isdecimal() for text in texts):  # `max` and -1 mean no quota
        return None
    quota, period = map(int, texts)
    return -(-quota // period) if period else None


def limit_spinning() -> None:
    """Limits for how long idle OpenMP threads spin; call it before torch is imported, whose libgomp reads it then.

    A value of GOMP_SPINCOUNT in the environment is kept.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
