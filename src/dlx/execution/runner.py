"""Runs the missing trials of a plan, in this process or in workers, and yields their events."""

from collections.abc import Generator, Mapping
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from dlx.data.splits.splits_file import splits_document
from dlx.engine.group import Group
from dlx.execution.planning.plan import Plan
from dlx.execution.trials.follower import agree_on_trial, follow_trial
from dlx.execution.trials.process_cache import ProcessCache
from dlx.execution.trials.stores import Stores
from dlx.execution.trials.trial import Event, Task, TrialEnded, leaves_process_unusable, prepared, run_trial
from dlx.execution.workers.local import run_in_workers
from dlx.records.archive import StudyRecords
from dlx.records.folder import StudyFolder
from dlx.records.schema import StudyHeader
from dlx.system.errors import DataError, DlxError, SettingError

if TYPE_CHECKING:
    from distributed import Client

DECLARED = ("smallest_effect", "metric", "scope")  # with the claims, they must be declared before the first result


def run_plan(
    plan: Plan,
    *,
    in_workers: bool = False,
    fresh: bool = False,
    retry_failed: bool = False,
    keep_going: bool = True,
    archived: StudyRecords | None = None,
    has_pictures: bool = True,
    client: "Client | None" = None,
    group: Group | None = None,
) -> Generator[tuple[int, Event]]:
    """Declares the study, then runs its missing trials; yields the number of a trial in the plan and its event.

    Finished trials have only an end.

    `archived` are records of an earlier run of the study, such as those beside its file: if they have results, claims
    that change are declared late.

    `in_workers` runs each trial in a worker process, so that several run at once and a crash is recorded as a failed
    trial; `plan.max_parallel` above one requires it. It has no effect if the plan has no workers. With a `client`
    trials run on its dask cluster instead. Without `keep_going` no trial starts after one has failed, and running
    trials are stopped; a later run resumes them. With `has_pictures` slices of some validation cases are recorded.
    `group` are the ranks that train the plan's trial; this is the first.
    """
    _check_ranks(plan, group)
    _declare(plan, archived)
    tasks: dict[int, Task] = {}
    for index, task in enumerate(plan.trials):
        found = task.folder.result()
        if found is None or fresh or (retry_failed and found.status != "done"):
            tasks[index] = replace(task, fresh=fresh, retry_failed=retry_failed, has_pictures=has_pictures)
        else:
            yield index, TrialEnded(found, task.folder.path, was_done=True)
    if group is not None and not group.broadcast(bool(tasks)):
        return
    if client is not None and tasks:
        from dlx.execution.cluster.run import run_on_cluster

        events = run_on_cluster(tasks, plan.stores, client, [task.trial_id for task in plan.trials])
    elif in_workers and plan.has_workers and tasks:
        events = run_in_workers(tasks, plan.stores, plan.max_parallel)
    else:
        events = _run_here(tasks, plan.stores, group)
    with closing(events):
        for index, event in events:
            yield index, event
            if isinstance(event, TrialEnded) and event.record.status != "done" and not keep_going:
                return


def follow_plan_as_rank(plan: Plan, group: Group) -> None:
    """Runs the plan's trial on a rank other than the first, if the first runs it."""
    _check_ranks(plan, group)
    if group.broadcast(None):
        agree_on_trial(plan.trials[0], group)
        follow_trial(plan.trials[0], plan.stores, group)


def _check_ranks(plan: Plan, group: Group | None) -> None:
    """SettingError if a trial is for another number of processes than there are."""
    size = 1 if group is None else group.ranks.size
    for task in plan.trials:
        num_ranks = task.resolved.spec.compute.num_ranks
        if num_ranks != size:
            raise SettingError(
                f"compute.num_ranks: {num_ranks} processes train this trial together, but {size} is running: "
                f"torchrun --nproc-per-node {num_ranks} -m dlx train ... starts them"
            )


def _declare(plan: Plan, archived: StudyRecords | None) -> None:
    """Writes the study's header; whatever is declared after the first result is permanently marked as late."""
    folder, header = StudyFolder(plan.folder), plan.header()
    other = folder.header()
    _check_alone(folder, other, header)
    late: list[str] = []
    for before in folder.declared_before(header):
        late += _late(before, header, has_results=len(plan.missing()) < len(plan.trials))
    if archived is not None:
        late += _late(archived.header, header, has_results=any(trial.record is not None for trial in archived.trials))
    folder.write_header(header.model_copy(update={"declared_late": tuple(dict.fromkeys(late))}))
    if plan.study.folds:
        folder.write_splits(splits_document(plan.splits))
    elif other is not None and other.folds:
        folder.remove_splits()  # of the study that was here before


def _check_alone(folder: StudyFolder, other: StudyHeader | None, header: StudyHeader) -> None:
    """DataError if trials run in the folder of a study that has other trials: each would report the other's."""
    if other is None or {entry.trial for entry in other.trials} == {entry.trial for entry in header.trials}:
        return
    if any(folder.trial(entry).is_running() for entry in other.trials):
        raise DataError(
            f"{folder.path}: another study is running in this folder ({other.command or other.name}): wait for its "
            "end, or give another folder (--out)"
        )


def _spell(value: str | float | None) -> str:
    return "not declared" if value is None else str(value)


def _late(before: StudyHeader, header: StudyHeader, *, has_results: bool) -> list[str]:
    """What was late before, and the declarations that changed although there were results."""
    late = list(before.declared_late)
    if has_results:
        declared = [(key.replace("_", " "), getattr(before, key), getattr(header, key)) for key in DECLARED]
        late += [f"{name}: {_spell(old)} -> {_spell(new)}" for name, old, new in declared if old != new]
        if before.scope is None and header.scope is None and bool(before.folds) != bool(header.folds):
            late.append("scope")  # without a declared one it follows from the folds
        late += [claim["text"] for claim in header.claims if claim not in before.claims]
        texts = [claim["text"] for claim in header.claims]
        late += [f"without the claim '{claim['text']}'" for claim in before.claims if claim["text"] not in texts]
    return late


def _run_here(tasks: Mapping[int, Task], stores: Stores, group: Group | None = None) -> Generator[tuple[int, Event]]:
    cache = ProcessCache(group=group)
    with nullcontext() if group is None else group.together():
        yield from _run_one_by_one(tasks, stores, cache)


def _run_one_by_one(tasks: Mapping[int, Task], stores: Stores, cache: ProcessCache) -> Generator[tuple[int, Event]]:
    group = cache.group
    for position, (index, task) in enumerate(tasks.items(), 1):
        if group is not None:
            agree_on_trial(task, group)
        with prepared(task, stores, cache) as store:
            for event in run_trial(task, store, cache):
                if group is not None and isinstance(event, TrialEnded):
                    group.leave("failed" if event.record.status == "failed" else "done")
                yield index, event
        if isinstance(event, TrialEnded) and leaves_process_unusable(event.record) and position < len(tasks):
            raise DlxError(
                f"after a CUDA error no trial can run in this process; run the same command again for the other "
                f"{len(tasks) - position}"
            )
