"""What a benchmark must show: each line with its target, what was measured, and whether it holds."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.contenders import (
    COMPILED,
    CROSS_ENTROPY,
    DLX,
    DLX_FLOAT32,
    MONAI,
    MONAI_BF16,
    NNUNET,
    NNUNET_BF16,
    NOTES,
    TUNED,
)

NOT_MEASURED = "not measured here"


@dataclass(frozen=True)
class CheckLine:
    """`holds` is None where it was not measured."""

    name: str
    target: str
    measured: str = NOT_MEASURED
    holds: bool | None = None


def step_checks(document: dict[str, Any]) -> list[CheckLine]:
    """The lines about a CPU's step."""
    share = matmul_share(document)
    return [
        at_least(document, "times the notes' loop (float32)", 5.0, NOTES),
        at_least(document, "times the tuned loop (the faster of plain and compiled)", 1.25, TUNED, COMPILED),
        at_least(document, "times MONAI as it comes (float32)", 2.0, MONAI),
        at_least(document, "times nnU-Net's trainer with our network (float32)", 1.8, NNUNET),
        at_least(document, "times MONAI in bf16", 1.2, MONAI_BF16),
        share_line(share, 0.80),
        lovasz_line(document),
    ]


def step_3d_checks(document: dict[str, Any]) -> list[CheckLine]:
    """The lines about a CPU's step in 3D."""
    return [
        convolution_line(document, DLX_FLOAT32, 0.7),
        convolution_line(document, DLX, 0.7),
        at_least(document, "times MONAI as it comes (float32)", 1.3, MONAI),
        at_least(document, "times MONAI in bf16", 1.3, MONAI_BF16),
        at_least(document, "times nnU-Net's trainer with our network (float32)", 1.3, NNUNET),
        at_least(document, "times nnU-Net's trainer with our network in bf16", 1.3, NNUNET_BF16),
    ]


def convolution_line(document: dict[str, Any], name: str, target: float) -> CheckLine:
    """The step's standard operations a second, in those of its convolutions by themselves in float32."""
    ceilings = document["ceilings"]
    rate = ceilings["convolution_float32_gflops"]
    shares = [ceilings["step_gflop"] / step / rate for step in times(document, name)]
    line = f"{name}: standard FLOPs of the step in the float32 convolutions' rate"
    if not shares:
        return CheckLine(line, f"at least {target}")
    return CheckLine(line, f"at least {target}", spread(shares), statistics.median(shares) >= target)


def gpu_checks(document: dict[str, Any]) -> list[CheckLine]:
    """The lines about a GPU; those of whole runs and sweeps are not measured by the step benchmark."""
    steps = times(document, DLX)
    median = statistics.median(steps) if steps else None
    return [
        at_least(document, "times the notes' loop (float32)", 5.0, NOTES),
        at_least(document, "times the tuned loop (the faster of plain and compiled)", 1.5, TUNED, COMPILED),
        at_least(document, "times MONAI as it comes (float32)", 4.0, MONAI),
        at_least(document, "times nnU-Net's trainer with our network", 2.0, NNUNET),
        share_line(matmul_share(document), 0.50),
        CheckLine("a step", "at most 3.0 ms", *((f"{1e3 * median:.2f} ms", median <= 3.0e-3) if median else ())),
        lovasz_line(document),
        CheckLine("the notes' 100 epochs with validation", "at most 60 s"),
        CheckLine("27 trials against 27 single ones", "at most 0.9 times"),
        CheckLine("captures across p and schedulers", "one"),
        CheckLine("start-up of a sweep", "at most 2 %"),
    ]


def dice_checks(document: dict[str, Any]) -> list[CheckLine]:
    """The lines about the time to a mean Dice; the second is of MONAI as it comes, the third with our recipe."""
    ours = [run for run in document["runs"].get("dlx", []) if "error" not in run]
    took = [run["reached_s"] for run in ours]
    dice = ", ".join(f"{run['dice']:.3f}" for run in ours)
    missed = f"{took.count(None)} of {len(took)} runs ended below it ({dice})" if None in took else ""
    name, target = f"s from typing the command to {document['target']} mean Dice", "at most 45 s"
    line = CheckLine(name, target)
    if took:
        line = CheckLine(name, target, missed or spread(took, "s"), not missed and max(took) <= 45.0)
    return [line, *(share_of_peer(document, peer, took, missed) for peer in document["runs"] if peer != "dlx")]


def dice_curve_checks(document: dict[str, Any], name: str = "dlx, strong") -> list[CheckLine]:
    """The lines about the strong recipe: its Dice after its whole command, evaluation included."""
    run = document["runs"].get(name, {})
    lines = []
    for target, limit_s in ((0.88, 900.0), (0.885, 2700.0)):
        line = f"mean Dice of {name}, its whole command within {limit_s / 60:.0f} minutes"
        if "looks" not in run:
            lines.append(CheckLine(line, f"at least {target}"))
            continue
        dice, wall_s = run["looks"][-1][1], run["wall_s"]
        measured = f"{dice:.4f} after {wall_s / 60:.1f} minutes"
        lines.append(CheckLine(line, f"at least {target}", measured, dice >= target and wall_s <= limit_s))
    return lines


def share_of_peer(document: dict[str, Any], peer: str, took: Sequence[float | None], missed: str) -> CheckLine:
    """dlx's time in the peer's. A peer that did not get there counts with its limit: the share is then below that."""
    name, target = f"of the time of {peer}", "at most 1/3"
    theirs = document["runs"][peer]
    pairs = [(a, run) for a, run in zip(took, theirs, strict=False) if a is not None and "error" not in run]
    if missed or not pairs:
        return CheckLine(name, target, missed or NOT_MEASURED, False if missed else None)
    shares = [ours / (run["reached_s"] or document["limit_s"]) for ours, run in pairs]
    bound = "" if all(run["reached_s"] for _, run in pairs) else "less than "
    return CheckLine(name, target, bound + spread(shares), statistics.median(shares) <= 1 / 3)


def at_least(document: dict[str, Any], name: str, target: float, *others: str) -> CheckLine:
    """dlx is `target` times as fast as the fastest of the others, repeat by repeat."""
    found = [ratios for other in others if (ratios := per_repeat(document, other, DLX))]
    if not found:
        return CheckLine(name, f"at least {target:g}")
    least = [min(of_repeat) for of_repeat in zip(*found, strict=False)]
    return CheckLine(name, f"at least {target:g}", spread(least), statistics.median(least) >= target)


def lovasz_line(document: dict[str, Any]) -> CheckLine:
    name, target = "Lovász step in cross-entropy steps", 1.03
    ratios = per_repeat(document, DLX, CROSS_ENTROPY)
    if not ratios:
        return CheckLine(name, f"at most {target}")
    return CheckLine(name, f"at most {target}", spread(ratios, digits=3), statistics.median(ratios) <= target)


def matmul_share(document: dict[str, Any]) -> list[float]:
    """Standard operations a second of each repeat, in those of the bf16 matrix product of the same call."""
    ceilings = document["ceilings"]
    return [ceilings["step_gflop"] / step / ceilings["matmul_bf16_gflops"] for step in times(document, DLX)]


def share_line(shares: Sequence[float], target: float) -> CheckLine:
    name = "standard FLOPs of the step in the bf16 matrix product's rate"
    if not shares:
        return CheckLine(name, f"at least {target}")
    return CheckLine(name, f"at least {target}", spread(shares), statistics.median(shares) >= target)


def times(document: dict[str, Any], name: str) -> list[float]:
    return [run["step_s"] for run in document["runs"].get(name, []) if "step_s" in run]


def per_repeat(document: dict[str, Any], name: str, other: str) -> list[float]:
    """How many times `other`'s step `name`'s takes, in each repeat that has both."""
    pairs = zip(document["runs"].get(name, []), document["runs"].get(other, []), strict=False)
    return [one["step_s"] / two["step_s"] for one, two in pairs if "step_s" in one and "step_s" in two]


def spread(values: Sequence[float], unit: str = "", digits: int = 2) -> str:
    """Median and range."""
    after = f" {unit}" if unit else ""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}{after}"
    return f"{statistics.median(values):.{digits}f}{after} ({min(values):.{digits}f} to {max(values):.{digits}f})"
