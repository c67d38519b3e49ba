"""The figure of a study: every kind of study is drawn, equal records give equal bytes, and the user's pyplot stays."""

import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import pytest

from dlx.records.archive import read_study
from dlx.report.figures.last_epoch import clipped
from dlx.report.figures.study import draw_study
from dlx.report.findings.summary import summarize_study
from dlx.study.scope import Scope
from made_records import dropout_sweep, made_study

LONG = "lambda:points=[[0, 0.1], [0.1, 1], [1, 0]],decoder=[[0, 1], [1, 0.01]]"
EVERYTHING = [("p=0", seed) for seed in range(5)] + [("p=0.1", seed) for seed in range(5)]
STUDIES = {
    "a sweep of eight rates": dropout_sweep(),
    "schedulers with long names": made_study(
        {"constant": (0.9, 0.8), "cosine": (0.92, 0.81), LONG: (0.9, 0.8)}, axis="s"
    ),
    "one variant, one seed": made_study({"unet2": (0.9, 0.8)}, control=None, axes=(), seeds=[3]),
    "one variant that diverged": made_study({"unet2": (0.9, 0.8)}, control=None, seeds=[0], diverged=[("unet2", 0)]),
    "two variants, one seed": made_study(seeds=[0]),
    "no epochs yet": made_study(running=dict.fromkeys(EVERYTHING, 0)),
    "all still running": made_study(running=dict.fromkeys(EVERYTHING, 4)),
    "all diverged": made_study(diverged=EVERYTHING),
    "some collapsed, some diverged": dropout_sweep(collapsed=[("p=0.7", 1)], diverged=[("p=0.8", 2), ("p=0", 0)]),
    "an idle variant": made_study(idle=["p=0.1"]),
    "one epoch": made_study(epochs=1),
    "400 epochs, validated at every tenth": made_study(epochs=400, every=10),
    "rates of unlike distances": made_study({f"lr={x}": (0.9, 0.8) for x in (0, 1e-5, 1e-4, 1e-3)}, seeds=[0, 1]),
    "a control without a number": made_study({"none": (0.9, 0.8), "p=0.1": (0.9, 0.8), "p=0.2": (0.9, 0.8)}),
    "HD95": made_study(metric="hd95_mm"),
}


def drawn(records, folder, name="study"):
    path = folder / f"{name}.svg"
    draw_study(summarize_study(records), path)
    return path.read_bytes()


def texts(svg):
    root = ElementTree.fromstring(svg)
    found = ["".join(node.itertext()).strip() for node in root.iter() if node.tag.endswith("}text")]
    return "\n".join(found)


@pytest.mark.parametrize("records", STUDIES.values(), ids=STUDIES)
def test_every_study_is_drawn(records, tmp_path):
    svg = drawn(records, tmp_path).decode()
    ElementTree.fromstring(svg)
    assert not re.search(r"\bnan\b", svg)


def test_a_figure_is_written_as_png_too(tmp_path):
    draw_study(summarize_study(dropout_sweep()), tmp_path / "study.svg", tmp_path / "study.png")
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")


def test_equal_records_give_equal_bytes(tmp_path):
    assert drawn(dropout_sweep(), tmp_path, "a") == drawn(dropout_sweep(), tmp_path, "b")


def test_clip_paths_are_numbered_as_their_hashes_hold_the_last_bits_of_the_layout(tmp_path):
    svg = drawn(dropout_sweep(), tmp_path).decode()
    defined, used = re.findall(r'<clipPath id="(\w+)"', svg), re.findall(r"url\(#(\w+)\)", svg)
    assert defined == [f"clip{i}" for i in range(1, len(defined) + 1)]
    assert set(used) == set(defined)


def test_the_figure_names_the_question_the_control_the_axis_and_n(tmp_path):
    text = texts(drawn(made_study(question="Does it help?"), tmp_path))
    for words in ("Does it help?", "control (p=0; n = 5)", "dropout.p", "p=0.1  (n = 5)", "epoch", "±0.01"):
        assert words in text


def test_a_running_study_says_how_many_trials_have_ended(tmp_path):
    assert "9 of 10 trials have ended" in texts(drawn(made_study(running={("p=0.1", 4): 3}), tmp_path))


def test_labels_are_taken_letter_by_letter(tmp_path):
    odd = "a$b$_c <d> & \\frac"
    assert odd in texts(drawn(made_study({"control": (0.9, 0.8), odd: (0.9, 0.8)}, axis="odd"), tmp_path))


def test_a_collapsed_variant_has_no_interval_but_the_word(tmp_path):
    text = texts(drawn(made_study(collapsed=[("p=0.1", 2)]), tmp_path))
    assert "collapsed" in text
    assert "1 of 5 runs collapsed (seed 2)" in text
    assert "shown to differ" not in text
    assert "shown to differ" in texts(drawn(made_study(), tmp_path))


def test_what_has_no_point_is_named_within_its_axes(tmp_path):
    """Zero lies at the upper edge here: words on it would run into the title."""
    finals = {("p=0.2", seed): (0.1, 0.05 + 0.001 * seed) for seed in range(5)}
    three = {"p=0": (0.93, 0.80), "p=0.1": (0.91, 0.82), "p=0.2": (0.1, 0.05)}
    svg = drawn(made_study(three, finals=finals, collapsed=[("p=0.1", 2)]), tmp_path).decode()
    lines = re.findall(r"<text [^>]*translate\(([\d.]+) ([\d.]+)\)[^>]*>([^<]+)</text>", svg)
    heights = {text: float(y) for _, y, text in lines}
    assert heights["collapsed"] > heights["Difference from the control, paired by seed"] + 60


def test_a_collapsed_control_gives_no_mean_to_compare_with(tmp_path):
    assert "control's mean" in texts(drawn(made_study(), tmp_path))
    assert "control's mean" not in texts(drawn(made_study(collapsed=[("p=0", 2)]), tmp_path))


def test_the_direction_of_the_metric_is_on_its_axis(tmp_path):
    assert "(lower is better)" in texts(drawn(made_study(metric="hd95_mm"), tmp_path))


def test_evaluation_unlike_training_is_shown_above_the_curves(tmp_path):
    records = made_study({"p=0": (0.9, 0.8), "p=0.1": (0.3, 0.2)}, running_dice={("p=0.1", 0): 0.9})
    assert "evaluation differs from training" in texts(drawn(records, tmp_path))


def test_a_long_legend_takes_two_rows(tmp_path):
    def heights(records):
        """The height of each text where it is first, from the top of the figure."""
        found = re.findall(r' y="([\d.]+)"[^>]*>([^<]+)</text>', drawn(records, tmp_path).decode())
        return {name: float(y) for y, name in reversed(found)}

    long = heights(made_study(diverged=[("p=0", 2), ("p=0", 3)]))
    assert long["training (some of its subjects)"] > long["validation"] + 5
    short = heights(made_study())
    assert short["mean ± 1 standard deviation over seeds"] == short["validation"]


def test_an_idle_variant_has_no_point_but_the_words_no_effect(tmp_path):
    assert "no effect" in texts(drawn(made_study(idle=["p=0.1"]), tmp_path))


def test_what_the_user_set_for_matplotlib_changes_nothing_and_stays(tmp_path):
    before = drawn(made_study(), tmp_path, "before")
    with mpl.rc_context({"font.size": 30.0, "lines.linewidth": 9.0, "axes.grid": False}):
        assert drawn(made_study(), tmp_path, "after") == before
        assert mpl.rcParams["font.size"] == 30.0


def test_no_axis_or_interval_of_dice_leaves_what_is_possible(tmp_path):
    """Two seeds 0.25 apart: their t intervals reach from -0.8 to 2.4, that of the difference from -3.7 to 3.4."""
    finals = {("p=0", 0): (0.99, 0.95), ("p=0", 1): (0.98, 0.7), ("p=0.1", 0): (0.9, 0.5), ("p=0.1", 1): (0.9, 0.8)}
    text = texts(drawn(made_study(finals=finals, seeds=[0, 1]), tmp_path)).replace("\u2212", "-")
    ticks = [float(line) for line in text.splitlines() if re.fullmatch(r"-?\d+(\.\d+)?", line)]
    assert min(ticks) == -1.0  # of the differences
    assert [tick for tick in ticks if tick > 1.0] == [3.0, 6.0, 9.0]  # epochs
    assert clipped((-0.8, 2.4), 0.0, 1.0) == (0.0, 1.0)
    assert clipped(None, 0.0, 1.0) is None


@pytest.mark.parametrize(("every", "has_curves"), [(10, False), (5, False), (3, True), (2, True)])
def test_variants_that_were_validated_twice_or_less_have_no_curves_and_the_figure_says_why(every, has_curves, tmp_path):
    shown = texts(drawn(made_study(every=every), tmp_path))
    assert ("Dice of whole volumes" in shown) == has_curves
    assert ("evaluate.every=2 gives a curve" in shown) == (every > 2)


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_study_of_one_or_two_epochs_says_why_it_has_no_curves(epochs, tmp_path):
    shown = texts(drawn(made_study(epochs=epochs, every=1), tmp_path))
    assert "Dice of whole volumes" not in shown
    assert f"{epochs} epoch" in shown


def test_a_study_that_still_runs_has_its_curves(tmp_path):
    assert "Dice of whole volumes" in texts(drawn(made_study(running={("p=0.1", 0): 4}, every=10), tmp_path))


def test_intervals_of_narrower_scopes_do_not_widen_the_axis_of_differences(tmp_path):
    """Two seeds: the interval for new seeds of `unet, weights shared` reaches from -0.73 to 0.49."""
    records = read_study(Path(__file__).parent.parent / "experiments/cross-validation.jsonl")
    (ends,) = [
        v.comparison.scopes[Scope.SEEDS].interval for v in summarize_study(records).variants if "shared" in v.label
    ]
    assert ends[0] < -0.7
    text = texts(drawn(records, tmp_path)).replace("\u2212", "-")
    ticks = [float(line) for line in text.splitlines() if re.fullmatch(r"-?\d+(\.\d+)?", line)]
    assert -0.3 < min(ticks) < -0.2  # the headline's: from -0.21
