"""From a plan to results: runs what is missing, in this process or in workers, and yields what happens."""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

from dlx.engine.device import prepare_backend
from dlx.records.archive import StudyRecords
from dlx.records.folder import StudyFolder
from dlx.records.schema import StudyHeader
from dlx.run.local import run_in_workers
from dlx.run.plan import Plan, Planned
from dlx.run.process_cache import ProcessCache
from dlx.run.trial import Event, TrialEnded, leaves_process_unusable, run_trial
from dlx.run.worker import Task
from dlx.system.errors import DlxError

DECLARED = ("smallest_effect", "metric")  # with the claims: what must be said before results are there


@dataclass(frozen=True)
class TrialEvent:
    """Something that happened in the plan's trial number `index`."""

    index: int
    event: Event


def run_plan(
    plan: Plan,
    *,
    in_workers: bool = False,
    fresh: bool = False,
    retry_failed: bool = False,
    keep_going: bool = True,
    archived: StudyRecords | None = None,
) -> Iterator[TrialEvent]:
    """Declares the study, then runs what is missing of it; what is there already ends at once.

    `archived` are the study's records of another run, say beside its file: claims that change are late where these have
    results, too.

    `in_workers` gives each trial at work a process of its own, so that several run at once and one that crashes is a
    row; `plan.max_parallel` above one needs it. A plan without workers runs in this process all the same. Without
    `keep_going` nothing new starts after a trial that failed, and what is at work is stopped (and goes on from its last
    epoch another time).
    """
    _declare(plan, archived)
    waiting: list[int] = []
    for index, planned in enumerate(plan.trials):
        found = planned.folder.result()
        if found is None or fresh or (retry_failed and found.status != "done"):
            waiting.append(index)
        else:
            yield TrialEvent(index, TrialEnded(found, planned.folder.path, was_done=True))
    if in_workers and plan.has_workers and waiting:
        tasks = {index: _task(plan.trials[index], fresh, retry_failed) for index in waiting}
        events = run_in_workers(tasks, plan.stores, plan.max_parallel)
    else:
        events = _run_here(plan, waiting, fresh, retry_failed)
    with closing(events):
        for index, event in events:
            yield TrialEvent(index, event)
            if isinstance(event, TrialEnded) and event.record.status != "done" and not keep_going:
                return


def _declare(plan: Plan, archived: StudyRecords | None) -> None:
    """Writes the study's header; what is declared anew once results are there is marked so in it, for good."""
    folder, header = StudyFolder(plan.folder), plan.header()
    late: list[str] = []
    for before in folder.declared_before(header):
        late += _late(before, header, has_results=len(plan.missing()) < len(plan.trials))
    if archived is not None:
        late += _late(archived.header, header, has_results=any(trial.record is not None for trial in archived.trials))
    folder.write_header(header.model_copy(update={"declared_late": tuple(dict.fromkeys(late))}))


def _late(before: StudyHeader, header: StudyHeader, *, has_results: bool) -> list[str]:
    """What was late already, and what the header declares otherwise than before, though results were there."""
    late = list(before.declared_late)
    if has_results:
        late += [key.replace("_", " ") for key in DECLARED if getattr(before, key) != getattr(header, key)]
        late += [claim["text"] for claim in header.claims if claim not in before.claims]
        texts = [claim["text"] for claim in header.claims]
        late += [f"without the claim '{claim['text']}'" for claim in before.claims if claim["text"] not in texts]
    return late


def _task(planned: Planned, fresh: bool, retry_failed: bool) -> Task:
    return Task(planned.trial, planned.resolved, planned.folder, fresh=fresh, retry_failed=retry_failed)


def _run_here(plan: Plan, waiting: list[int], fresh: bool, retry_failed: bool) -> Generator[tuple[int, Event]]:
    cache = ProcessCache()
    for position, index in enumerate(waiting, 1):
        planned = plan.trials[index]
        prepare_backend(planned.resolved.compute)
        store = cache.store(planned.resolved, plan.stores)
        with planned.folder.locked():
            if fresh:
                planned.folder.clear()
            for event in run_trial(
                planned.trial, planned.resolved, store, planned.folder, retry_failed=retry_failed, jobs=cache.jobs
            ):
                yield index, event
        if isinstance(event, TrialEnded) and leaves_process_unusable(event.record) and position < len(waiting):
            raise DlxError(
                f"after a CUDA error no trial can run in this process; the same command goes on with the other "
                f"{len(waiting) - position}"
            )
