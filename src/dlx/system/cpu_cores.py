"""How many processor cores this process may use."""

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available_cores(cgroup: Path = CGROUP) -> int:
    """The cores of this process's affinity, and no more than its container's quota of processor time; at least 1.

    The quota is read from `cgroup`: version 2's cpu.max, else version 1's cpu.cfs_quota_us. A part of a core counts
    as one.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, _quota(cgroup) or cores))


def _quota(cgroup: Path) -> int | None:
    """The quota in cores, rounded up; None where there is none."""
    if (cgroup / "cpu.max").is_file():
        texts = _read(cgroup / "cpu.max").split()
    else:
        texts = [_read(cgroup / "cpu" / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    if len(texts) != 2 or not all(text.isdecimal() for text in texts):  # `max` and -1 stand for no quota
        return None
    quota, period = map(int, texts)
    return -(-quota // period) if period else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
