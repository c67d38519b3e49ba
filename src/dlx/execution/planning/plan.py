"""Prepares a study: resolves and checks every trial before the first one starts, and chooses their folders."""

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from dlx.data.cases import Dataset
from dlx.data.dataset import open_dataset
from dlx.data.splits.choose import num_folds
from dlx.data.splits.split import Split, remarks_on_folds
from dlx.engine.device import ChooseCompute, Compute, choose_compute
from dlx.execution.planning.check_scope import check_scope, num_val_persons
from dlx.execution.planning.parallel import choose_parallel
from dlx.execution.planning.unlike_batches import remark_on_batches
from dlx.execution.trials.stores import Stores, host_stores, lack_of_shared_memory, stays_on_host
from dlx.execution.trials.trial import Task
from dlx.records.folder import StudyFolder, TrialFolder
from dlx.records.schema import StudyHeader, TrialEntry, VariantEntry
from dlx.settings.binding import bind_parts
from dlx.settings.layers import make_spec, settings_differences, with_absolute_paths
from dlx.settings.own.names import plain_name
from dlx.settings.spec import ALL_FOLDS, ComputeSpec, Spec
from dlx.study.axes import Variant
from dlx.study.metrics import MIN_POINTS, direction_of
from dlx.study.study import Study, Trial, check_classes, check_measured, in_fold
from dlx.system.characters import encodable
from dlx.system.errors import SettingError
from dlx.system.files import read_json
from dlx.trial.resolve import Resolved, ResolvedTrials, resolve

# Ways to choose `evaluate.every` and `evaluate.batch_size` if they are not given (`min_validations` and `fits_batch` of
# `resolve`): the current one; that of a machine with more memory; that of versions without either rule.
CHOICES = ((MIN_POINTS, True), (MIN_POINTS, False), (1, False))


class RemoteMachines(Protocol):
    """The machines of a cluster on which trials are to run, in place of this one."""

    @property
    def num_workers(self) -> int:
        """How many trials run at once, as far as is known now."""

    @property
    def remarks(self) -> Sequence[str]:
        """Lines for the user, such as that machines differ."""

    def choose(self, spec: ComputeSpec) -> Compute:
        """As `choose_compute`, on a worker."""


@dataclass(frozen=True)
class Plan:
    """All trials of a study, the folder that holds them, and how many run at once."""

    study: Study
    command: str
    folder: Path
    trials: tuple[Task, ...]
    stores: Stores
    max_parallel: int
    remarks: tuple[str, ...]  # shown to the user before the run
    num_persons: int  # in the data
    trained_epochs: int = 0  # of each trial, by an earlier run that it continues
    has_workers: bool = True  # False: shared memory is too small for the voxels, and all trials run in this process

    @property
    def first(self) -> Resolved:
        """The control's resolved settings, in the first fold; those of the only variant if there is no control."""
        return self._of_control[0]

    @property
    def _of_control(self) -> list[Resolved]:
        """The control's resolved settings in each fold, with one seed."""
        label = self.study.control or self.trials[0].trial.label
        return [task.resolved for task in self.trials if task.trial.label == label][: len(self.study.splits)]

    @property
    def splits(self) -> list[Split]:
        """The control's split in each fold; one without cross-validation."""
        return [one.split for one in self._of_control]

    @property
    def shown_spec(self) -> Spec:
        """The control's resolved settings; those that differ between folds as they were asked for."""
        found = [one.spec.model_dump(mode="json") for one in self._of_control]
        return (
            make_spec(_common(self.study.base.model_dump(mode="json"), found)) if self.study.folds else self.first.spec
        )

    def header(self) -> StudyHeader:
        """The declaration of the study, written before the first trial starts."""
        study, persons = self.study, dict(pair for split in self.splits for pair in split.persons)
        return StudyHeader(
            name=study.name,
            question=study.question,
            command=self.command,
            metric=study.metric,
            direction=direction_of(study.metric, study.direction),
            smallest_effect=study.smallest_effect,
            axes=study.axes,
            control=study.control,
            seeds=study.seeds,
            folds=study.folds,
            scope=study.scope,
            persons=persons,
            num_persons=self.num_persons,
            num_val_persons=num_val_persons(self.splits),
            epochs=max(task.resolved.spec.train.epochs for task in self.trials),
            variants=tuple(
                VariantEntry(label=v.label, values=v.values, scheduler=v.spec.scheduler.name) for v in study.variants
            ),
            trials=tuple(
                TrialEntry(trial=task.trial_id, label=task.trial.label, seed=task.trial.seed, fold=task.trial.fold)
                for task in self.trials
            ),
            claims=tuple(claim.model_dump(mode="json") for claim in study.claims),
            settings=study.base.model_dump(mode="json"),
            continued=study.continued,
            remarks=tuple(encodable(note) for note in self.remarks if note not in self.first.dataset.remarks),
        )

    def missing(self) -> list[Task]:
        """The trials that have no result yet."""
        return [task for task in self.trials if task.folder.result() is None]

    def disk_mib(self) -> float:
        """Disk space of all checkpoints, last and best: weights and two moments in float32, and the average if used."""
        total = 0.0
        for task in self.trials:
            copies = 4 if task.resolved.spec.train.ema_decay else 3
            total += 2 * copies * 4 * task.resolved.parameters / 2**20
        return total

    def free_disk_mib(self) -> float:
        """Free disk space at the folder, or at its nearest existing parent."""
        return shutil.disk_usage(_nearest_existing(self.folder)).free / 2**20


def _common(asked: Any, found: list[Any]) -> Any:
    """Settings on which all of `found` agree; what was asked for where they do not."""
    if all(one == found[0] for one in found):
        return found[0]
    if not isinstance(asked, dict):
        return asked
    return {key: _common(value, [one[key] for one in found]) for key, value in asked.items()}


def make_plan(
    study: Study,
    folder: Path | None,
    *,
    command: str = "",
    cache_dir: Path | None,
    verify_data: bool = False,
    keep_cache: bool = True,
    max_parallel: int | None = None,
    remarks: tuple[str, ...] = (),
    progress: Callable[[int, int], None] | None = None,
    known_trials: Collection[str] = (),
    cluster: RemoteMachines | None = None,
) -> Plan:
    """Resolves every variant of a study in every fold; raises DlxError if one cannot run. Writes only the data cache,
    and that only with `keep_cache`. `remarks` are added to the plan's own.

    `cluster` are the machines on which the trials are to run, if not on this one. `known_trials` are the ids of trials
    that ran elsewhere. A study that has trials there or in its folder keeps the values of `evaluate.every` and
    `evaluate.batch_size` that it started with.
    """
    folder = default_folder(study.base) if folder is None else folder
    choose = choose_compute if cluster is None else cluster.choose
    _check_folder(folder)
    variants = tuple(v.model_copy(update={"spec": with_absolute_paths(v.spec)}) for v in study.variants)
    study = _with_folds(study.model_copy(update={"variants": variants}))
    datasets = _open_data(study, choose, cache_dir=cache_dir, verify=verify_data, keep=keep_cache, progress=progress)
    resolved = remark_on_batches(study, _resolve_as_begun(study, datasets, folder, known_trials, choose))
    _check_study(study, resolved)
    stores = host_stores(resolved.values())
    slim = {place: one.without_voxels() for place, one in resolved.items()}
    trials = tuple(_make_task(trial, slim[trial.label, trial.fold], folder) for trial in study.trials())
    notes = [*_common_remarks(resolved), *_fold_remarks(study, resolved), *remarks, *_seed_remarks(study)]
    if cluster is None:
        on_host = [stays_on_host(stores[one.dataset.fingerprint], one.compute.device) for one in slim.values()]
        lack = lack_of_shared_memory(stores)
        parallel, parallel_remarks = choose_parallel(list(slim.values()), max_parallel, study, lack)
        notes += filter(None, on_host)
    else:
        lack, parallel, parallel_remarks = None, cluster.num_workers, list(cluster.remarks)
    notes += parallel_remarks
    return Plan(
        study=study,
        command=command,
        folder=folder,
        trials=trials,
        stores=stores,
        max_parallel=parallel,
        remarks=tuple(dict.fromkeys(notes)),
        num_persons=_num_persons(next(iter(resolved.values()))),
        has_workers=lack is None,
    )


def _num_persons(resolved: Resolved) -> int:
    persons = dict(resolved.split.persons)
    return len({persons.get(case.id, case.id) for case in resolved.dataset.cases})


def _fold_remarks(study: Study, resolved: ResolvedTrials) -> list[str]:
    """Remarks on cases that not exactly one fold of cross-validation validates; all variants validate the same."""
    of_fold = [resolved[study.variants[0].label, fold] for fold in study.folds]
    if not of_fold:
        return []
    return remarks_on_folds([one.split for one in of_fold], [case.id for case in of_fold[0].dataset.cases])


def _seed_remarks(study: Study) -> list[str]:
    """A note if variants are compared on a single seed."""
    if len(study.variants) == 1 or len(study.seeds) > 1 or study.folds:
        return []
    return [
        f"one seed ({study.seeds[0]}): the variation between seeds cannot be measured, so there will be no verdict; "
        "--seeds 5 trains five"
    ]


def _with_folds(study: Study) -> Study:
    """The study with the folds that it crosses; unchanged without cross-validation."""
    split = study.base.split
    if split.fold != ALL_FOLDS:
        return study
    folds = num_folds(split)
    if folds < 2:
        raise SettingError(f"split.fold: {ALL_FOLDS} takes two folds or more, but {split.file} contains one")
    return study.model_copy(update={"folds": tuple(range(folds))})


def _open_data(study: Study, choose: ChooseCompute, **options: Any) -> dict[str, Dataset]:
    """The data of each variant by its label; variants with equal data settings share one Dataset.

    Names, arguments and devices of all variants are checked first: reading volumes may take minutes.
    """
    specs: dict[str, Spec] = {}
    for variant in study.variants:
        with _naming(variant, study):
            specs[variant.label] = bind_parts(variant.spec)
            choose(variant.spec.compute)
    opened: dict[str, Dataset] = {}
    datasets: dict[str, Dataset] = {}
    for variant in study.variants:
        data = specs[variant.label].data
        key = data.model_dump_json()
        if key not in opened:
            with _naming(variant, study):
                opened[key] = open_dataset(data, **options)
        datasets[variant.label] = opened[key]
    return datasets


def _resolve_as_begun(
    study: Study, datasets: Mapping[str, Dataset], folder: Path, known_trials: Collection[str], choose: ChooseCompute
) -> ResolvedTrials:
    """Resolves all variants by the first of CHOICES that gives a trial of the folder or a known one, else by the first
    of all.
    """
    resolved = _resolve_all(study, datasets, *CHOICES[0], choose)
    asked = {variant.label: variant.spec.evaluate for variant in study.variants}
    if all(one.spec.evaluate == asked[label] for (label, _), one in resolved.items()):
        return resolved  # nothing was chosen
    header = StudyFolder(folder).header()
    begun = {*known_trials, *(entry.trial for entry in header.trials)} if header else set(known_trials)
    others = (_resolve_all(study, datasets, *choice, choose) for choice in CHOICES[1:] if begun)
    for found in chain([resolved], others):
        if any(one.trial_id(seed) in begun for one in found.values() for seed in study.seeds):
            return found
    return resolved


def _resolve_all(
    study: Study, datasets: Mapping[str, Dataset], min_validations: int, fits_batch: bool, choose: ChooseCompute
) -> ResolvedTrials:
    resolved: ResolvedTrials = {}
    for fold in study.splits:
        for variant in study.variants:
            with _naming(variant, study, fold):
                one = resolve(
                    in_fold(variant.spec, fold),
                    datasets[variant.label],
                    min_validations=min_validations,
                    fits_batch=fits_batch,
                    choose=choose,
                )
            if study.continued is not None:
                one = replace(one, continued=study.continued.of_fold(fold))
            resolved[variant.label, fold] = one
    return resolved


@contextmanager
def _naming(variant: Variant, study: Study, fold: int | None = None) -> Iterator[None]:
    """Prefixes a SettingError with the variant's label if the study has several variants, and with a later fold. One on
    data or split that all variants share is not of the variant.
    """
    try:
        yield
    except SettingError as error:
        inputs = [(one.spec.data, one.spec.split) for one in study.variants]
        is_shared = str(error).startswith(("data.", "data:", "split.", "split:")) and all(
            pair == inputs[0] for pair in inputs
        )
        which = [] if len(inputs) == 1 or is_shared else [f"variant '{variant.label}'"]
        which += [f"fold {fold}"] if fold else []  # what is wrong in fold 0 most likely is so in all
        raise SettingError(": ".join([", ".join(which)] * bool(which) + [str(error)])) from None


def _check_study(study: Study, resolved: ResolvedTrials) -> None:
    """Refuses variants that cannot be compared, and a metric, classes or a scope that the trials do not give."""
    for fold in study.splits:
        of_fold = {variant.label: resolved[variant.label, fold] for variant in study.variants}
        _check_comparable(of_fold, study.seeds[0])
        check_measured(study, {label: one.spec for label, one in of_fold.items()})
    for one in resolved.values():
        check_classes(study, one.dataset.classes[1:])
    check_scope(study, resolved.values())


def _check_comparable(resolved: dict[str, Resolved], seed: int) -> None:
    """Refuses variants of a fold whose validation subjects differ from the first variant's, and identical variants."""
    (first, other), *_ = resolved.items()
    named: dict[str, str] = {}
    for label, one in resolved.items():
        if set(one.split.val) != set(other.split.val):
            raise SettingError(
                f"variants '{first}' and '{label}' validate on different subjects and cannot be paired: use one split"
            )
        twin = named.setdefault(one.trial_id(seed), label)
        if twin != label:
            raise SettingError(f"variants '{twin}' and '{label}' have the same settings: leave one out")


def _check_folder(folder: Path) -> None:
    """Refuses a folder that cannot be written; called before data are read."""
    if folder == Path():
        raise SettingError("--out: expected the name of a folder (got '.')")
    existing = _nearest_existing(folder)
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        cause = "not writable" if existing.is_dir() else "not a folder"
        raise SettingError(f"--out {encodable(str(folder))}: {encodable(str(existing))} is {cause}")


def _nearest_existing(folder: Path) -> Path:
    """The folder, or the nearest of its parents that exists."""
    absolute = folder.absolute()
    return next(path for path in (absolute, *absolute.parents) if path.exists())


def _make_task(trial: Trial, resolved: Resolved, folder: Path) -> Task:
    place = TrialFolder(folder, trial.label, trial.seed, resolved.trial_id(trial.seed), trial.fold)
    return Task(trial, resolved, place)


def _common_remarks(resolved: ResolvedTrials) -> list[str]:
    """Each remark once, prefixed with the variants and folds it is about unless it is about all."""
    every, folds = (list(dict.fromkeys(column)) for column in zip(*resolved, strict=True))
    having: dict[str, list[tuple[str, int | None]]] = {}
    for place, one in resolved.items():
        for remark in dict.fromkeys(one.remarks):
            having.setdefault(remark, []).append(place)
    lines = []
    for remark, places in having.items():
        labels, some = (list(dict.fromkeys(column)) for column in zip(*places, strict=True))
        which = "" if len(some) == len(folds) else f"{_spell_folds(some)}: "
        whose = name_variants(labels, every)
        lines.append(f"{which}{whose}{': ' * bool(whose)}{remark}")
    return lines


def _spell_folds(folds: list[int | None]) -> str:
    return f"fold{'s' * (len(folds) > 1)} {', '.join(map(str, folds))}"


def name_variants(labels: list[str], every: list[str]) -> str:
    """`p=0.1; p=0.2`, or `all but p=0` if that is shorter; empty for all of them."""
    others = [label for label in every if label not in labels]
    if not others:
        return ""
    return f"all but {'; '.join(others)}" if len(others) < len(labels) - 1 else "; ".join(labels)


def data_name(spec: Spec) -> str:
    """The data's part of a run folder's name: the name of the data folder, or `phantom`."""
    path = spec.data.path
    return spec.data.source.name if path is None else path.resolve().name


def default_name(spec: Spec) -> str:
    """`DATA-MODEL`."""
    return f"{data_name(spec)}-{plain_name(spec.model.name)}"


def default_folder(spec: Spec) -> Path:
    """`runs/DATA-MODEL`."""
    return Path("runs") / default_name(spec)


def load_study(folder: Path) -> Study:
    """The study of one variant recorded in a folder; SettingError if there is none, or one of several variants."""
    header = StudyFolder(folder).header()
    if header is None:
        raise SettingError(f"{folder}: holds no study to resume (no study.json)")
    if len(header.variants) > 1:
        raise SettingError(f"{folder}: holds a study of several variants; resume it with: {header.command}")
    variant = Variant(label=header.variants[0].label, spec=make_spec(header.settings))
    return Study(name=header.name, variants=(variant,), seeds=header.seeds, continued=header.continued)


def study_replaced(plan: Plan) -> StudyHeader | None:
    """The header of another study in the plan's folder, which the plan's study replaces; None if there is none."""
    before = StudyFolder(plan.folder).header()
    return None if before is None or before.is_study_of(plan.header()) else before


def check_resumable(plan: Plan) -> None:
    """Raises SettingError, which names settings that differ, unless a trial of the plan was begun in its folder."""
    if any(task.folder.path.exists() for task in plan.trials):
        return
    for path in sorted(plan.folder.glob("trials/*/settings.json")):
        changed = settings_differences(read_json(path), plan.trials[0].settings)
        differs = f"{path.parent.name} differs in {'; '.join(changed[:4])}"
        if [line.partition(":")[0] for line in changed] == ["train.epochs"]:
            differs += "; to train it longer: dlx train --resume RUN --epochs N and no other settings"
        raise SettingError(f"{plan.folder}: nothing to resume with these settings: {differs}")
    raise SettingError(f"{plan.folder}: nothing to resume: no trial was begun there")
