"""Runs studies and gives what they found. The commands run and report by the same functions."""

import logging
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Unpack

from dlx.api.arguments import Location, Seeds, as_layers, as_path, check_number
from dlx.api.studies import one_network
from dlx.api.tables import RecordTables, tables_of_records
from dlx.execution.cluster.spec import JobScheduler, cluster_from
from dlx.records.archive import StudyRecords, read_study, with_looks
from dlx.records.folder import StudyFolder
from dlx.report.files.document import records_document
from dlx.report.files.writing import write_report
from dlx.report.findings.summary import Summary, summarize_study
from dlx.report.terminal.tables import TEXT_WIDTH, as_text, tables_of
from dlx.settings.short_names import DEFAULT_RECIPE, NamedSettings
from dlx.study.own_code import with_code_of_study
from dlx.study.study import Study, Trial
from dlx.system.caches import default_cache_dir
from dlx.system.cpu_cores import limit_spinning
from dlx.system.errors import SettingError
from dlx.system.ranks import ranks_of

LOGGER = logging.getLogger("dlx")
OnEvent = Callable[[Trial, Any], None]


@dataclass(frozen=True)
class StudyRun:
    """A study that ran: its folder, its records and the files of its report. `print` shows its table."""

    folder: Path
    records: StudyRecords = field(repr=False)
    files: tuple[Path, ...] = field(default=(), repr=False)

    @cached_property
    def summary(self) -> Summary:
        """What the study found: values, comparisons with the control and their verdicts."""
        return summarize_study(self.records)

    @cached_property
    def tables(self) -> RecordTables:
        """The records as tables of pandas."""
        return tables_of_records(self.records)

    @property
    def document(self) -> dict[str, Any]:
        """What `--json` prints: study, trials, variants with comparisons, and claims."""
        return records_document(self.summary, self.records)

    @property
    def failed(self) -> dict[str, str]:
        """The trials that failed or diverged, by their names, and why."""
        trials = [(trial.entry, trial.record) for trial in self.records.trials]
        return {
            f"{entry.label}, {entry.run}": record.cause or record.status
            for entry, record in trials
            if record is not None and record.status != "done"
        }

    def __str__(self) -> str:
        return as_text(tables_of(self.summary, self.records), TEXT_WIDTH)


def train(
    *,
    out: Location | None = None,
    seeds: Seeds = 1,
    recipe: str = DEFAULT_RECIPE,
    settings: Mapping[str, Any] | None = None,
    max_parallel: int | None = None,
    executor: Literal["local", "dask"] | None = None,
    scheduler_address: str | None = None,
    cluster: JobScheduler | None = None,
    cluster_file: Location | None = None,
    cache_dir: Location | None = None,
    fresh: bool = False,
    retry_failed: bool = False,
    keep_going: bool = True,
    pictures: bool = True,
    on_event: OnEvent | None = None,
    **named: Unpack[NamedSettings],
) -> StudyRun:
    """Trains one network and measures train and validation Dice over whole volumes, as `dlx train` does.

    `train(data="folder", dropout=0.1, epochs=20)`: settings by short name are the options of `dlx train`; `settings`
    gives others by full name: `{"model.width": 8}`. `model="my_net.py:Net"` loads a network of your own. The rest is as
    in `run`.
    """
    study = one_network(as_layers(recipe, named, settings), seeds)
    study = with_code_of_study(study, (), trusts=True)
    return run(
        study,
        out,
        max_parallel=max_parallel,
        executor=executor,
        scheduler_address=scheduler_address,
        cluster=cluster,
        cluster_file=cluster_file,
        cache_dir=cache_dir,
        fresh=fresh,
        retry_failed=retry_failed,
        keep_going=keep_going,
        pictures=pictures,
        on_event=on_event,
    )


def run(
    study: Study,
    out: Location | None = None,
    *,
    max_parallel: int | None = None,
    executor: Literal["local", "dask"] | None = None,
    scheduler_address: str | None = None,
    cluster: JobScheduler | None = None,
    cluster_file: Location | None = None,
    cache_dir: Location | None = None,
    fresh: bool = False,
    retry_failed: bool = False,
    keep_going: bool = True,
    pictures: bool = True,
    on_event: OnEvent | None = None,
) -> StudyRun:
    """Runs the missing trials of a study in worker processes, and writes records and report to `out` (default:
    `runs/NAME`). Trials that are done are not run again, and unfinished ones resume.

    `on_event(trial, event)` is called with each start, step, epoch and end of a trial: an `Event` of
    `dlx.execution.trials.trial`. Remarks on data and settings are warnings of the logger `dlx`. A trial that fails is
    in `StudyRun.failed`, and the others run, unless `keep_going` is False. With `executor="dask"` trials run on a
    dask.distributed cluster: that of `scheduler_address`, one whose workers the job scheduler `cluster` starts as
    `cluster_file` says, or one on this machine. Without `pictures` no slices of cases are
    recorded. After KeyboardInterrupt the same call goes on. Raises DlxError, before anything is trained, if a trial
    cannot run.
    """
    if not isinstance(study, Study):
        raise SettingError(f"expected a study of dlx.make_study or dlx.load_study (got {study!r})")
    if ranks_of().size > 1:
        raise SettingError("torchrun is for the command dlx train: run this script without it")
    if on_event is not None and not callable(on_event):
        raise SettingError(f"on_event: expected a function of a trial and an event (got {on_event!r})")
    check_number("max_parallel", max_parallel)
    folder = None if out is None else as_path("out", out)
    cache = default_cache_dir() if cache_dir is None else as_path("cache_dir", cache_dir)
    file = None if cluster_file is None else as_path("cluster_file", cluster_file)
    spec = cluster_from(executor, scheduler_address, cluster, file, max_parallel)
    limit_spinning()
    from dlx.execution.cluster.start import joined, running
    from dlx.execution.planning.plan import make_plan
    from dlx.execution.runner import run_plan
    from dlx.execution.trials.trial import ClusterNote
    from dlx.execution.workers.server import start_server

    if spec is None:
        start_server()
    with joined(spec) as machines:
        plan = make_plan(
            study,
            folder or default_folder(study),
            command=f"dlx.run({study.name!r})",
            cache_dir=cache,
            max_parallel=max_parallel,
            cluster=machines,
        )
        for remark in plan.remarks:
            LOGGER.warning(remark)
        with running(spec, machines, plan.max_parallel) as client:
            events = run_plan(
                plan,
                in_workers=True,
                fresh=fresh,
                retry_failed=retry_failed,
                keep_going=keep_going,
                has_pictures=pictures,
                client=client,
            )
            with closing(events):  # if `on_event` raises, workers end here, though the traceback keeps the generator
                for index, event in events:
                    if isinstance(event, ClusterNote):  # which is of no trial
                        LOGGER.warning(event.text)
                    elif on_event is not None:
                        on_event(plan.trials[index].trial, event)
    return load_run(plan.folder)


def default_folder(study: Study) -> Path:
    """`runs/NAME`, or for one network that of `dlx train`, `runs/DATA-MODEL`."""
    from dlx.execution.planning.plan import default_folder as folder_of_network

    return folder_of_network(study.base) if len(study.variants) == 1 else Path("runs") / study.name


def load_run(folder: Location) -> StudyRun:
    """What is recorded of a study in its folder or .jsonl file; writes the files of its report there, as `dlx report`
    does. Raises DataError if the path has no readable records.
    """
    path = as_path("folder", folder)
    records = read_study(path)
    summary = summarize_study(records)
    if path.is_file():
        return StudyRun(
            path.parent, records, tuple(write_report(path.with_suffix(""), summary, records, with_png=False))
        )
    records = with_looks(records, StudyFolder(path).note_look(summary.look))
    return StudyRun(path, records, tuple(write_report(path / "report", summary, records, with_png=True)))
