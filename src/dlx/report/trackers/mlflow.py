"""MLflow runs in a local folder, made from records by MLflow's own client: no server, no login, no network.

FOLDER/mlruns   MLflow's file store: an experiment for the study, in it a run for each trial that has ended

MLflow asks for MLFLOW_ALLOW_FILE_STORE=true before it opens such a folder, as it develops only databases further; it is
set here, and `mlflow ui` needs it too. The database that it prefers takes two more packages, 7 s for its first run and
1.2 s for each of 50 epochs; the folder 0.1 s (docs/log.md).
"""

import hashlib
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dlx.records.archive import StudyRecords, TrialHistory
from dlx.records.folder import trial_folder_name
from dlx.records.schema import StudyHeader, TrialRecord
from dlx.report.trackers.times import epoch_times, started_s
from dlx.report.trackers.values import epoch_values, final_values, hyperparameters
from dlx.settings.flat import flattened, spell_setting
from dlx.system.errors import DataError, DlxError, SettingError

if TYPE_CHECKING:
    from mlflow.entities import Metric

FOLDER = "mlruns"  # within the folder of a run, as MLflow calls it
ENVIRONMENT = {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
MAX_NAME, MAX_PARAM, MAX_TAG = 250, 6000, 5000  # characters, as MLflow limits them
MAX_METRICS, MAX_PARAMS = 1000, 100  # in one call
TRIAL, DIGEST = "dlx.trial", "dlx.record"  # tags: the trial's id, and a hash of its record
STATUS = {"done": "FINISHED", "diverged": "FAILED", "failed": "FAILED"}

Item = TypeVar("Item")


def check_installed() -> None:
    """SettingError, with the command that installs it, if there is no MLflow. It is not imported, which takes 2 s."""
    if importlib.util.find_spec("mlflow") is None:
        raise SettingError(
            "--mlflow needs the package mlflow-skinny, which is not installed: pip install 'dlx[mlflow]'"
        )


@contextmanager
def local_only() -> Iterator[None]:
    """Allows MLflow's file store and forbids its telemetry, while MLflow is imported or used."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class MlflowRuns:
    """The runs of a study in MLflow's folder: one for each trial that has ended.

    A run that is there already stays; one of an earlier record of the same trial, or one that was cut short, is deleted
    as MLflow deletes runs and written again. All methods raise DataError if MLflow cannot read or write.
    """

    def __init__(self, folder: Path, header: StudyHeader) -> None:
        self.folder, self.header = folder, header
        with self._in_use():
            from mlflow.tracking import MlflowClient

            uri = folder.absolute().as_uri()
            self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            name = header.name.strip() or "study"
            found = self._client.get_experiment_by_name(name)
            self._experiment = self._client.create_experiment(name) if found is None else found.experiment_id
            self._known = dict(self._known_runs())

    def write(self, trial: TrialHistory) -> None:
        """Writes the run of a trial; nothing if it has not ended, or if its run is there."""
        record = trial.record
        if record is None:
            return
        digest = hashlib.blake2b(record.model_dump_json().encode(), digest_size=16).hexdigest()
        run_id, written = self._known.get(trial.entry.trial, (None, None))
        if written == digest:
            return
        with self._in_use():
            if run_id is not None:
                self._client.delete_run(run_id)
            self._known[trial.entry.trial] = (self._write_run(trial, record, digest), digest)

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        with local_only():
            try:
                yield
            except ImportError as error:
                raise DataError(f"MLflow cannot be imported: {error}") from None
            except (DlxError, OSError):
                raise
            except Exception as error:  # noqa: BLE001 - MLflow's own, and those of the parser of its files
                cause = " ".join(str(error).split())
                raise DataError(f"{self.folder}: MLflow cannot read or write its runs: {cause}") from None

    def _known_runs(self) -> Iterator[tuple[str, tuple[str, str | None]]]:
        """Yields the id of each trial with its run and the digest of its record; None if the run was cut short."""
        token = None
        while True:
            page = self._client.search_runs([self._experiment], page_token=token)
            for run in page:
                if TRIAL in run.data.tags:
                    yield run.data.tags[TRIAL], (run.info.run_id, run.data.tags.get(DIGEST))
            token = page.token
            if not token:
                return

    def _write_run(self, trial: TrialHistory, record: TrialRecord, digest: str) -> str:
        from mlflow.entities import Param, RunTag

        start, client = started_s(trial), self._client
        run = client.create_run(
            self._experiment,
            start_time=int(1000 * start),
            run_name=trial_folder_name(trial.entry),
            tags=_tags(self.header, record, trial.entry.trial),
        )
        run_id: str = run.info.run_id
        for params in _chunks(list(_params(self.header, trial, record).items()), MAX_PARAMS):
            client.log_batch(run_id, params=[Param(key, value) for key, value in params])
        for metrics in _chunks(_metrics(trial, record), MAX_METRICS):
            client.log_batch(run_id, metrics=metrics)
        client.log_batch(run_id, tags=[RunTag(DIGEST, digest)])  # last: a run without it was cut short
        client.set_terminated(run_id, status=STATUS[record.status], end_time=int(1000 * (start + record.run.seconds)))
        return run_id


def write_runs(folder: Path, records: StudyRecords) -> Path:
    """Writes a run for each trial that has ended into MLflow's folder, and returns it; DataError as in MlflowRuns."""
    runs = MlflowRuns(folder, records.header)
    for trial in records.trials:
        runs.write(trial)
    return folder


def _tags(header: StudyHeader, record: TrialRecord, trial: str) -> dict[str, str]:
    found = {
        TRIAL: trial,
        "dlx.study": header.name,
        "dlx.variant": record.label,
        "dlx.status": record.status,
        "dlx.cause": record.cause,
        "dlx.device": record.run.device,
        "dlx.command": header.command,
        "mlflow.note.content": header.question,
    }
    return {key: value[:MAX_TAG] for key, value in found.items() if value}


def _params(header: StudyHeader, trial: TrialHistory, record: TrialRecord) -> dict[str, str]:
    """All resolved settings of the trial, and its variant, seed, fold and place on the axes."""
    place = hyperparameters(header, {})[trial.entry.trial]
    values = {key: spell_setting(value) for key, value in (flattened(record.settings) | place).items()}
    names = unique_names(values)
    return {names[key]: _shortened(value) for key, value in values.items()}


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_PARAM else f"{text[: MAX_PARAM - 3]}..."


def _metrics(trial: TrialHistory, record: TrialRecord) -> "list[Metric]":
    """The values of all epochs, and the final scores at the last of them."""
    from mlflow.entities import Metric

    points = [
        (epoch.result.epoch, time_s, epoch_values(epoch))
        for epoch, time_s in zip(trial.epochs, epoch_times(trial), strict=True)
    ]
    last_epoch, last_s = (points[-1][0], points[-1][1]) if points else (0, started_s(trial))
    points.append((last_epoch, last_s, final_values(record)))
    names = unique_names(dict.fromkeys(name for _, _, values in points for name in values))
    return [
        Metric(names[name], value, int(1000 * time_s), step)
        for step, time_s, values in points
        for name, value in values.items()
    ]


def unique_names(names: Mapping[str, Any]) -> dict[str, str]:
    """Each name in characters that MLflow takes: a slash, which would make a folder, is a point, others are `_`.

    Names that become equal are numbered.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        plain = re.sub(r"[^\w.\- ]", "_", name.replace("/", "."))[: MAX_NAME - 4].strip(". ") or "_"
        unique, number = plain, 1
        while unique in taken:
            number += 1
            unique = f"{plain}-{number}"
        taken.add(unique)
        found[name] = unique
    return found


def _chunks(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
