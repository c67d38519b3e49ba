"""How many trials of a study run at once: by their threads and devices, and by shared memory."""

from dlx.execution.workers.devices import cuda_names, device_of_worker
from dlx.settings.text import counted
from dlx.study.study import Study
from dlx.system.cpu_cores import available_cores
from dlx.system.errors import SettingError
from dlx.trial.memory import PARALLEL_FRACTION
from dlx.trial.resolve import Resolved


def choose_parallel(
    resolved: list[Resolved], asked: int | None, study: Study, lack: str | None
) -> tuple[int, list[str]]:
    """How many trials run at once, and remarks: one if shared memory is too small (`lack`) for the voxels."""
    num_trials = len(study.variants) * len(study.splits) * len(study.seeds)
    parallel, remarks = _parallel(resolved, asked, num_trials)
    if lack is None or num_trials == 1:
        return parallel, remarks
    if asked is not None and asked > 1:
        raise SettingError(f"--max-parallel {asked}: {lack}; or leave it out, for one trial at a time")
    if parallel > 1 or len(study.variants) > 1:  # seeds and folds of one variant need no workers
        remarks = [*remarks, f"one trial at a time, in this process: {lack}"]
    return 1, remarks


def _parallel(resolved: list[Resolved], asked: int | None, num_trials: int) -> tuple[int, list[str]]:
    """How many trials run at once by their threads and devices, and a remark if that is fewer than requested.

    On a CPU, threads times trials never exceed the cores: with more threads than cores, steps were measured to be many
    times slower (docs/log.md). On a GPU one trial runs at a time unless more are requested. Trials of one device may
    not take more than PARALLEL_FRACTION of its memory together, where that was counted.
    """
    if asked is not None and asked < 1:
        raise SettingError(f"--max-parallel {asked}: expected 1 or more")
    has_gpu = any(one.compute.device.type != "cpu" for one in resolved)
    devices = _devices(resolved, min(asked or 1, num_trials)) if has_gpu else ["cpu"]
    rooms = _rooms_in_memory(resolved, len(devices))
    if not has_gpu:
        threads = max(one.compute.threads for one in resolved)
        limit = f"each trial uses {counted(threads, 'thread')}, of {counted(available_cores(), 'core')}"
        rooms = {limit: _by_cores(threads), **rooms}
    default = 1 if has_gpu else _by_cores(threads)
    wanted = min(num_trials, default if asked is None else asked)
    limit, room = min(rooms.items(), key=lambda item: item[1], default=("", wanted))
    remarks = []
    if wanted > room:
        remarks = [f"--max-parallel {asked}: only {room} at once: {limit}" if asked else f"{room} at once: {limit}"]
    if has_gpu and len(devices) > 1:
        remarks.append(f"trials run on {', '.join(devices)}, {min(wanted, room)} at once")
    return min(wanted, room), remarks


def _rooms_in_memory(resolved: list[Resolved], num_devices: int) -> dict[str, int]:
    """What limits the trials that run at once, and to how many, by the memory of steps and of evaluation."""
    rooms = {}
    for what, hint, fractions in (
        ("a step", "batch.max_voxels or batch.size", [one.step_fraction for one in resolved]),
        ("evaluation", "evaluate.batch_size", [one.evaluation_fraction for one in resolved]),
    ):
        fraction = max((known for known in fractions if known is not None), default=0.0)
        if fraction > 0:
            reason = f"{what} of one trial may take {fraction:.0%} of the memory (a smaller {hint} takes less)"
            rooms[reason] = num_devices * max(1, int(PARALLEL_FRACTION / fraction))
    return rooms


def _devices(resolved: list[Resolved], num_workers: int) -> list[str]:
    """The devices of so many workers."""
    names = cuda_names()
    return list(dict.fromkeys(str(device_of_worker(one, names, n)) for n in range(num_workers) for one in resolved))


def _by_cores(threads: int) -> int:
    return max(1, available_cores() // threads)
