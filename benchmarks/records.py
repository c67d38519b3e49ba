"""Dated records of benchmarks in `results/`, a file a machine; what they were measured on, and whether it was quiet."""

import json
import os
import platform
import re
import sys
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
BUSY_CORES = 0.2  # kept busy by others before the start: above it figures are not to be trusted
WAIT_S = 60  # for a machine to become quiet
VERSIONS = ("torch", "monai", "numpy")


def require_quiet(*, force: bool) -> dict[str, Any]:
    """How busy the machine is before the start, for the record. Waits a minute for it to become quiet, then ends the
    program, unless forced, which is said loudly. (The load average would still show the benchmark before this one.)
    """
    until = time.monotonic() + WAIT_S
    while (busy := busy_cores()) > BUSY_CORES and not force and time.monotonic() < until:
        pass
    if busy > BUSY_CORES:
        line = f"the machine is busy: other processes keep {busy:.1f} cores at work"
        if not force:
            raise SystemExit(f"{line}; wait, or --force to measure all the same")
        print(f"\n*** {line}: THESE FIGURES ARE NOT TO BE TRUSTED ***\n", file=sys.stderr, flush=True)
    return {"busy_cores": busy, "load_averages": list(os.getloadavg())}


def busy_cores(seconds: float = 3.0) -> float:
    """Cores at work over the next seconds, while this process sleeps; off Linux the load average of the last minute."""
    before = _ticks()
    time.sleep(seconds)
    after = _ticks()
    if before is None or after is None:
        return os.getloadavg()[0]
    busy, total = after[0] - before[0], after[1] - before[1]
    return (os.cpu_count() or 1) * busy / max(total, 1)


def _ticks() -> tuple[int, int] | None:
    """Ticks of all cores, at work and in all."""
    try:
        ticks = [int(text) for text in Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:9]]
    except OSError:
        return None
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)  # idle, waiting for a disk


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
    """Writes `results/DATE-KIND-DEVICE-MACHINE.json`, or `out`; a second one of a day and machine takes the first
    one's place.
    """
    now = datetime.now(UTC)
    path = out or RESULTS / f"{now:%Y-%m-%d}-{file_stem(kind, document)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"kind": kind, "date": f"{now:%Y-%m-%d}", **document, "loads_at_end": list(os.getloadavg())}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return path


def file_stem(kind: str, document: dict[str, Any]) -> str:
    """KIND-DEVICE-MACHINE; leaves out the number of a device: `step-cpu-amd-epyc`, `step-cuda-nvidia-h200`."""
    machine_name = re.sub("[^a-z0-9]+", "-", document["machine"]["device"].lower()).strip("-")
    return f"{kind}-{document['device'].partition(':')[0]}-{machine_name}"


def newest(kind: str, document: dict[str, Any], folder: Path = RESULTS) -> dict[str, Any] | None:
    """The newest record of a kind on the device and machine of `document`; None where there is none."""
    found = sorted(folder.glob(f"*-{file_stem(kind, document)}.json"))
    return json.loads(found[-1].read_text(encoding="utf-8")) if found else None


def newest_of_each_machine(kind: str, device: str, folder: Path = RESULTS) -> list[dict[str, Any]]:
    """The newest record of a kind on each machine, in the order of the machines' names."""
    paths = sorted(folder.glob(f"*-{kind}-{device.partition(':')[0]}-*.json"))  # by date
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    by_machine = {file_stem(kind, document): document for document in documents}
    return [by_machine[stem] for stem in sorted(by_machine)]
