"""A study made ready: every trial resolved and checked before the first one starts, and where its records go."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlx.build import Resolved, resolve
from dlx.data.cases import Dataset
from dlx.data.voxels import VoxelStore
from dlx.errors import SettingError
from dlx.run.runner import Event, make_store, run_trial, trial_folder
from dlx.specs import Part, Spec
from dlx.store import TrialFolder, read_json, write_json
from dlx.studies import Study, Trial, make_spec


@dataclass(frozen=True)
class Planned:
    """One trial, resolved, with its folder."""

    trial: Trial
    resolved: Resolved
    folder: TrialFolder


@dataclass(frozen=True)
class Plan:
    """All trials of a study, and the folder that holds them."""

    study: Study
    folder: Path
    trials: tuple[Planned, ...]
    store: VoxelStore
    remarks: tuple[str, ...]

    @property
    def first(self) -> Resolved:
        return self.trials[0].resolved

    def disk_mib(self) -> float:
        """What the checkpoints take: weights and two moments in float32 (and an average), the last and the best."""
        total = 0.0
        for planned in self.trials:
            copies = 4 if planned.resolved.spec.train.ema_decay else 3
            total += 2 * copies * 4 * planned.resolved.parameters / 2**20
        return total

    def free_disk_mib(self) -> float:
        """Free space where the folder is or would be made."""
        place = self.folder.resolve()
        while not place.exists():
            place = place.parent
        return shutil.disk_usage(place).free / 2**20


def make_plan(
    study: Study,
    folder: Path | None,
    *,
    cache_dir: Path | None,
    verify_data: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Plan:
    """Resolves every trial of a study; raises DlxError for what one of them cannot do. Writes only the data cache."""
    study = study.model_copy(update={"base": _with_absolute_path(study.base)})
    datasets: dict[str, Dataset] = {}
    resolved = resolve(study.base, cache_dir=cache_dir, verify_data=verify_data, progress=progress, datasets=datasets)
    folder = default_folder(study.base) if folder is None else folder
    if folder.exists() and not folder.is_dir():
        raise SettingError(f"--out {folder}: is a file")
    trials = [Planned(trial, resolved, trial_folder(folder, trial, resolved)) for trial in study.trials()]
    store, remark = make_store(resolved)
    remarks = (*resolved.remarks, *([remark] if remark else []))
    return Plan(study, folder, tuple(trials), store, remarks)


def run_plan(plan: Plan, *, fresh: bool = False, retry_failed: bool = False) -> Iterator[Event]:
    """Runs what is missing of a plan, trial by trial, and yields what happens."""
    save_study(plan)
    for planned in plan.trials:
        with planned.folder.locked():
            if fresh:
                planned.folder.clear()
            yield from run_trial(planned.trial, planned.resolved, plan.store, planned.folder, retry_failed=retry_failed)


def default_folder(spec: Spec) -> Path:
    """`runs/DATA-MODEL`."""
    path = spec.data.source.args.get("path")
    return Path("runs") / f"{Path(path).resolve().name if path else spec.data.source.name}-{spec.model.name}"


def save_study(plan: Plan) -> None:
    """Writes the study as it was asked, so that `--resume` finds it."""
    document = {
        "name": plan.study.name,
        "seeds": list(plan.study.seeds),
        "settings": plan.study.base.model_dump(mode="json"),
    }
    write_json(plan.folder / "study.json", document)


def load_study(folder: Path) -> Study:
    """The study a folder was last run with; SettingError where there is none."""
    path = folder / "study.json"
    if not path.is_file():
        raise SettingError(f"{folder}: holds no study to resume (no study.json)")
    document = read_json(path)
    try:
        return Study(name=document["name"], seeds=tuple(document["seeds"]), base=make_spec(document["settings"]))
    except (KeyError, TypeError) as error:
        raise SettingError(f"{path}: not a study of this version of dlx ({error})") from None


def check_resumable(plan: Plan) -> None:
    """Raises SettingError unless a trial of the plan was begun in its folder, saying which settings differ there."""
    if any(planned.folder.path.exists() for planned in plan.trials):
        return
    for path in sorted(plan.folder.glob("trials/*/settings.json")):
        ours = plan.trials[0].resolved.settings(plan.trials[0].trial.seed)
        changed = settings_differences(read_json(path), ours)
        differs = f"{path.parent.name} differs in {'; '.join(changed[:4])}"
        raise SettingError(f"{plan.folder}: nothing to resume with these settings; {differs}")
    raise SettingError(f"{plan.folder}: nothing to resume: no trial was begun there")


def settings_differences(theirs: dict[str, Any], ours: dict[str, Any], prefix: str = "") -> list[str]:
    """`key: theirs -> ours` for every setting in which two trials differ."""
    lines = []
    for key in sorted({*ours, *theirs}):
        a, b = theirs.get(key), ours.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += settings_differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {a} -> {b}")
    return lines


def _with_absolute_path(spec: Spec) -> Spec:
    """The spec with its data folder as an absolute path, so that it can be resumed from anywhere."""
    path = spec.data.source.args.get("path")
    if not isinstance(path, str):
        return spec
    source = Part(name=spec.data.source.name, args=spec.data.source.args | {"path": str(Path(path).absolute())})
    return spec.model_copy(update={"data": spec.data.model_copy(update={"source": source})})
