"""What was done, in the words of a Methods section: data, training, evaluation, comparison, software.

The paragraphs follow the records: the resolved settings of the control's first finished trial, and the study's header.
A setting that the records lack is left out, so that records of any version can be described.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlx.records.archive import StudyRecords, finished
from dlx.records.schema import TrialRecord
from dlx.report.findings.pairing import have_same_weights, saw_same_patches
from dlx.report.findings.summary import Summary
from dlx.report.methods.references import REFERENCES, Reference
from dlx.report.methods.training import network_sentences, training_sentences
from dlx.report.methods.words import (
    Citation,
    Sentence,
    cite,
    list_in,
    listed,
    number_in,
    number_of,
    setting,
    text_in,
)
from dlx.report.wording.content import Given
from dlx.settings.text import counted
from dlx.statistics.correction import MIN_VARIANTS
from dlx.study.scope import Scope

MAX_NAMED = 8  # classes, channels or variants; of more, the number is given

NORMALIZED = {
    "zscore": "had their mean subtracted and were divided by their standard deviation",
    "minmax": "were scaled from their smallest and largest value to 0 and 1",
    "percentile": "were scaled so that two percentiles became 0 and 1, and clipped",
    "whiten": "were decorrelated over the channels (whitened)",
    "ct": "were clipped to two percentiles of the labelled voxels of the training subjects and standardised by the "
    "mean and standard deviation of these",
    "rgb": "were divided by 255",
    "none": "were used as they are",
    "mixed": "were normalised channel by channel, as their names ask for",
}
DRAWN = {
    "phantom": "a synthetic phantom of the infant brain with two contrasts, drawn by dlx",
    "ct-phantom": "a synthetic CT phantom, drawn by dlx",
}


@dataclass(frozen=True)
class Methods:
    """Paragraphs with citations, and what they cite, in the order of the first citation."""

    paragraphs: tuple[tuple[Sentence, ...], ...]
    references: tuple[Reference, ...]

    def number(self, key: str) -> int:
        """The number of a reference, from 1."""
        return 1 + self.references.index(REFERENCES[key])


def methods_of(summary: Summary, records: StudyRecords) -> Methods | None:
    """The Methods of a study; None until a trial has finished, as its settings are not known before."""
    record = described_trial(summary)
    if record is None:
        return None
    settings, header = record.settings, records.header
    names = [text_in(record.settings, "scheduler", "name") for record in _one_of_each(summary)]
    paragraphs = (
        data_sentences(records, settings),
        (*network_sentences(record, header.axes), *training_sentences(settings, header.axes, names)),
        evaluation_sentences(record),
        comparison_sentences(summary),
        software_sentences(records),
    )
    cited = [
        key
        for paragraph in paragraphs
        for sentence in paragraph
        for part in sentence
        if isinstance(part, Citation)
        for key in part.keys
    ]
    return Methods(tuple(filter(None, paragraphs)), tuple(REFERENCES[key] for key in dict.fromkeys(cited)))


def described_trial(summary: Summary) -> TrialRecord | None:
    """The first finished trial of the control, or of the first variant that has one."""
    ordered = sorted(summary.variants, key=lambda variant: not variant.is_control)
    return next((record for v in ordered for record in v.records.values() if record.result is not None), None)


def _one_of_each(summary: Summary) -> list[TrialRecord]:
    """The first trial that ended of each variant."""
    return [record for v in summary.variants for record in [*v.records.values()][:1]]


def data_sentences(records: StudyRecords, settings: Mapping[str, Any]) -> tuple[Sentence, ...]:
    """The images, their classes and normalisation, and who trained and who validated."""
    header = records.header
    name, path = (text_in(header.settings, "data", "source", *keys) for keys in (("name",), ("args", "path")))
    source: Sentence = (DRAWN[name],) if name in DRAWN else ("the data set ", Given(_last_name(path or name)))
    channels, classes = list_in(settings, "channels"), list_in(settings, "classes")[1:]
    sentences: list[Sentence] = [("The images were those of ", *source, ".")] if name else []
    if channels and classes:
        sentences.append(
            (
                f"Images have {counted(len(channels), 'channel')} (",
                *listed(channels, MAX_NAMED),
                f"), and masks {counted(len(classes), 'class', 'classes')} beside the background (",
                *listed(classes, MAX_NAMED),
                ").",
            )
        )
    normalize = text_in(settings, "data", "normalize", "name")
    if normalize in NORMALIZED:
        over = setting(settings, "data", "normalize", "args", "over") == "foreground"
        where = " (over the voxels above 0)" * over
        cited = cite("nnunet") if normalize == "ct" else ()
        sentences.append((f"Intensities {NORMALIZED[normalize]}{where}", *cited, "."))
    sentences += _resampling_sentence(records)
    return (*sentences, *_split_sentences(records))


def _resampling_sentence(records: StudyRecords) -> list[Sentence]:
    """The voxel size to which images were resampled, where the study's settings ask for one; `auto` asks for the median
    one, but not of pictures without a known size.
    """
    given = records.header.settings
    asked = setting(given, "data", "spacing_mm")
    is_known = all(r.result is None or r.result.distance_unit == "mm" for r in finished(records.trials))
    if asked == "auto" and is_known and setting(given, "data", "orientation") != "stored":
        asked = "median"
    if text_in(given, "data", "source", "name") in DRAWN:
        return []
    if asked == "median":
        return [("Where voxel sizes differed, images were resampled to the median one of the data set.",)]
    if isinstance(asked, list | tuple) and len(asked) == 3:
        size = " x ".join(map(number_of, asked))
        return [(f"Images of another voxel size were resampled to voxels of {size} mm (x, y, z).",)]
    return []


def _last_name(path: str) -> str:
    return path.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1]


def _split_sentences(records: StudyRecords) -> tuple[Sentence, ...]:
    header = records.header
    known = [record.settings for record in finished(records.trials)]
    train, val = (
        _spell_range([len(names) for settings in known if (names := list_in(settings, "split", side))])
        for side in ("train", "val")
    )
    if not train or not val:
        return ()
    if header.folds:
        how = f"In {len(header.folds)}-fold cross-validation, {train} subjects trained and {val} validated each network"
    else:
        how = f"{train} subjects trained each network and {val} other{'s' * (val != '1')} validated it"
    whom = "; scans of one person were kept on one side" if header.persons else ""
    return ((f"{how}{whom}.",),)


def _spell_range(numbers: Sequence[int]) -> str:
    if not numbers:
        return ""
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def evaluation_sentences(record: TrialRecord) -> tuple[Sentence, ...]:
    """How the trained network was measured."""
    settings, patch = record.settings, list_in(record.settings, "batch", "patch_size_px")
    average = "with averaged weights " * bool(setting(settings, "train", "ema_decay"))
    if len(patch) == 3:
        overlap = number_of(100 * number_in(settings, "evaluate", "overlap_fraction"))
        how = f"in sliding windows of {' x '.join(map(str, patch))} voxels that overlap by at least {overlap} %"
    else:
        how = "slice by slice"
    mirrored = ", averaged over mirrored copies" * bool(setting(settings, "evaluate", "mirror"))
    sentences: list[Sentence] = [
        (
            f"After the last epoch, the network {average}segmented the whole volumes of all training and validation "
            f"subjects by the same code, {how}{mirrored}.",
        ),
        (
            "Predicted masks were compared with the reference masks, on the voxels of these, by the Dice coefficient",
            *cite("dice"),
            " of each class, averaged over cases and then over the classes without the background; the gap is training "
            "minus validation Dice.",
        ),
    ]
    tolerance, unit = (
        number_in(settings, "evaluate", "surface_tolerance_mm"),
        record.result.distance_unit if record.result else "mm",
    )
    if tolerance:
        sentences.append(
            (
                "Validation masks were also compared by the 95th percentile of the distances between surfaces (HD95) "
                f"and by the surface Dice at a tolerance of {number_of(tolerance)} {unit}",
                *cite("surface-dice"),
                ".",
            )
        )
    return tuple(sentences)


def comparison_sentences(summary: Summary) -> tuple[Sentence, ...]:
    """What was compared, on which seeds, and by which test."""
    header, seeds = summary.header, counted(len(summary.header.seeds), "seed")
    compared = [variant for variant in summary.variants if variant.comparison is not None]
    if not compared:
        return ((f"Training was repeated from {seeds}.",),) if len(header.seeds) > 1 else ()
    others = listed([variant.label for variant in compared], MAX_NAMED)
    sentences: list[Sentence] = [
        (
            f"{counted(len(compared), 'variant')} (",
            *others,
            f") {'was' if len(compared) == 1 else 'were'} compared with the control (",
            Given(header.control),
            f"), each trained from {seeds}. The paragraphs above describe the control",
            *((", from which variants differ in ", *listed(header.axes, MAX_NAMED)) if header.axes else ()),
            ".",
        ),
        _pairing_sentence(summary),
        _test_sentence(summary),
    ]
    if len(compared) > 1:
        moderated = len(compared) >= MIN_VARIANTS
        sentences.append(
            (
                f"Tests were corrected for {len(compared)} variants by Holm's method",
                *cite("holm"),
                ", at 5 % for the whole study",
                *((", with variances drawn towards their median over the variants", *cite("moderated")) * moderated),
                ".",
            )
        )
    effect = number_of(header.smallest_effect)
    sentences.append(
        (
            f'The verdict "no difference larger than {effect}" was given where two one-sided tests',
            *cite("tost"),
            f" showed it; {effect} is the smallest effect of interest.",
        )
    )
    if header.claims:
        late = " (some of them after results were there)" * any(outcome.is_late for outcome in summary.claims)
        claims = counted(len(header.claims), "claim")
        sentences.append((f"{claims} declared in advance{late} had a test at 5 % each, without correction.",))
    if summary.num_done < len(header.trials):
        sentences.append((f"Of {len(header.trials)} trials, {summary.num_done} had ended when this was written.",))
    return tuple(sentences)


def _pairing_sentence(summary: Summary) -> Sentence:
    """What trials of one seed have in common, as far as their records show it, and that they are compared in pairs."""
    same = [
        *(["started from the same weights"] if have_same_weights(summary) else []),
        *(["saw the same patches in the same order"] if saw_same_patches(summary) else []),
    ]
    compared = f"compared with the control by differences in {summary.metric_title}, paired by {summary.unit_of_runs}"
    if not same:
        return (f"Each variant was {compared}.",)
    return (f"Trials of one {summary.unit_of_runs} {' and '.join(same)}; each variant was {compared}.",)


def _test_sentence(summary: Summary) -> Sentence:
    match summary.scope:
        case Scope.SEEDS:
            return ("Verdicts hold for new seeds on these patients, by t tests of the differences over seeds.",)
        case Scope.PATIENTS:
            return (
                "Verdicts hold for new patients and seeds: both are crossed random effects, as cases and readers are "
                "in studies of several readers",
                *cite("readers-and-cases"),
                ".",
            )
        case Scope.PROCEDURE:
            return (
                "Verdicts hold for new training sets, by t tests over the runs of cross-validation whose variance is "
                "corrected for the training subjects that the folds share",
                *cite("resampled"),
                ".",
            )


SOFTWARE = {"torch": "PyTorch", "numpy": "NumPy", "scipy": "SciPy", "SimpleITK": "SimpleITK"}


def software_sentences(records: StudyRecords) -> tuple[Sentence, ...]:
    """The versions of the software, and the devices."""
    known = finished(records.trials)
    versions = {
        name: " and ".join(dict.fromkeys(r.run.versions[name] for r in known if name in r.run.versions))
        for name in ("dlx", *SOFTWARE, "python")
    }
    commits = [*dict.fromkeys(record.run.commit for record in known if record.run.commit)]
    commit = (f" (commit{'s' * (len(commits) > 1)} ", Given(" and ".join(commits)), ")") if commits else ()
    parts: list[Sentence] = [
        (f"{title} ", Given(versions[name]), *cite(name)) for name, title in SOFTWARE.items() if versions[name]
    ]
    python: Sentence = (" under Python ", Given(versions["python"])) if versions["python"] else ()
    using: Sentence = tuple(part for at, item in enumerate(parts) for part in ((", ",) * bool(at) + item))
    with_packages: Sentence = (", which used ", *using) if using else ()
    devices = [*dict.fromkeys(record.run.device for record in known)]
    precisions = dict.fromkeys(text_in(record.settings, "compute", "precision") for record in known)
    shown = [precision for precision in precisions if precision]
    return (
        ("Training and evaluation were done by dlx ", Given(versions["dlx"]), *commit, *with_packages, *python, "."),
        ("They ran on ", *listed(devices, MAX_NAMED), *((" in ", *listed(shown, MAX_NAMED)) if shown else ()), "."),
    )
