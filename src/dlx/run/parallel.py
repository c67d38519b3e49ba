"""How many trials of a study run at once: by their threads and devices, and by shared memory."""

from dlx.run.devices import cuda_names, device_of_worker
from dlx.settings.text import counted
from dlx.study.study import Study
from dlx.system.cpu_cores import available_cores
from dlx.system.errors import SettingError
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
    times slower (docs/log.md). On a GPU one trial runs at a time unless more are requested.
    """
    if asked is not None and asked < 1:
        raise SettingError(f"--max-parallel {asked}: expected 1 or more")
    if any(one.compute.device.type != "cpu" for one in resolved):
        parallel = min(asked or 1, num_trials)
        return parallel, _on_several(resolved, parallel)
    threads = max(one.compute.threads for one in resolved)
    room = max(1, available_cores() // threads)
    if asked is not None and asked > room:
        remark = (
            f"--max-parallel {asked}: only {room} at once: each trial uses {counted(threads, 'thread')}, of "
            f"{counted(available_cores(), 'core')}"
        )
        return min(room, num_trials), [remark]
    return min(asked or room, num_trials), []


def _on_several(resolved: list[Resolved], num_workers: int) -> list[str]:
    """A remark if trials run on more than one device."""
    names = cuda_names()
    used = dict.fromkeys(str(device_of_worker(one, names, n)) for n in range(num_workers) for one in resolved)
    return [f"trials run on {', '.join(used)}, {num_workers} at once"] if len(used) > 1 else []
