"""Dated records of benchmarks in `results/`, what they were measured on, and whether the machine was quiet."""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
BUSY = 0.5  # load average (1 min) before the start above which figures are not to be trusted
VERSIONS = ("torch", "monai", "numpy")


def require_quiet(*, force: bool) -> list[float]:
    """The load averages at the start; ends the program on a busy machine unless forced, which is said loudly."""
    loads = list(os.getloadavg())
    if loads[0] > BUSY:
        line = f"the machine is busy: load average {loads[0]:.2f}, quiet is below {BUSY}"
        if not force:
            raise SystemExit(f"{line}; wait, or --force to measure all the same")
        print(f"\n*** {line}: THESE FIGURES ARE NOT TO BE TRUSTED ***\n", file=sys.stderr, flush=True)
    return loads


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on; what cannot be told on this machine is named missing."""
    facts: dict[str, Any] = {"python": platform.python_version(), "cores": len(os.sched_getaffinity(0))}
    for name in VERSIONS:
        try:
            facts[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            facts[name] = "missing"
    facts["device"] = device_name(device)
    return facts


def device_name(device: str) -> str:
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return dict(getattr(torch.cpu, "get_capabilities", dict)()).get("cpu_name") or platform.processor() or "CPU"


def child_environment() -> dict[str, str]:
    """Of every contender's process: both source trees on the path, and threads that spin only briefly when idle, so
    that a disturbance costs all alike (docs/log.md)."""
    path = os.pathsep.join((str(ROOT), str(ROOT / "src")))
    return {**os.environ, "PYTHONPATH": path, "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "10000")}


def write_record(kind: str, document: dict[str, Any], out: Path | None) -> Path:
    """Writes `results/DATE-KIND-DEVICE.json`, or `out`; a second one of a day takes the first one's place."""
    now = datetime.now(UTC)
    device = document["device"].partition(":")[0]
    path = out or RESULTS / f"{now:%Y-%m-%d}-{kind}-{device}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"kind": kind, "date": f"{now:%Y-%m-%d}", **document, "loads_at_end": list(os.getloadavg())}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return path


def newest(kind: str, device: str, folder: Path = RESULTS) -> dict[str, Any] | None:
    """The newest record of a kind; None where there is none."""
    found = sorted(folder.glob(f"*-{kind}-{device}.json"))
    return json.loads(found[-1].read_text(encoding="utf-8")) if found else None
