"""A study's records made by hand, seeded: plausible Dice over epochs without a network, and every way a trial may end.

Nothing here is measured; the tests of summaries, tables, figures and pages read it as they would read a real study.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlx.records.archive import StudyRecords, TrialHistory
from dlx.records.folder import StudyFolder, append_line
from dlx.records.schema import EpochRecord, EpochRun, Look, StudyHeader, TrialEntry, TrialRecord, TrialRun, VariantEntry
from dlx.study.results import CaseScores, EpochResult, SetScores, TrialResult

Place = tuple[str, int]  # a trial: its variant's label and its seed
CLASSES = ("csf", "grey matter")
# final train and validation Dice of a dropout sweep
DROPOUT = {"p=0": (0.93, 0.80), "p=0.1": (0.91, 0.82)}


def made_study(
    variants: Mapping[str, tuple[float, float]] = DROPOUT,
    *,
    values: Mapping[str, Any] | None = None,
    axis: str = "dropout.p",
    seeds: Sequence[int] = range(5),
    epochs: int = 10,
    every: int = 1,
    control: str | None = "first",
    spread: float = 0.004,
    finals: Mapping[Place, tuple[float, float]] | None = None,
    idle: Collection[str] = (),
    diverged: Collection[Place] = (),
    running: Mapping[Place, int] | None = None,
    collapsed: Collection[Place] = (),
    schedulers: Mapping[str, str] | None = None,
    devices: Mapping[Place, str] | None = None,
    running_dice: Mapping[Place, float] | None = None,
    **header: Any,
) -> StudyRecords:
    """Records of variants by label with their final (train, validation) Dice, to which each seed adds some noise.

    `values` are the variants' values on the axis, by default the number after `=` in the label. `finals` sets the two
    Dice of single trials exactly. `idle` variants repeat the control; `running` trials have so many epochs and no
    result; `every` is how often validation ran; `running_dice` sets the soft Dice of a trial's last
    batches. `header` replaces fields of the header.
    """
    chosen = next(iter(variants)) if control == "first" else control
    trials = []
    for label in variants:
        for seed in seeds:
            place = (label, seed)
            source = (chosen, seed) if label in idle and chosen is not None else place
            train, val = (finals or {}).get(source) or _noisy(variants[source[0]], source, list(variants), spread)
            if place in collapsed:
                train, val = 0.12, 0.10
            entry = TrialEntry(trial=f"{label} {seed}", label=label, seed=seed)
            made = made_epochs(train, val, epochs, every, noise=_rng(source, list(variants)))
            if place in (running or {}):
                trials.append(TrialHistory(entry, made[: (running or {})[place]], None))
                continue
            if place in (running_dice or {}):
                last = made[-1].result.model_copy(update={"train_soft_dice_running": (running_dice or {})[place]})
                made = (*made[:-1], made[-1].model_copy(update={"result": last}))
            device = (devices or {}).get(place, "cpu (made)")
            if place in diverged:
                made = made[: math.ceil(epochs / 3)]
                trials.append(TrialHistory(entry, made, made_record(entry, None, device, every)))
                continue
            result = made_result(train, val, made, weights=f"weights of {source}")
            trials.append(TrialHistory(entry, made, made_record(entry, result, device, every)))
    fields = {
        "name": "made",
        "question": "Does dropout narrow the gap between training and validation Dice?",
        "command": "dlx sweep-dropout --p 0.1 --seeds 5",
        "metric": "val_dice",
        "smallest_effect": 0.01,
        "axes": (axis,),
        "control": chosen,
        "seeds": tuple(seeds),
        "epochs": epochs,
        "variants": tuple(
            VariantEntry(
                label=label,
                values={axis: (values or {}).get(label, _number(label))},
                scheduler=(schedulers or {}).get(label, "constant"),
            )
            for label in variants
        ),
        "trials": tuple(trial.entry for trial in trials),
        "claims": (),
        "settings": {"model": {"name": "unet2", "width": 8}, "train": {"epochs": epochs}},
    }
    looks = tuple(header.pop("looks", ()))
    return StudyRecords(StudyHeader(**(fields | header)), tuple(trials), looks)


def made_epochs(
    train: float, val: float, epochs: int, every: int, noise: np.random.Generator
) -> tuple[EpochRecord, ...]:
    """Curves that rise to the two figures and end on them; validation turns down a little where it overfits."""
    lines = []
    for epoch in range(1, epochs + 1):
        rise = (1.0 - math.exp(-5.0 * epoch / epochs)) / (1.0 - math.exp(-5.0))
        is_last = epoch == epochs
        shake = 0.0 if is_last else float(noise.normal(0.0, 0.008))
        bump = 0.03 * math.sin(math.pi * epoch / epochs) * (not is_last)
        measured = epoch % every == 0 or is_last
        dice = min(1.0, max(0.0, val * rise + bump + shake))
        result = EpochResult(
            epoch=epoch,
            lr={"all": 0.001},
            loss=1.0 - train * rise,
            train_soft_dice_running=0.97 * train * rise,
            train_dice_subset=min(1.0, max(0.0, train * rise + 0.5 * shake)) if measured else None,
            val_dice=dice if measured else None,
            val_dice_per_class=dict.fromkeys(CLASSES, dice) if measured else None,
        )
        lines.append(EpochRecord(result=result, run=EpochRun(train_s=1.5, evaluate_s=0.5)))
    return tuple(lines)


def made_result(train: float, val: float, epochs: Sequence[EpochRecord], *, weights: str) -> TrialResult:
    """A result with these Dice, spread over three cases and two classes around them."""
    measured = [(e.result.val_dice, e.result.epoch) for e in epochs if e.result.val_dice is not None]
    best = max(measured, key=lambda point: point[0], default=(None, None))
    return TrialResult(
        epochs=len(epochs),
        train=made_scores(train),
        val=made_scores(val),
        best_epoch=best[1],
        best_val_dice=best[0],
        weights_hash=weights,
        batches_hash="batches",
    )


def made_scores(dice: float) -> SetScores:
    """Three cases, 0.03 apart, and two classes, 0.02 apart, of this mean Dice."""
    per_class = {name: dice + d for name, d in zip(CLASSES, (-0.01, 0.01), strict=True)}
    cases = {
        f"case {i}": CaseScores(dice={name: value + 0.03 * (i - 1) for name, value in per_class.items()})
        for i in range(3)
    }
    return SetScores(
        dice=dice,
        dice_per_class=dict(per_class),
        hd95_mm_per_class=dict.fromkeys(CLASSES, 10.0 * (1.0 - dice)),
        surface_dice_per_class=dict(per_class),
        cases=cases,
    )


def made_record(
    entry: TrialEntry, result: TrialResult | None, device: str = "cpu (made)", every: int = 1
) -> TrialRecord:
    """A trial that is done, or diverged where there is no result."""
    return TrialRecord(
        trial=entry.trial,
        label=entry.label,
        seed=entry.seed,
        status="diverged" if result is None else "done",
        cause="the loss is nan in epoch 4" if result is None else None,
        parameters=1234,
        result=result,
        run=TrialRun(
            seconds=20.0,
            started_utc="2026-01-01T00:00:00Z",
            host="made",
            device=device,
            versions={"python": "3.11.2", "torch": "2.11.0"},
            commit="0123456",
        ),
        settings={
            "compute": {"device": "cpu", "precision": "float32", "threads": 1},
            "split": {"train": ["a", "c"], "val": ["b"]},
            "evaluate": {"every": every, "train_subset": 2, "soft_dice": True},
        },
    )


def made_look(num_seeds: int, num_variants: int = 1) -> Look:
    return Look(
        study="made",
        metric="val_dice",
        num_seeds=num_seeds,
        num_variants=num_variants,
        shown_utc=f"2026-01-01T0{num_seeds}:00:00Z",
    )


def dropout_sweep(num_seeds: int = 5, **options: Any) -> StudyRecords:
    """The control and eight rates: training Dice falls as p rises, and the last two hardly learn."""
    val = (0.800, 0.812, 0.818, 0.821, 0.815, 0.800, 0.770, 0.660, 0.520)
    train = (0.935, 0.920, 0.905, 0.890, 0.870, 0.845, 0.800, 0.670, 0.525)
    rates = ("0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8")
    variants = {f"p={p}": pair for p, pair in zip(rates, zip(train, val, strict=True), strict=True)}
    return made_study(variants, seeds=range(num_seeds), **({"epochs": 60, "spread": 0.006} | options))


def _noisy(finals: tuple[float, float], place: Place, labels: Sequence[str], spread: float) -> tuple[float, float]:
    """Noise that the trials of one seed share, and some of the trial's own."""
    shared = np.random.default_rng([place[1], 7]).normal(0.0, spread, 2)
    own = _rng(place, labels).normal(0.0, 0.7 * spread, 2)
    return float(finals[0] + shared[0] + own[0]), float(finals[1] + shared[1] + own[1])


def _rng(place: Place, labels: Sequence[str]) -> np.random.Generator:
    return np.random.default_rng([labels.index(place[0]), place[1]])


def _number(label: str) -> Any:
    text = label.split("=")[-1]
    try:
        return float(text)
    except ValueError:
        return label


def with_classes(records: StudyRecords, dice: Mapping[str, Mapping[Place, float] | float]) -> StudyRecords:
    """The same trials scored by these classes: the Dice of each, in every trial or by trial (others 0.8)."""
    trials = []
    for trial in records.trials:
        record = trial.record
        if record is not None and record.result is not None:
            place = (trial.entry.label, trial.entry.seed)
            values = {name: of if isinstance(of, float) else of.get(place, 0.8) for name, of in dice.items()}
            scores = SetScores(
                dice=sum(values.values()) / len(values),
                dice_per_class=dict(values),
                hd95_mm_per_class={name: 10.0 * (1.0 - value) for name, value in values.items()},
                surface_dice_per_class=dict(values),
                cases={"case 0": CaseScores(dice=dict(values)), "case 1": CaseScores(dice=dict(values))},
            )
            result = record.result.model_copy(update={"train": scores, "val": scores})
            record = record.model_copy(update={"result": result})
        trials.append(TrialHistory(trial.entry, trial.epochs, record))
    return StudyRecords(records.header, tuple(trials), records.looks)


def write_folder(path: Path, records: StudyRecords) -> None:
    """Records as a run leaves them in its folder."""
    folder = StudyFolder(path)
    folder.write_header(records.header)
    for trial in records.trials:
        place = folder.trial(trial.entry)
        place.begin({} if trial.record is None else trial.record.settings)
        place.restore(trial.epochs)
        if trial.record is not None:
            place.finish(trial.record)
    for look in records.looks:
        append_line(path / "looks.jsonl", look.model_dump_json())
