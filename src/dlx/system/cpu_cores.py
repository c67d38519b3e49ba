"""The number of processor cores that this process may use."""

import os
from pathlib import Path

from dlx.system.files import text_of

CGROUP = Path("/sys/fs/cgroup")


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
