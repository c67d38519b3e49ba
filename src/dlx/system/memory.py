"""The host's memory that this process may use, and the peak of its own use."""

import os
from pathlib import Path

from dlx.system.cpu_cores import CGROUP
from dlx.system.files import text_of

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def host_memory_bytes() -> int | None:
    """The machine's memory, or its container's limit if that is less; None if unknown.

    The limit is that of the cgroup: version 2's memory.max, else version 1's memory.limit_in_bytes.
    """
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    for path in (CGROUP / "memory.max", CGROUP / "memory" / "memory.limit_in_bytes"):
        text = text_of(path).strip()
        if text:
            return min(total, int(text)) if text.isdecimal() else total  # `max` means no limit
    return total


def reset_peak() -> bool:
    """Resets the peak of this process's memory to its present use; False if the system is not Linux."""
    try:
        CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def peak_bytes() -> int | None:
    """The peak of this process's memory since `reset_peak`; None if unknown."""
    found = next((line.split() for line in text_of(STATUS).splitlines() if line.startswith("VmHWM:")), None)
    return int(found[1]) * 1024 if found else None
