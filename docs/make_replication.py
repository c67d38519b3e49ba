"""Writes docs/replication.md: what the notes claim beside what was measured, from the records under experiments/ and,
where a claim is arithmetic, by doing it. With --check it writes nothing and says whether the page is up to date.
"""

import inspect
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import cos, pi
from pathlib import Path

from dlx.records.archive import finished, read_study
from dlx.report.findings.summary import Summary, summarize_study
from dlx.report.page.markdown import escape, table
from dlx.report.wording.formatting import spell_effect
from dlx.report.wording.verdicts import spell_reasons, spell_scoped_verdict

DOCS = Path(__file__).parent
EXPERIMENTS = DOCS.parent / "experiments"
PAGE = DOCS / "replication.md"

Outcome = tuple[str, str]  # what was measured or counted, and the verdict


@dataclass(frozen=True)
class Row:
    """A claim of the notes, and where it is tested: a claim of a study by how its text begins, or a calculation."""

    notes: str
    study: str | None = None
    claim: str = ""
    calculate: Callable[[], Outcome] | None = None
    remark: str = ""


def verdict(*, holds: bool) -> str:
    return "confirmed" if holds else "contradicted"


def counted(model: str, channels: int = 2, classes: int = 4, size: int = 64):
    """A network's counts, its input one image of `size` squared."""
    from dlx.cli.commands.count_params import count_one

    return count_one(model, (channels, size, size), classes, {})[1]


def sizes_of_unets() -> Outcome:
    shared, mended = counted("unet"), counted("unet2")
    twice = sum((use.calls - 1) * use.parameters for use in shared.shared)
    holds = (shared.parameters, mended.parameters, twice) == (6_238_532, 8_563_652, 2_325_120)
    holds &= mended.parameters - shared.parameters == twice
    text = f"unet {shared.parameters:,}, unet2 {mended.parameters:,}; {len(shared.shared)} blocks are called more than "
    return text + f"once, and counting each call adds {twice:,}", verdict(holds=holds)


def cost_of_unet2() -> Outcome:
    flops = (counted("unet2").forward_backward_flops or 0) / 1e9
    return f"{flops:.2f} GFLOP a slice, forward and backward", verdict(holds=round(flops, 2) == 18.60)


def layers_of_resnets() -> Outcome:
    expected = {"resnet18": 18, "resnet34": 34, "resnet50": 50, "resnet101": 101, "resnet152": 152}
    layers = {name: counted(name, 3, 1000, 224).layers for name in expected}
    totals = {name: sum(found.values()) for name, found in layers.items()}
    stages = [key for key in layers["resnet50"] if layers["resnet50"][key] != layers["resnet101"][key]]
    later = [key for key in layers["resnet101"] if layers["resnet101"][key] != layers["resnet152"][key]]
    text = f"weighted layers {', '.join(map(str, totals.values()))}; 50 to 101 differ in {', '.join(stages)}, "
    holds = totals == expected and len(stages) == 1 and len(later) == 2
    return f"{text}101 to 152 in {', '.join(later)}", verdict(holds=holds)


def sizes_of_backbones() -> Outcome:
    expected = {
        "resnet18": 11_689_512,
        "resnet34": 21_797_672,
        "resnet50": 25_557_032,
        "resnet101": 44_549_160,
        "resnet152": 60_192_808,
        "vgg16": 138_357_544,
        "vgg16_bn": 138_365_992,
    }
    found = {name: counted(name, 3, 1000, 224).parameters for name in expected}
    return ", ".join(f"{name} {count:,}" for name, count in found.items()), verdict(holds=found == expected)


def rates_of(name: str, num_epochs: int, **args: object) -> list[float]:
    from dlx.training.schedules import rates

    return rates(name, args, 2e-4, num_epochs)


def differ(found: list[float], expected: list[float]) -> float:
    return max(abs(a - b) / (b or 1.0) for a, b in zip(found, expected, strict=True))


def small(difference: float) -> str:
    """A relative difference in words that do not hang on the last bits."""
    return "less than 1e-12" if difference < 1e-12 else f"up to {difference:.0e}"


def tail_by_hand() -> Outcome:
    rates = rates_of("linear-tail", 100, epochs=30)
    full = sum(rate == rates[0] for rate in rates)
    holds = full == 71 and abs(rates[-1] * 30 / 2e-4 - 1) < 1e-12
    return f"{full} of 100 epochs at the full rate, the last at lr / {2e-4 / rates[-1]:.0f}", verdict(holds=holds)


def decays_by_formula() -> Outcome:
    worst = max(
        differ(rates_of("exponential", 400, gamma=0.98), [2e-4 * 0.98**e for e in range(400)]),
        differ(rates_of("step", 100, step_size=30), [2e-4 * 0.1 ** (e // 30) for e in range(100)]),
    )
    changes = [e for e, (a, b) in enumerate(pairwise(rates_of("step", 100, step_size=30)), 1) if a != b]
    text = f"{small(worst)} from the formulas; step_size 30 changes at "
    return text + ", ".join(map(str, changes)), verdict(holds=worst < 1e-12 and changes == [30, 60, 90])


def one_rule() -> Outcome:
    """Exponential is step with step_size 1, and step is multistep with milestones at each multiple."""
    exponential, step = rates_of("exponential", 60, gamma=0.9), rates_of("step", 60, step_size=1, gamma=0.9)
    steps = rates_of("step", 60, step_size=20, gamma=0.1)
    milestones = rates_of("multistep", 60, milestones=(20, 40), gamma=0.1)
    worst = max(differ(exponential, step), differ(steps, milestones))
    return f"written as each other: {small(worst)}", verdict(holds=worst < 1e-12)


def cosine_returns() -> Outcome:
    rates = rates_of("cosine", 100, t_max=20)
    by_hand = [2e-4 * (1 + cos(pi * epoch / 20)) / 2 for epoch in range(100)]
    off = max(abs(a - b) for a, b in zip(rates, by_hand, strict=True)) / 2e-4
    back = [epoch for epoch, rate in enumerate(rates) if epoch and abs(rate / 2e-4 - 1) < 1e-9]
    text = f"with t_max = 20 the rate is back at the first in epochs {', '.join(map(str, back))} (0 first)"
    return text, verdict(holds=off < 1e-9 and back == [40, 80])


def plateau_mode() -> Outcome:
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    mode = inspect.signature(ReduceLROnPlateau).parameters["mode"].default
    return f"torch's default mode is '{mode}'; dlx watches Dice in mode 'max'", verdict(holds=mode == "min")


def groups_of_lambda() -> Outcome:
    """The head at the full rate, the encoder at a tenth of it: what fine-tuning wants."""
    from dlx.training.schedules import rates

    rule = {"points": [[0, 1], [1, 1]], "groups": {"encoder": [[0, 0.1], [1, 0.1]]}}
    head, encoder = (rates("lambda", rule, 2e-4, 10, group) for group in ("head", "encoder"))
    ratio = max(abs(slow / fast - 0.1) for slow, fast in zip(encoder, head, strict=True))
    return "one rule for the head, a tenth of it for the encoder: so it is in each epoch", verdict(holds=ratio < 1e-12)


def step_called_first() -> Outcome:
    import torch
    from torch.optim.lr_scheduler import ExponentialLR

    applied: dict[bool, list[float]] = {}
    for is_first in (True, False):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
        scheduler = ExponentialLR(optimizer, gamma=0.5)
        applied[is_first] = []
        for _ in range(3):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns of just this order
                if is_first:
                    scheduler.step()
                applied[is_first].append(float(optimizer.param_groups[0]["lr"]))
                optimizer.step()
                if not is_first:
                    scheduler.step()
    spelled = {key: ", ".join(f"{rate:g}" for rate in rates) for key, rates in applied.items()}
    text = f"gamma 0.5: stepped after the optimizer {spelled[False]}; called first {spelled[True]}: a rate is lost"
    return text, verdict(holds=applied[False][0] == 1.0 and applied[True] == [0.5, 0.25, 0.125])


def parts_of_a_network() -> Outcome:
    import torch

    from dlx.settings import registry

    with torch.device("meta"):
        unet = registry.load("model", "unet-resnet34")(3, 4)
        resnet = registry.load("classifier", "resnet34")(3, 1000)
        vector = resnet.embed(torch.empty(1, 3, 224, 224))
    groups = {name: sum(p.numel() for p in found) for name, found in unet.parameter_groups().items()}
    total = sum(parameter.numel() for parameter in unet.parameters())
    words = {"encoder": "backbone", "decoder": "neck", "head": "head"}
    parts = ", ".join(f"{words[name]} {count:,}" for name, count in groups.items())
    embedded = f"an image of 3 x 224 x 224 is embedded by resnet34 as {vector.shape[1]} numbers"
    text = f"unet-resnet34 (3 channels, 4 classes): {parts}; {embedded}"
    return text, verdict(holds=sum(groups.values()) == total and vector.shape == (1, 512))


def tissues_of_the_phantom() -> Outcome:
    """Means of T1 by tissue over the phantom's subjects; GM and WM beside the contrast of CSF to them."""
    import numpy as np

    from dlx.data.phantom.case import phantom_case

    found = []
    for index in range(6):
        image, mask = phantom_case(index, seed=0, size_px=(48, 48, 48))
        found.append([image[0][mask == label].mean() for label in (1, 2, 3)])
    csf, gray, white = np.mean(found, axis=0)
    share = abs(white - gray) / abs((white + gray) / 2 - csf)
    text = f"in the phantom that stands in for them: T1 of CSF {csf:.0f}, GM {gray:.0f}, WM {white:.0f}; GM and WM are "
    return f"{text}{share:.2f} of the distance to CSF apart", "so made" if share < 0.5 else "not so"


def gamma_that_kills() -> Outcome:
    rates = rates_of("exponential", 10, gamma=0.01)
    return f"after two epochs the rate is {rates[2] / rates[0]:.0e} of the first", verdict(
        holds=rates[2] / rates[0] < 1e-3
    )


def floor_of_focal() -> Outcome:
    import torch

    from dlx.training.losses import Focal

    mask = torch.arange(4).repeat(4).view(1, 4, 4)
    logits = 100.0 * torch.nn.functional.one_hot(mask, 4).movedim(-1, 1).double()
    weights = (0.1, 0.4, 0.2, 0.3)
    twice, once = (
        float(Focal(4, class_weights=weights, double_softmax=double)(logits, mask)) for double in (True, False)
    )
    text = f"of a perfect answer, each class as often: {twice:.3f} with softmax twice, {abs(once):.3f} with it once"
    return text, verdict(holds=round(twice, 2) == 0.05 and once < 1e-6)


def torch_default_init() -> Outcome:
    import torch

    torch.manual_seed(0)
    layer = torch.nn.Conv2d(64, 64, 3)
    bound = (64 * 9) ** -0.5
    largest = float(layer.weight.detach().abs().max()) / bound
    text = (
        f"torch's own default for a convolution: uniform within 1 / sqrt(fan in) (largest weight {largest:.3f} of it)"
    )
    return f"{text}, which is Kaiming's uniform with a = sqrt(5)", verdict(holds=0.99 < largest <= 1.0)


def whitened() -> Outcome:
    summary = read("image-normalisation")
    remark = next(text for text in summary.remarks if "correlate" in text)
    return remark, verdict(holds="at most 0.00" in remark)


def settled(label: str) -> Outcome:
    variant = next(v for v in read("dropout-phantom").variants if v.label == label)
    train, val = (variant.estimates[metric] for metric in ("train_dice", "val_dice"))
    text = f"after the last epoch training Dice {train.mean:.3f}, validation {val.mean:.3f} (n = {val.n}; described, "
    text += "no test: the claim was not declared in these words)"
    near = all(abs((estimate.mean or 0.0) - 0.5) < 0.1 for estimate in (train, val))
    return text, "alike" if near else "not alike"


ROWS = {
    "The networks": [
        Row(
            "unet (blocks shared by mistake) has 6,238,532 parameters, unet2 8,563,652; the 2,325,120 between them are "
            "the shared blocks counted a second time",
            calculate=sizes_of_unets,
        ),
        Row("unet2 costs 18.60 GFLOP a 64 x 64 slice", calculate=cost_of_unet2),
        Row(
            "Networks learn the features that others must engineer",
            study="learned-features-hippocampus",
            claim="Networks learn the features",
        ),
        Row("the same, on the phantom", study="learned-features-phantom", claim="Networks learn the features"),
        Row(
            "Sharing weights made the network overfit; without the sharing it does not",
            study="weight-sharing-hippocampus",
            claim="Without the sharing there is less overfitting",
        ),
        Row("the same, on the phantom", study="weight-sharing-phantom", claim="Without the sharing there is less"),
        Row(
            "Without the sharing the network segments better",
            study="weight-sharing-hippocampus",
            claim="Without the sharing validation Dice",
        ),
        Row("the same, on the phantom", study="weight-sharing-phantom", claim="Without the sharing validation Dice"),
        Row(
            "ResNet-18 = 16 + 2 layers, 34 = 16 x 2 + 2, 50 has 16 more by the bottleneck; 101 grows in stage 4, 152 "
            "in stages 3 and 4",
            calculate=layers_of_resnets,
            remark="Stages are counted as in the ResNet paper: the stem is stage 1.",
        ),
        Row("Published parameter counts of ResNets and VGG16", calculate=sizes_of_backbones),
    ],
    "Parts and data": [
        Row("Backbone, neck and head are the parts; an embedding is a feature vector", calculate=parts_of_a_network),
        Row("At six months GM and WM have nearly the same T1 intensity", calculate=tissues_of_the_phantom),
    ],
    "Weight decay": [
        Row(
            "Weight decay (the optimizer's argument) is a remedy for overfitting",
            study="weight-decay",
            claim="Weight decay is a remedy",
        ),
        Row("and helps validation", study="weight-decay", claim="Validation Dice with the notes'"),
    ],
    "Learning-rate schedules": [
        Row("Linear tail, n = 30 of 100: 71 epochs at the full rate, the 100th at lr / 30", calculate=tail_by_hand),
        Row(
            "When the tail starts, training Dice rises by about 2 points",
            study="linear-tail",
            claim="When the tail starts, training Dice",
        ),
        Row("and validation hardly moves", study="linear-tail", claim="When the tail starts, validation Dice"),
        Row("(the tail does it, not the time)", study="linear-tail", claim="The tail, and not the time"),
        Row("ExponentialLR and StepLR follow their formulas; step_size 30 at 30, 60, 90", calculate=decays_by_formula),
        Row("ExponentialLR, StepLR and MultiStepLR are one rule with different steps", calculate=one_rule),
        Row("CosineAnnealingLR varies with a period rather than decaying", calculate=cosine_returns),
        Row("ReduceLROnPlateau's default mode is 'min'; for Dice it must be 'max'", calculate=plateau_mode),
        Row("LambdaLR takes any rule, another one for each parameter group", calculate=groups_of_lambda),
        Row("scheduler.step() belongs after the epoch's optimizer steps", calculate=step_called_first),
        Row("gamma = 0.01 kills the rate in two epochs", calculate=gamma_that_kills),
        Row("Decay of the rate helps", study="schedulers", claim="Decay of the rate helps"),
        Row("Decay of the rate is a remedy for overfitting", study="schedulers", claim="Decay of the rate is a remedy"),
        Row("Decay of the rate calms Dice", study="schedulers", claim="Decay of the rate calms"),
    ],
    "Dropout": [
        Row(
            "Dropout is a coin for each element: the share dropped is not exactly p",
            study="dropout-is-a-coin",
            claim="The share that a call drops is not exactly p",
        ),
        Row("(though close to it)", study="dropout-is-a-coin", claim="It is close to p"),
        Row("(by fair coins)", study="dropout-is-a-coin", claim="The coins are fair"),
        Row(
            "(and farther with a coin a channel, Dropout2d)",
            study="dropout-is-a-coin",
            claim="With a coin a channel it is farther",
        ),
        Row("Convolutions gain little from it", study="dropout-kinds", claim="Convolutions gain little"),
        Row("More p means worse training Dice", study="dropout-phantom", claim="Training Dice falls"),
        Row("the same, on the hippocampus set", study="dropout-hippocampus", claim="Training Dice falls"),
        Row("No dropout is best on the training set", study="dropout-phantom", claim="No dropout is best"),
        Row("the same, on the hippocampus set", study="dropout-hippocampus", claim="No dropout is best"),
        Row(
            "Among 0.1 ... 0.8, p = 0.1 is best (validation)",
            study="dropout-phantom",
            claim="Among the rates above 0",
        ),
        Row("the same, on the hippocampus set", study="dropout-hippocampus", claim="Among the rates above 0"),
        Row("At 0.6 training falls clearly", study="dropout-phantom", claim="At p = 0.6"),
        Row("At 0.7 and 0.8 the network hardly learns", study="dropout-phantom", claim="At p = 0.8"),
        Row("At 0.7 both Dice settle near 0.5", calculate=lambda: settled("p=0.7"), study="dropout-phantom"),
        Row("At 0.8 both Dice settle near 0.5", calculate=lambda: settled("p=0.8"), study="dropout-phantom"),
        Row("It holds back overfitting a little", study="dropout-hippocampus", claim="Dropout holds back"),
        Row(
            "the same, where no batch norm follows it",
            study="dropout-hippocampus-groupnorm",
            claim="Dropout holds back",
        ),
        Row("Dice still jitters with it", study="dropout-and-decay", claim="With dropout, Dice still jitters"),
        Row("and decay of the rate may be needed with it", study="dropout-and-decay", claim="With dropout, decay"),
    ],
    "Norms, first weights, data": [
        Row("BatchNorm with ReLU helps", study="batch-norm", claim="With BatchNorm validation"),
        Row("BatchNorm perhaps trains faster", study="batch-norm", claim="BatchNorm trains faster"),
        Row("BatchNorm works against dead ReLUs", study="down-sampling", claim="BatchNorm keeps ReLUs alive"),
        Row(
            "Values after a convolution have a small spread; BatchNorm restores it",
            study="down-sampling",
            claim="At the first weights features of the deepest level vary less",
        ),
        Row(
            "Down-sampled by convolution alone, values on deep maps fall to zero",
            study="down-sampling",
            claim="Strided convolutions without BatchNorm lose",
        ),
        Row(
            "(more than with max-pooling)",
            study="down-sampling",
            claim="Without a norm strided convolutions lose more",
        ),
        Row("and BatchNorm after them is the remedy", study="down-sampling", claim="BatchNorm after strided"),
        Row("Kaiming's initialisation: which one is torch's default?", calculate=torch_default_init),
        Row(
            "Kaiming's initialisation matters without a norm",
            study="initialisation",
            claim="Without a norm Kaiming's",
        ),
        Row("(with BatchNorm it hardly does)", study="initialisation", claim="With BatchNorm the first weights"),
        Row("Normalising data points decorrelates the channels", calculate=whitened, study="image-normalisation"),
        Row(
            "and removes redundancy, which should help",
            study="image-normalisation",
            claim="Decorrelated channels help",
        ),
        Row(
            "Normalising pixel values puts them in a sensible range, which helps",
            study="image-normalisation",
            claim="Values in a sensible range",
        ),
        Row("More training samples help", study="samples", claim="More samples help"),
        Row("and hold back overfitting", study="samples", claim="More samples hold back"),
    ],
    "The loss": [
        Row(
            "Handing probabilities to a focal loss that applies softmax itself leaves it a floor of about 0.05",
            calculate=floor_of_focal,
        ),
    ],
}

_summaries: dict[str, Summary] = {}


def read(study: str) -> Summary:
    if study not in _summaries:
        _summaries[study] = summarize_study(read_study(EXPERIMENTS / f"{study}.jsonl"))
    return _summaries[study]


def measured(row: Row) -> Outcome:
    """What a row's cells say; an error where the study, or the claim in it, is not there."""
    if row.calculate is not None:
        text, word = row.calculate()
        return escape(text), f"**{word}**"
    assert row.study is not None
    (outcome,) = [o for o in read(row.study).claims if o.claim.text.startswith(row.claim)]
    result = outcome.result
    estimate, interval = spell_effect(result.estimate, result.interval)
    within = f" ({interval})" if result.interval else ""
    reason = spell_reasons(result) if result.interval is None else ""
    text = f"{outcome.measured}: {estimate}{within}, n = {result.n}"
    return escape(text), f"**{spell_scoped_verdict(result)}**{': ' * bool(reason)}{escape(reason)}"


def source(row: Row) -> str:
    if row.study is None:
        return "calculated"
    return f"[{row.study}](../experiments/{row.study}.md)"


def where() -> list[str]:
    """On what the studies ran: a line a device."""
    studies: dict[str, list[str]] = {}
    names = dict.fromkeys(row.study for rows in ROWS.values() for row in rows if row.study)
    for name in names:
        records = read_study(EXPERIMENTS / f"{name}.jsonl")
        for device in dict.fromkeys(record.run.device for record in finished(records.trials)):
            studies.setdefault(device, []).append(name)
    return [f"- {escape(device)}: {', '.join(found)}" for device, found in studies.items()]


def page() -> str:
    lines = [
        "# The notes' claims, and what was measured",
        "",
        "Made by `make docs UPDATE=1` from the records under `experiments/`; do not edit.",
        "",
        "Each claim of [the notes](notes.md) stands beside the study that tests it. The studies' claims were "
        "declared before they ran. A verdict says for whom it holds ([studies](studies.md)): *new patients*, where a "
        "claim is about a metric that each of 5 or more validation patients has; else *new seeds*, on these patients "
        "alone. Intervals are of 95 % in that scope, uncorrected; `n` counts patients or seeds. "
        "**Confirmed** and **contradicted** are tests at 5 %; **not confirmed**: shown to be less than claimed; "
        "**cannot tell**: neither. "
        "These runs are small (the `quick` recipe: width 16, minutes on a CPU; 8 training subjects of the hippocampus "
        "set, or the phantom), so they say what holds here and not what holds at the notes' size.",
        "",
    ]
    for title, rows in ROWS.items():
        lines += [f"## {title}", ""]
        cells = [(escape(row.notes), source(row), *measured(row)) for row in rows]
        lines += [*table(("the notes", "study", "measured", "verdict"), cells, num_text=4), ""]
        lines += [f"{escape(row.remark)}\n" for row in rows if row.remark]
    return "\n".join([*lines, "## Where the studies ran", "", *where(), ""])


def main() -> None:
    made = page()
    if "--check" not in sys.argv:
        PAGE.write_text(made, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != made:
        sys.exit(f"{PAGE.name} is out of date: run `make docs UPDATE=1` and commit it")


if __name__ == "__main__":
    main()
