"""Predicts folders of scans with trained networks and writes label volumes: `predict`, which `dlx predict` calls.

`plan_predictions` checks everything that can be checked before the first scan; its result predicts case by case.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from dlx import __version__
from dlx.data.layouts.listing import ScanFiles
from dlx.data.volumes.opening import show_path
from dlx.data.volumes.writing import check_label_values, encode_labels
from dlx.engine.device import describe_device
from dlx.prediction.ensemble import BeginProbabilities, Ensemble, PredictedScan, Tta
from dlx.prediction.label_names import write_label_names
from dlx.prediction.manifest import CaseEntry, FileState, MethodEntry, NetworkEntry, input_states, make_method
from dlx.prediction.notes import Seen
from dlx.prediction.output_folder import OutputFolder, StagedFiles, output_names, staging
from dlx.prediction.probabilities import map_probabilities, pack_probabilities
from dlx.prediction.runs import Which, find_runs
from dlx.prediction.scans import find_scans
from dlx.prediction.trained_network import load_network, spell_own_error
from dlx.settings.binding import first_cause
from dlx.system.cpu_cores import available_cores
from dlx.system.errors import DataError, SettingError, files_error
from dlx.system.files import expand_home
from dlx.system.interrupts import raise_if_stopped

ReportProgress = Callable[[float, int, str], None]  # cases that are done, of which the last in part; all; its name
Named = str | Path
OUT_OF_MEMORY = ("can't allocate memory", "out of memory")  # in torch's messages


@dataclass(frozen=True)
class PredictedCase:
    """A case whose files are complete: the label volume first; `was_done` if an earlier run had predicted it."""

    id: str
    files: tuple[Path, ...]
    seconds: float
    was_done: bool


@dataclass(frozen=True)
class FailedCase:
    """A case that could not be predicted, and why, in a line for each file."""

    id: str
    cause: str


def predict(
    images: Named | Sequence[Named],
    out: Named,
    runs: Named | Sequence[Named],
    *,
    checkpoint: Which | None = None,
    model: str | Sequence[str] = (),
    save_probabilities: bool = False,
    tta: Tta = "auto",
    device: str = "auto",
    overwrite: bool = False,
    progress: ReportProgress | None = None,
) -> list[PredictedCase]:
    """Predicts scans with one network, or with the mean of several, and writes label volumes into a folder.

    `images` are files and folders (`scans.find_scans`), `runs` folders of runs, trials or checkpoints
    (`runs.find_runs`). A label volume has the format, the geometry and the name of its image, and the label values of
    the training data in the smallest unsigned type that holds them. Cases that are complete, from the same input and
    the same networks, are not predicted again. `model` names the code of networks of your own (`nets/my_net.py:Net`),
    which checkpoints never load. `tta` mirrors predictions as the trials did (`auto`), always or never.
    With `save_probabilities` there is an `.npz` beside each volume (`probabilities.map_probabilities`). `progress` is
    called with (done, total, case).

    Remarks on runs and scans are warnings of the logger `dlx`.

    Raises SettingError or DataError before anything is predicted if runs or images cannot be used, or if files would
    be replaced; FilesError after all others were predicted if some scans cannot be.
    """
    plan = plan_predictions(
        images, out, runs, checkpoint=checkpoint, model=model, save_probabilities=save_probabilities, tta=tta,
        device=device, overwrite=overwrite,
    )  # fmt: skip
    _log(plan.remarks)
    outcomes = list(plan.run(progress))
    _log(plan.notes())
    check_outcomes(outcomes)
    return [case for case in outcomes if isinstance(case, PredictedCase)]


def _log(lines: Sequence[str]) -> None:
    for line in lines:
        logging.getLogger("dlx").warning(line)


def check_outcomes(outcomes: Sequence[PredictedCase | FailedCase]) -> None:
    """FilesError if a case failed, with the causes."""
    lines = [line for case in outcomes if isinstance(case, FailedCase) for line in case.cause.splitlines()]
    if lines:
        raise files_error(lines)


def plan_predictions(
    images: Named | Sequence[Named],
    out: Named,
    runs: Named | Sequence[Named],
    *,
    checkpoint: Which | None = None,
    model: str | Sequence[str] = (),
    save_probabilities: bool = False,
    tta: Tta = "auto",
    device: str = "auto",
    overwrite: bool = False,
) -> "PredictionPlan":
    """Finds runs and scans, loads the networks, and checks that they fit; the arguments are those of `predict`."""
    found_runs = find_runs(listed("runs", runs), checkpoint)
    own = list(map(str, listed("model", model)))
    networks = [load_network(one.path, one.name, own) for one in found_runs.checkpoints]
    try:
        ensemble = Ensemble(networks, tta=tta, device=device)
    except ValidationError as error:
        raise SettingError(f"--{first_cause(error)}") from None
    found = find_scans(listed("images", images), ensemble.dataset.channels)
    folder = Path(expand_home(str(out)))
    _check_places(folder, found.scans)
    for scan in found.scans:
        check_label_values(ensemble.dataset.label_values, scan.images[0])
    return PredictionPlan(
        ensemble=ensemble,
        scans=found.scans,
        out=folder,
        method=_method_of(ensemble),
        save_probabilities=save_probabilities,
        overwrite=overwrite,
        remarks=(*found_runs.remarks, *ensemble.remarks, *found.remarks),
    )


@dataclass
class PredictionPlan:
    """What is predicted with what, and where to; `remarks` are lines for the user."""

    ensemble: Ensemble
    scans: tuple[ScanFiles, ...]
    out: Path
    method: MethodEntry
    save_probabilities: bool
    overwrite: bool
    remarks: tuple[str, ...]
    _seen: Seen = field(init=False, default_factory=Seen)

    def run(self, progress: ReportProgress | None = None) -> Iterator[PredictedCase | FailedCase]:
        """Predicts case by case. Raises SettingError, before the first one, if files would be replaced without
        `overwrite`; OSError if the folder cannot be written. An interrupt leaves complete files only.
        """
        torch.set_num_threads(min(torch.get_num_threads(), available_cores()))
        with OutputFolder.opened(self.out) as folder:
            done = {scan.id for scan in self.scans if self._is_done(folder, scan)}
            waiting = [scan for scan in self.scans if scan.id not in done]
            if not self.overwrite:
                folder.check_replaceable(waiting, self.method.id, with_probabilities=self.save_probabilities)
            if waiting and folder.manifest.methods.get(self.method.id) != self.method:
                folder.manifest.add(self.method)
            if waiting:
                write_label_names(self.out, self.ensemble.dataset)
            for number, scan in enumerate(self.scans):
                if scan.id in done:
                    yield PredictedCase(scan.id, self._files(scan), 0.0, was_done=True)
                    continue
                report = _reporting(progress, number, len(self.scans), scan.id)
                report(0.0)
                yield self._attempt(folder, scan, report)
                report(1.0)

    def notes(self) -> list[str]:
        """Lines on how the scans that were predicted so far were prepared, and on ambiguities of their headers."""
        return self._seen.lines(self.ensemble)

    def _is_done(self, folder: OutputFolder, scan: ScanFiles) -> bool:
        return folder.is_done(scan, self.method.id, with_probabilities=self.save_probabilities)

    def _files(self, scan: ScanFiles) -> tuple[Path, ...]:
        return tuple(self.out / name for name in output_names(scan, with_probabilities=self.save_probabilities))

    def _attempt(
        self, folder: OutputFolder, scan: ScanFiles, report: Callable[[float], None]
    ) -> PredictedCase | FailedCase:
        started = time.perf_counter()
        try:
            with staging(self.out) as staged:
                predicted = self._predict(folder, staged, scan, report, started)
        except DataError as error:
            return FailedCase(scan.id, _naming_file(str(error), scan))
        except OSError:
            raise
        except Exception as error:
            raise_if_stopped()  # the scan did not fail: a signal interrupted the network
            cause = self._explain(error)
            if cause is None:
                raise
            return FailedCase(scan.id, f"{show_path(scan.images[0])}: {cause}")
        self._seen.add(scan.id, predicted)
        return PredictedCase(scan.id, self._files(scan), time.perf_counter() - started, was_done=False)

    def _explain(self, error: Exception) -> str | None:
        """The cause of an error that is none of dlx: too little memory, or the code of a network of the user's own."""
        if isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY):
            device = self.ensemble.device
            hint = "" if device.type == "cpu" else "; --device cpu takes the host's memory"
            return f"too little memory on {device}{hint}"
        parts = [part for member in self.ensemble.members if (part := member.spec.model).is_own]
        return spell_own_error(error, parts[0]) if parts else None

    def _predict(
        self,
        folder: OutputFolder,
        staged: StagedFiles,
        scan: ScanFiles,
        report: Callable[[float], None],
        started: float,
    ) -> PredictedScan:
        """Predicts a scan and writes its files."""
        names = output_names(scan, with_probabilities=self.save_probabilities)
        mapped = staged.scratch(names[-1]) if self.save_probabilities else None
        inputs = _states_of(scan)
        begin: BeginProbabilities | None = None
        if mapped is not None:
            begin = lambda shape: map_probabilities(mapped, shape)  # noqa: E731
        predicted = self.ensemble.predict(scan, begin, report)
        encoded = encode_labels(predicted.labels, scan.images[0])
        for ending in reversed([*encoded]):
            with staged.create(scan.id + ending) as file:
                file.writelines(encoded[ending])
        if mapped is not None:
            with staged.create(names[-1]) as file:
                pack_probabilities(mapped, file)

        def entry(outputs: tuple[FileState, ...]) -> CaseEntry:
            return CaseEntry(
                case=scan.id,
                method=self.method.id,
                inputs=inputs,
                outputs=outputs,
                device=describe_device(self.ensemble.device),
                seconds=round(time.perf_counter() - started, 3),
                predicted_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            )

        folder.keep(staged, entry)
        return predicted


def listed(argument: str, named: Any) -> list[Named]:
    """The names given to an argument, one or several; SettingError for what is no name."""
    if isinstance(named, str | Path):
        return [named]
    found = [*named] if isinstance(named, Iterable) else [named]
    if not all(isinstance(one, str | Path) for one in found):
        raise SettingError(f"{argument}: expected a path or a name, or several (got {named!r})")
    return found


def _check_places(out: Path, scans: Sequence[ScanFiles]) -> None:
    """SettingError if predictions would be written beside the images, as which a later run would take them."""
    if out.exists() and not out.is_dir():
        raise SettingError(f"-o {show_path(out)}: is a file; expected a folder")
    folder = out.resolve()
    for scan in scans:
        if any(path.resolve().parent == folder or path.parent.resolve() == folder for path in scan.images):
            raise SettingError(f"-o {show_path(out)}: is the folder of the images; choose another folder")


def _method_of(ensemble: Ensemble) -> MethodEntry:
    dataset = ensemble.dataset
    entries = [
        NetworkEntry(
            name=member.trained.name,
            trial=member.trained.trial,
            epoch=member.trained.epoch,
            digest=member.trained.digest,
            mirrored_axes=member.mirrored_axes,
        )
        for member in ensemble.members
    ]
    values = dataset.label_values
    labels: dict[str, Any] = {dataset.classes[0]: values[0]}
    if dataset.regions:
        pairs = zip(dataset.classes[1:], dataset.regions, strict=True)
        labels |= {name: tuple(values[k] for k in region) for name, region in pairs}
    else:
        labels |= dict(zip(dataset.classes[1:], values[1:], strict=True))
    return make_method(entries, dataset.channels, labels, __version__)


def _naming_file(cause: str, scan: ScanFiles) -> str:
    """A cause whose every line names a file of the scan."""
    names = [show_path(path) for path in scan.images]
    lines = cause.splitlines()
    return "\n".join(line if any(name in line for name in names) else f"{names[0]}: {line}" for line in lines)


def _states_of(scan: ScanFiles) -> tuple[FileState, ...]:
    """The states of a scan's files; none if one cannot be read, which `read_scan` then explains."""
    try:
        return input_states(scan.images)
    except OSError:
        return ()


def _reporting(progress: ReportProgress | None, number: int, total: int, case: str) -> Callable[[float], None]:
    def report(fraction: float) -> None:
        if progress is not None:
            progress(number + fraction, total, case)

    return report
