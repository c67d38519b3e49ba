"""How many trials of a study run at once: by their threads and devices, and by shared memory."""

from dlx.run.devices import cuda_names, device_of_worker
from dlx.settings.text import counted
from dlx.study.study import Study
from dlx.system.cpu_cores import available_cores
from dlx.system.errors import SettingError
from dlx.trial.fit_batch import MEMORY_FRACTION
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
    times slower (docs/log.md). Nor may their steps together take more than MEMORY_FRACTION of the memory, where that
    was counted. On a GPU one trial runs at a time unless more are requested.
    """
    if asked is not None and asked < 1:
        raise SettingError(f"--max-parallel {asked}: expected 1 or more")
    if any(one.compute.device.type != "cpu" for one in resolved):
        parallel = min(asked or 1, num_trials)
        return parallel, _on_several(resolved, parallel)
    threads = max(one.compute.threads for one in resolved)
    rooms = {
        f"each trial uses {counted(threads, 'thread')}, of {counted(available_cores(), 'core')}": _by_cores(threads)
    }
    fraction = max(one.memory_fraction or 0.0 for one in resolved)
    if fraction > 0:
        rooms[f"a step of one trial may take {fraction:.0%} of the memory"] = max(1, int(MEMORY_FRACTION / fraction))
    limit, room = min(rooms.items(), key=lambda item: item[1])
    wanted = min(num_trials, _by_cores(threads) if asked is None else asked)
    if wanted <= room:
        return wanted, []
    return room, [f"--max-parallel {asked}: only {room} at once: {limit}" if asked else f"{room} at once: {limit}"]


def _by_cores(threads: int) -> int:
    return max(1, available_cores() // threads)


def _on_several(resolved: list[Resolved], num_workers: int) -> list[str]:
    """A remark if trials run on more than one device."""
    names = cuda_names()
    used = dict.fromkeys(str(device_of_worker(one, names, n)) for n in range(num_workers) for one in resolved)
    return [f"trials run on {', '.join(used)}, {num_workers} at once"] if len(used) > 1 else []
