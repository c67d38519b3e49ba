"""TensorBoard's event files, made from records by tensorboard's own protobufs. Neither torch nor TensorFlow is needed.

FOLDER/tensorboard/LABEL-seedN-ID/events.out.tfevents.SECONDS.dlx   one file for each trial

A trial's file is written whole from its records, and while the trial runs, each epoch is appended. So a resumed trial
has no point twice, and a finished study gets the same files as one that was watched.
"""

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from dlx.records.archive import StudyRecords, TrialHistory
from dlx.records.folder import TrialFolder, trial_folder_name
from dlx.records.pictures import CasePicture
from dlx.records.schema import EpochRecord, TrialRecord
from dlx.report.trackers.slices import described, draw_slice, name_of
from dlx.report.trackers.times import seconds_of, started_s
from dlx.report.trackers.values import Hyperparameter, epoch_values, final_values, hyperparameters
from dlx.system.errors import SettingError
from dlx.system.files import naming, replacing

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

FOLDER = "tensorboard"  # within the folder of a run
FILES = "events.out.tfevents.*.dlx"
FILE_VERSION = "brain.Event:2"
STATUS = {"done": "STATUS_SUCCESS", "diverged": "STATUS_FAILURE", "failed": "STATUS_FAILURE"}


def check_installed() -> None:
    """SettingError, with the command that installs it, if tensorboard cannot be imported."""
    try:
        import tensorboard.compat.proto.event_pb2  # noqa: F401
    except ImportError as error:
        missing = error.name == "tensorboard" or error.name is None
        cause = "which is not installed" if missing else f"which cannot be imported ({error})"
        raise SettingError(
            f"--tensorboard needs the package tensorboard, {cause}: pip install 'dlx[tensorboard]'"
        ) from None


class TrialEvents:
    """The event file of one trial: begun with what is recorded so far, then appended to, until it is closed.

    `started_s` is when the trial's clock started, in seconds since 1970: an epoch is dated by it and the seconds that
    the epochs took until then, so that pauses between two runs of a trial are left out.
    """

    def __init__(
        self, folder: Path, parameters: Mapping[str, Hyperparameter], started_s: float, epochs: Iterable[EpochRecord]
    ) -> None:
        self._clock_s, self._last_epoch = started_s, 0
        events = [_event(started_s, 0, file_version=FILE_VERSION), _session_start(parameters, started_s, folder.name)]
        path = folder / f"events.out.tfevents.{int(time.time()):010d}.dlx"
        folder.mkdir(parents=True, exist_ok=True)
        others = [other for other in folder.glob(FILES) if other != path]
        # TensorBoard reads every file with `tfevents` in its name, so the temporary one has another
        with replacing(path, folder / f".{secrets.token_hex(8)}.tmp") as file:
            file.write(_encoded([*events, *(self._of_epoch(epoch) for epoch in epochs)]))
        for other in others:
            other.unlink(missing_ok=True)
        self._file: BinaryIO = path.open("ab")

    def append(self, epoch: EpochRecord) -> None:
        """Adds an epoch; a running TensorBoard sees it at once."""
        self._write([self._of_epoch(epoch)])

    def finish(self, record: TrialRecord, pictures: Iterable[CasePicture] = ()) -> None:
        """Adds the final scores, the pictures of cases, and how the trial ended."""
        values = [_scalar(name, value) for name, value in final_values(record).items()]
        step = record.result.epochs if record.result is not None else self._last_epoch
        values += [_picture(picture) for picture in pictures]
        scores = [_event(self._clock_s, step, summary=values)] if values else []
        self._write([*scores, _session_end(record.status, self._clock_s)])

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _of_epoch(self, epoch: EpochRecord) -> "Event":
        self._clock_s += seconds_of(epoch)
        self._last_epoch = epoch.result.epoch
        values = [_scalar(name, value) for name, value in epoch_values(epoch).items()]
        return _event(self._clock_s, epoch.result.epoch, summary=values)

    def _write(self, events: Sequence["Event"]) -> None:
        with naming(Path(self._file.name)):
            self._file.write(_encoded(events))
            self._file.flush()


def write_events(folder: Path, records: StudyRecords) -> Path:
    """Writes the event files of all trials of a study that have begun, below `folder`; returns its path.

    The file of a trial that is running is left to the process that runs it, if there is one.
    """
    parameters = hyperparameters(records.header, {trial.entry.trial: trial.settings() for trial in records.trials})
    for trial in records.trials:
        own = folder / trial_folder_name(trial.entry)
        is_running = trial.folder is not None and TrialFolder.at(trial.folder).is_running()
        if (trial.epochs or trial.record is not None) and not (is_running and any(own.glob(FILES))):
            write_trial_events(own, parameters[trial.entry.trial], trial)
    return folder


def write_trial_events(folder: Path, parameters: Mapping[str, Hyperparameter], trial: TrialHistory) -> None:
    """Writes the event file of a trial, finished or not, from its records."""
    events = TrialEvents(folder, parameters, started_s(trial), trial.epochs)
    try:
        if trial.record is not None:
            events.finish(trial.record, trial.read_pictures())
    finally:
        events.close()


def _encoded(events: Iterable["Event"]) -> bytes:
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = BytesIO()
    writer = RecordWriter(buffer)
    for event in events:
        writer.write(event.SerializeToString())
    return buffer.getvalue()


def _event(wall_time: float, step: int, *, summary: "Sequence[Summary.Value] | None" = None, **fields: Any) -> "Event":
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    if summary is not None:
        fields["summary"] = Summary(value=summary)
    return Event(wall_time=wall_time, step=step, **fields)


def _scalar(tag: str, value: float) -> "Summary.Value":
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary.Value(tag=tag, simple_value=value)


def _picture(picture: CasePicture) -> "Summary.Value":
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.image.metadata import create_summary_metadata

    height, width, png = draw_slice(picture)
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
    metadata = create_summary_metadata(display_name=name_of(picture), description=described(picture))
    return Summary.Value(tag=name_of(picture), image=image, metadata=metadata)


def _session_start(parameters: Mapping[str, Hyperparameter], wall_time: float, name: str) -> "Event":
    """The hparams plugin's start of a session, with the values by which trials are filtered and sorted there."""
    from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

    info = SessionStartInfo(group_name=name, start_time_secs=wall_time)
    for key, value in parameters.items():
        kind = "bool_value" if isinstance(value, bool) else "string_value" if isinstance(value, str) else "number_value"
        setattr(info.hparams[key], kind, value)
    return _plugin_event(SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=info), wall_time)


def _session_end(status: str, wall_time: float) -> "Event":
    from tensorboard.plugins.hparams import api_pb2
    from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

    info = SessionEndInfo(status=api_pb2.Status.Value(STATUS[status]), end_time_secs=wall_time)
    return _plugin_event(SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=info), wall_time)


def _plugin_event(tag: str, content: Any, wall_time: float) -> "Event":
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams.metadata import NULL_TENSOR, create_summary_metadata

    value = Summary.Value(tag=tag, metadata=create_summary_metadata(content), tensor=NULL_TENSOR)
    return _event(wall_time, 0, summary=[value])
