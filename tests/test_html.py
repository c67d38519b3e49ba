"""The HTML page: well-formed, without any request, every figure labelled, all text escaped; and what a reader finds."""

import base64
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlx.records.archive import read_study
from dlx.records.pictures import CasePicture, grey_png, indexed_png
from dlx.report.files.writing import write_beside
from dlx.report.findings.summary import summarize_study
from dlx.report.methods.paragraphs import methods_of
from dlx.report.methods.references import REFERENCES
from dlx.report.page.html import in_parts, make_html_page
from dlx.report.page.line_charts import thinned
from dlx.report.page.sections import page_content
from dlx.report.page.svg import element, ticks_within
from dlx.report.plotted.learning_rates import rate_panels
from dlx.report.wording.content import Table, plain
from dlx.report.wording.headline import headline
from made_records import DROPOUT, dropout_sweep, made_study, with_classes
from small import SMALL_ARGS

ROOT = Path(__file__).parent.parent
VOID = {"meta", "br", "hr", "img", "input", "link"}
NASTY = "<script>alert('x')</script> \" & \u202egnp.evil\u202c \u05d0\u05d1 \u00b5\U0001f9e0 {{ 7 * 7 }} ${x}"


class Page(HTMLParser):
    """The elements of a page with their attributes, texts and ancestors; refuses what is not well-formed."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.text = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute twice: {self.get_starttag_text()}"
        self.elements.append((tag, dict(attrs), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), tuple(self.open)))

    def handle_endtag(self, tag):
        assert self.open, f"{tag} was not opened"
        assert self.open.pop() == tag, f"{tag} closes another element: {self.getpos()}"

    def handle_data(self, data):
        if not {"style", "title", "desc"} & set(self.open):
            self.text.append(data)

    @property
    def words(self):
        return " ".join("".join(self.text).split())

    def of(self, *tags):
        return [(tag, attributes, inside) for tag, attributes, inside in self.elements if tag in tags]


def html_of(records, **options):
    return make_html_page(page_content(summarize_study(records), records), **options)


def page_of(records, **options):
    """The page of records, with what every page must have."""
    text = html_of(records, **options)
    assert text.startswith("<!DOCTYPE html>")
    page = Page(text)
    check_ids(page)
    check_requests(page, text)
    check_headings(page)
    check_figures(page)
    check_tables(page)
    shown = page.words.split("What the variants change")[0].replace("the loss is nan", "")
    assert not re.search(r"\b(nan|inf|None)\b", shown)
    return page


def check_ids(page):
    ids = Counter(attributes["id"] for _, attributes, _ in page.elements if "id" in attributes)
    assert [name for name, times in ids.items() if times > 1] == []
    for _, attributes, _ in page.elements:
        named = attributes.get("aria-labelledby", "").split()
        linked = [attributes["href"][1:]] if attributes.get("href", "").startswith("#") else []
        assert {*named, *linked} <= set(ids)


def check_requests(page, text):
    """Nothing is loaded or run: no script, frame, style sheet, font or picture from elsewhere."""
    assert not page.of("script", "iframe", "object", "embed", "link", "base", "form", "foreignobject")
    for tag, attributes, _ in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert "src" not in attributes
        if tag in ("image", "use"):
            assert attributes["href"].startswith(("data:image/png;base64,", "#"))
        elif tag == "a":
            assert attributes["href"].startswith(("#", "https://"))
        else:
            assert "href" not in attributes
    style = text.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def check_headings(page):
    levels = [int(tag[1]) for tag, *_ in page.of("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def check_figures(page):
    """Each outermost drawing is labelled, or hidden beside text that says the same."""
    for _, attributes, inside in page.of("svg"):
        if "svg" in inside:
            continue
        is_hidden = attributes.get("aria-hidden") == "true"
        assert is_hidden or (attributes["role"] == "img" and len(attributes["aria-labelledby"].split()) == 2)
    for _, attributes, inside in page.of("text"):
        assert "svg" in inside
        assert "g" not in inside  # in what `use` draws again, the style sheet's `svg text` would not reach it
        assert "nan" not in " ".join(map(str, attributes.values()))


def check_tables(page):
    assert all(attributes["scope"] in ("col", "row") for _, attributes, _ in page.of("th"))
    regions = [attributes for _, attributes, _ in page.of("div") if attributes.get("role") == "region"]
    assert len(regions) >= len(page.of("table"))
    assert all(attributes["tabindex"] == "0" for attributes in regions)
    labels = [attributes["aria-label"] for attributes in regions]
    assert len(labels) == len(set(labels))


def titles(page, level="h2"):
    return len(page.of(level))


# pictures by hand

SLICE = np.array([[0, 1, 2], [1, 1, 0]], np.uint8)


def picture(rank="hardest", truth=SLICE, prediction=SLICE, **fields):
    image = np.linspace(0, 255, truth.size).reshape(truth.shape).astype(np.uint8)
    pngs = {"image": grey_png(image), "truth": indexed_png(truth), "prediction": indexed_png(prediction)}
    place = {"axis": "z", "slice": 3, "num_slices": 10, "plane": "axial", "pixel_size": (1.0, 2.0), "is_part": False}
    named = {"case": f"case of {rank}", "rank": rank, "dice": 0.5, "classes": ("background", "csf", "grey matter")}
    return CasePicture(**(named | place | pngs | fields))


def pictured(records, *pictures):
    """The same records with these pictures in each trial that ended."""
    shown = pictures or tuple(map(picture, ("hardest", "median", "best")))
    return replace(records, trials=tuple(replace(t, pictures=shown if t.record else ()) for t in records.trials))


# what every study has


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(made_study(), id="two variants"),
        pytest.param(pictured(made_study()), id="pictures"),
        pytest.param(dropout_sweep(num_seeds=3), id="sweep"),
        pytest.param(made_study(epochs=1, seeds=[0]), id="one epoch"),
        pytest.param(made_study(every=10), id="no curves"),
        pytest.param(made_study(diverged=[("p=0.1", 2)], collapsed=[("p=0", 1)]), id="failed"),
        pytest.param(made_study(diverged=[(v, s) for v in DROPOUT for s in range(5)]), id="all failed"),
        pytest.param(made_study(running={(v, s): 0 for v in DROPOUT for s in range(5)}), id="nothing yet"),
        pytest.param(made_study(running={("p=0.1", s): 4 for s in range(5)}), id="running"),
        pytest.param(made_study(idle=["p=0.1"]), id="no effect"),
        pytest.param(made_study(metric="hd95_mm"), id="HD95"),
        pytest.param(made_study({"unet2": (0.9, 0.8)}, control=None, axes=()), id="one variant"),
        pytest.param(pictured(made_study({"unet2": (0.9, 0.8)}, control=None, axes=(), seeds=[0])), id="one run"),
        pytest.param(made_study(control=None), id="no control"),
        pytest.param(with_classes(made_study(), {f"class {k}": 0.5 for k in range(24)}), id="24 classes"),
        pytest.param(made_study({f"v{k}": (0.9, 0.8) for k in range(40)}, seeds=[0, 1]), id="40 variants"),
    ],
)
def test_a_page_is_well_formed_and_loads_nothing(records):
    page = page_of(records)
    assert page.of("main")
    assert page.elements[0][1]["lang"] == "en"


@pytest.mark.slow
@pytest.mark.parametrize("stem", ["anisotropic", "dropout-is-a-coin", "rare-class", "strong-folds"])
def test_the_page_of_a_recorded_study_is_well_formed(stem):
    records = read_study(ROOT / f"experiments/{stem}.jsonl")
    page = page_of(records)
    assert "no pictures of cases" in page.words
    assert methods_of(summarize_study(records), records).references


def test_text_of_users_and_files_stays_text():
    names = {f"{NASTY} {k}": pair for k, pair in enumerate(DROPOUT.values())}
    study = made_study(names, name=NASTY, question=NASTY, command=f"dlx run '{NASTY}'", axis=NASTY)
    study = with_classes(study, {NASTY: 0.8, "b": 0.7})
    shown = picture(case=NASTY, classes=("background", NASTY, "b"))
    page = page_of(pictured(study, shown))
    assert "<script>alert('x')</script>" in page.words
    assert "{{ 7 * 7 }} ${x}" in page.words
    assert "\u202e" not in page.words
    assert r"\u202egnp.evil\u202c" in page.words
    assert len(page.of("bdi")) > 20


def test_a_label_of_200_letters_is_whole_and_may_break():
    label = "y" * 200
    page = page_of(made_study({"p=0": (0.9, 0.8), label: (0.9, 0.82)}))
    assert page.words.count(label) >= 5
    style = (ROOT / "src/dlx/report/page/templates/style.css").read_text()
    assert "overflow-wrap: anywhere" in style


def test_a_page_says_first_what_was_found_and_for_whom():
    study = made_study(
        {"p=0": (0.93, 0.80), "p=0.1": (0.91, 0.84)}, question="Does it help?", command="dlx run sweep.toml"
    )
    words = page_of(study).words
    question, verdict = words.index("Does it help?"), words.index(headline(summarize_study(study)))
    assert question < verdict < words.index("After the last epoch") < words.index("Methods", words.index("Spread of"))
    assert "dlx run sweep.toml" in words
    assert "p=0.1 is better than the control (p=0) for new seeds: validation Dice +0.0" in words
    assert "95 % interval" in words


def test_one_run_has_its_scores_by_class_and_no_verdict():
    words = page_of(made_study({"unet2": (0.9, 0.8)}, control=None, axes=(), seeds=[0])).words
    assert "unet2 reaches a validation Dice of 0.8" in words
    assert "Difference from the control" not in words
    assert "Scores of each class" in words
    assert "HD95 (mm)" in words


def test_several_runs_of_one_variant_are_listed():
    words = page_of(made_study({"unet2": (0.9, 0.8)}, control=None, axes=(), seeds=[0, 3])).words
    assert "Each run" in words
    assert "seed 3" in words


def test_all_settings_and_the_failed_trials_are_there():
    words = page_of(made_study(diverged=[("p=0.1", 2)])).words
    assert '"width": 8' in words
    assert "diverged: the loss is nan in epoch 4" in words
    assert "1 of 10 trials diverged or failed" in words
    assert "commit: 0123456" in words


def test_wide_tables_are_shown_in_parts_that_repeat_their_first_column():
    table = Table(plain("variant", *map(str, range(24))), (plain("a", *map(str, range(24))),))
    parts = [*in_parts(table)]
    assert [len(part.titles) for part in parts] == [10, 10, 7]
    assert all(part.titles[0] == ("variant",) and part.rows[0][0] == ("a",) for part in parts)
    narrow = replace(table, titles=table.titles[:10], rows=(table.rows[0][:10],))
    assert [*in_parts(narrow)] == [narrow]


# pictures


def test_cases_are_shown_as_image_truth_prediction_and_error():
    wrong = SLICE.copy()
    wrong[0] = (1, 0, 1)  # too much, missed, another class
    page = page_of(pictured(made_study(seeds=[0]), picture(prediction=wrong)))
    images = [attributes for _, attributes, _ in page.of("image")]
    assert len(images) == 2 * 4  # of the control and of the other variant
    shown = [Image.open(BytesIO(base64.b64decode(image["href"].partition(",")[2]))) for image in images[:4]]
    assert [np.asarray(one).tolist() for one in shown[1:]] == [SLICE.tolist(), wrong.tolist(), [[2, 1, 3], [0, 0, 0]]]
    assert len({image["id"] for image in images if "id" in image}) == 2
    uses = [attributes["href"] for _, attributes, inside in page.of("use") if "svg" in inside]
    assert uses.count(f"#{images[0]['id']}") == 3
    assert "Hardest case: case of hardest, Dice 0.500 Axial slice z = 3 (of 0 to 9), pixels of 2 x 1 mm." in page.words
    assert [image["width"] for image in images[:4]] == ["200"] * 4  # three pixels of 2 mm
    assert float(images[0]["height"]) == pytest.approx(200 / 3, abs=0.01)  # two of 1 mm


def test_an_image_of_one_slice_names_no_plane():
    page = page_of(pictured(made_study(seeds=[0]), picture(num_slices=1, slice=0, plane="", is_part=True)))
    assert "The only slice, pixels of 2 x 1 mm; only the part with labels." in page.words


def test_pictures_can_be_left_out_and_trials_without_them_say_so():
    assert not page_of(pictured(made_study()), has_pictures=False).of("image")
    assert "There are no pictures of cases" in page_of(made_study()).words


def test_ignored_voxels_and_classes_are_named_in_the_legend():
    truth = SLICE.copy()
    truth[1] = 255
    words = page_of(pictured(made_study(seeds=[0]), picture(truth=truth, prediction=truth))).words
    assert "Truth and prediction: csf grey matter ignored" in words


def test_an_archive_holds_the_pictures_that_the_page_shows(tmp_path):
    study = pictured(made_study({**DROPOUT, "p=0.2": (0.9, 0.7)}, seeds=[0, 1]))
    summary = summarize_study(study)
    files = write_beside(tmp_path / "made", summary, study)
    assert {path.name for path in files} >= {"made.jsonl", "made.md", "made.html", "made.svg"}
    again = read_study(tmp_path / "made.jsonl")
    with_some = [trial.entry for trial in again.trials if trial.pictures]
    assert [(entry.label, entry.seed) for entry in with_some] == [("p=0", 0), ("p=0.1", 0)]
    page = (tmp_path / "made.html").read_text()
    assert page.count("data:image/png") == 2 * 3 * 4
    assert html_of(again) == page


@pytest.mark.slow
def test_an_archive_without_pictures_has_none_of_the_folders(tmp_path):
    study = pictured(made_study(seeds=[0]))
    write_beside(tmp_path / "none", summarize_study(study), study, has_pictures=False)
    assert "pictures" not in (tmp_path / "none.jsonl").read_text()
    assert "data:image" not in (tmp_path / "none.html").read_text()


# the sentence on top


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"variants": {"p=0": (0.9, 0.8), "p=0.1": (0.9, 0.7)}}, "p=0.1 is worse than the control (p=0) for new seeds"),
        ({"spread": 0.08}, "Whether p=0.1 is better or worse than the control (p=0) for new seeds cannot be told"),
        ({"variants": dict.fromkeys(DROPOUT, (0.9, 0.8)), "spread": 1e-4}, "differs from the control (p=0) by no more"),
        ({"collapsed": [("p=0.1", 1)]}, "p=0.1 cannot be compared with the control (p=0): runs collapsed"),
        ({"idle": ["p=0.1"]}, "The setting of p=0.1 had no effect"),
        ({"running": {("p=0.1", 4): 3}}, "No verdict on p=0.1 against the control (p=0) yet: 4 of 5 pairs"),
        ({"running": {(v, s): 0 for v in DROPOUT for s in range(5)}}, "no trial of 10 has ended"),
        ({"control": None}, "Nothing was compared, as the study has no control; p=0.1 has the highest validation Dice"),
        ({"control": None, "metric": "hd95_mm"}, "p=0.1 has the lowest HD95 (mm)"),
    ],
)
def test_the_verdict_in_one_sentence(options, words):
    sentence = headline(summarize_study(made_study(**options)))
    assert words in sentence
    assert sentence.count(". ") == 0
    assert sentence.endswith(".")


def test_of_many_variants_the_sentence_names_those_that_differ():
    variants = {"p=0": (0.9, 0.8), "a, b": (0.9, 0.85), "c": (0.9, 0.7), "d": (0.9, 0.8)}
    sentence = headline(summarize_study(made_study(variants, spread=0.003)))
    beside = re.escape("than the control (p=0) in validation Dice for new seeds")
    assert re.match(rf"Of 3 variants, 1 is better {beside}: 'a, b' \(\+0\.0\d+\); 1 is worse: c \(-0\.", sentence)


# charts


def test_ticks_are_round_numbers_within_the_ends():
    assert ticks_within(0.0, 1.0, 6) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks_within(-0.021, 0.033, 5) == [-0.02, 0.0, 0.02]
    assert ticks_within(0.0, 0.002, 5) == [0.0, 0.0005, 0.001, 0.0015, 0.002]
    assert ticks_within(3.0, 3.0, 5) == [3.0]


def test_a_thinned_curve_keeps_its_ends():
    curve = {epoch: float(epoch) for epoch in range(1, 1001)}
    kept = thinned(curve, 100)
    assert len(kept) <= 101
    assert {1, 1000} <= set(kept)
    assert thinned({}, 10) == {}


def test_an_element_escapes_its_attributes_and_text():
    assert element("text", "<b>", x=1.5, data_x='"') == '<text x="1.5" data-x="&#34;">&lt;b&gt;</text>'
    assert element("line", class_="a", x1=None) == '<line class="a"/>'


def with_rates(records, rates):
    """The same records with these rates in each epoch: a function of label and epoch."""
    trials = []
    for trial in records.trials:
        lines = []
        for line in trial.epochs:
            lr = rates(trial.entry.label, line.result.epoch)
            lines.append(line.model_copy(update={"result": line.result.model_copy(update={"lr": lr})}))
        trials.append(replace(trial, epochs=tuple(lines)))
    return replace(records, trials=tuple(trials))


def test_variants_of_the_same_rates_share_a_chart_and_groups_of_the_same_rates_a_line():
    study = made_study({"a": (0.9, 0.8), "b": (0.9, 0.8), "c": (0.9, 0.8)}, running={("a", 4): 3})
    assert [panel.labels for panel in rate_panels(summarize_study(study))] == [("a", "b", "c")]

    def rates(label, epoch):
        return {"encoder": 0.1 if label == "c" else 0.01, "decoder": 0.01, "head": 0.01}

    first, second = rate_panels(summarize_study(with_rates(study, rates)))
    assert (first.labels, [line.groups for line in first.lines]) == (("a", "b"), [""])
    assert (second.labels, [line.groups for line in second.lines]) == (("c",), ["encoder", "decoder, head"])
    page = page_of(with_rates(study, rates))
    assert "decoder, head: 0.01" in page.words


def test_variants_that_have_not_ended_share_the_chart_of_those_with_the_same_rates_so_far():
    running = {("a", 0): 7, ("b", 0): 3, ("c", 0): 1}
    schedulers = {"a": "cosine", "b": "cosine", "c": "constant"}
    dice = dict.fromkeys("abc", (0.9, 0.8))
    study = with_rates(
        made_study(dice, seeds=[0], running=running, schedulers=schedulers), lambda _, epoch: {"all": 0.1 / epoch}
    )
    first, second = rate_panels(summarize_study(study))
    assert (first.labels, second.labels) == (("a", "b"), ("c",))
    assert max(first.lines[0].rates) == 7


# Methods

SETTINGS = {
    "channels": ["T1"],
    "classes": ["background", "lesion"],
    "data": {"normalize": {"name": "ct", "args": {}}},
    "split": {"train": ["a", "c"], "val": ["b"]},
    "batch": {"kind": "patches", "size": 2, "patch_size_px": [40, 56, 40], "foreground_fraction": 0.25},
    "model": {"name": "unet-resnet34", "args": {"norm": "group"}},
    "init": {"name": "kaiming-normal", "args": {}},
    "dropout": {"p": 0.2, "kind": "dropout3d", "where": "decoder"},
    "augment": {"flip": 0.5, "rotate_deg": 15.0},
    "loss": [{"name": "lovasz", "args": {}}, {"name": "focal", "args": {}}],
    "optimizer": {"name": {"name": "sgd", "args": {"momentum": 0.9}}, "lr": 0.01, "weight_decay": 3e-5},
    "scheduler": {"name": "poly", "args": {}},
    "train": {"epochs": 10, "steps_per_epoch": 50, "ema_decay": 0.99},
    "evaluate": {"surface_tolerance_mm": 2.0, "overlap_fraction": 0.5, "mirror": True},
    "compute": {"device": "cpu", "precision": "float32", "threads": 1},
}


def with_settings(records, settings):
    return replace(
        records,
        trials=tuple(
            replace(t, record=t.record and t.record.model_copy(update={"settings": settings})) for t in records.trials
        ),
    )


def test_methods_say_what_was_trained_on_what_with_references():
    data = {"source": {"name": "folder", "args": {"path": "/scans/Task01"}}}
    study = with_settings(made_study(settings={"data": data}), SETTINGS)
    words = page_of(study).words.split("Methods Made from")[1]
    for said in (
        "The images were those of the data set Task01.",
        "1 channel (T1), and masks 1 class beside the background (lesion)",
        "2 subjects trained each network and 1 other validated it",
        "a U-Net of volumes [2, 3] whose encoder is ResNet-34 [4] with group normalisation [5]",
        "10 epochs of 50 steps, each on 2 random patches of 40 x 56 x 40 voxels",
        "25 % were centred on a labelled voxel",
        "random flips, rotations by up to 15 degrees",
        "the sum of the Lovász-softmax loss",
        "stochastic gradient descent with momentum",
        "learning rate 0.01, weight decay 3e-05, momentum 0.9",
        "exponential moving average (decay 0.99)",
        "overlap by at least 50 %, averaged over mirrored copies",
        "surface Dice at a tolerance of 2 mm",
        "1 variant (p=0.1) was compared with the control (p=0), each trained from 5 seeds",
        "differ in dropout.p",
        "PyTorch 2.11.0",
        "commit 0123456",
    ):
        assert said in words
    found = methods_of(summarize_study(study), study)
    cited = {key for key, reference in REFERENCES.items() if reference in found.references}
    assert cited == {
        *("nnunet", "unet", "unet3d", "resnet", "group", "kaiming", "dropout", "lovasz", "focal", "sgd", "poly"),
        *("dice", "surface-dice", "tost", "torch"),
    }


def with_result(records, **changes):
    """The same records with other fields of the results of `p=0.1`."""
    trials = (
        replace(t, record=t.record.model_copy(update={"result": t.record.result.model_copy(update=changes)}))
        if t.entry.label == "p=0.1"
        else t
        for t in records.trials
    )
    return replace(records, trials=tuple(trials))


def with_settings_of(records, label, settings):
    """The same records with other settings of one variant."""
    trials = (
        replace(t, record=t.record.model_copy(update={"settings": settings})) if t.entry.label == label else t
        for t in records.trials
    )
    return replace(records, trials=tuple(trials))


def methods_text(records):
    return page_of(records).words.split("Methods Made from")[1].split("References")[0]


def test_methods_say_only_of_equal_networks_and_patches_that_they_were_shared():
    study = with_settings(made_study(), SETTINGS)
    weights, patches = "started from the same weights", "saw the same patches"
    assert f"Trials of one seed {weights} and {patches} in the same order" in methods_text(study)
    other = with_settings_of(study, "p=0.1", SETTINGS | {"model": {"name": "unet2", "args": {"width": 4}}})
    assert weights not in methods_text(other)
    assert f"Trials of one seed {patches}" in methods_text(other)
    drawn = methods_text(with_result(study, batches_hash="of other patches"))
    assert weights in drawn
    assert patches not in drawn
    neither = methods_text(with_result(other, batches_hash="of other patches"))
    assert "Each variant was compared with the control by differences in validation Dice, paired by seed" in neither


def test_the_grounds_of_verdicts_name_what_trials_of_a_seed_share():
    study = with_settings(made_study(), SETTINGS)
    assert "paired by seed (same initial weights, data order and augmentation);" in page_of(study).words
    mirrored = SETTINGS | {"augment": {"flip": 0.0}}
    assert "(same initial weights and data order);" in page_of(with_settings_of(study, "p=0.1", mirrored)).words
    drawn = with_result(study, batches_hash="of other patches")
    assert "(same initial weights);" in page_of(drawn).words
    other = with_settings_of(drawn, "p=0.1", SETTINGS | {"init": {"name": "orthogonal", "args": {}}})
    assert "paired by seed; the mean over the pairs" in page_of(other).words


def test_methods_say_how_far_an_unfinished_study_is():
    study = with_settings(made_study(running={("p=0.1", 3): 2, ("p=0.1", 4): 0}), SETTINGS)
    assert "Of 10 trials, 8 had ended" in methods_text(study)
    assert "had ended" not in methods_text(with_settings(made_study(), SETTINGS))


@pytest.mark.parametrize(
    ("source", "spacing", "said"),
    [
        ("folder", [0.5, 0.5, 3.0], "resampled to voxels of 0.5 x 0.5 x 3 mm (x, y, z)"),
        ("folder", "auto", "images were resampled to the median one"),
        ("folder", "none", None),
        ("phantom", "auto", None),
    ],
)
def test_methods_say_to_which_voxels_images_were_resampled(source, spacing, said):
    data = {"source": {"name": source, "args": {}}, "spacing_mm": spacing}
    words = methods_text(with_settings(made_study(settings={"data": data}), SETTINGS))
    assert (said in words) if said else ("resampled" not in words)


def test_methods_of_gradient_descent_without_momentum_name_none():
    optimizer = SETTINGS["optimizer"] | {"name": {"name": "sgd", "args": {"momentum": 0.0}}}
    study = with_settings(made_study(), SETTINGS | {"optimizer": optimizer})
    assert "stochastic gradient descent (" in methods_text(study)
    found = methods_of(summarize_study(study), study)
    assert REFERENCES["sgd"] not in found.references


def test_methods_of_a_network_with_rates_of_its_own_claim_no_rate():
    study = with_settings(made_study(), SETTINGS | {"dropout": {"p": 0.0, "own_rates": True}})
    assert "the control has the network's own rates" in methods_text(study)
    assert "in the control p is" not in methods_text(study)


def test_a_control_without_dropout_does_not_differ_in_the_kind_of_it():
    study = with_settings(made_study(), SETTINGS | {"dropout": {"p": 0.0}})
    page = page_of(
        with_settings_of(study, "p=0.1", SETTINGS | {"dropout": {"p": 0.1, "kind": "dropout", "where": "every"}})
    )
    words = page.words.split("What the variants change")[1]
    assert "dropout.p: 0.0 -> 0.1" in words
    assert "dropout.kind" not in words.split("Settings")[0]


def test_a_legend_names_a_band_only_if_one_is_drawn():
    band = "mean ± 1 standard deviation"
    assert band in page_of(made_study()).words.split("Dice over epochs")[1].split("Learning rates")[0]
    collapsed = made_study(collapsed=[("p=0", 1), ("p=0.1", 2)])
    assert band not in page_of(collapsed).words.split("Dice over epochs")[1].split("Learning rates")[0]


def test_the_sentence_on_variants_does_not_blame_them_for_a_control_that_collapsed():
    study = made_study({"p=0": (0.9, 0.8), "p=0.1": (0.9, 0.8), "p=0.2": (0.9, 0.8)}, collapsed=[("p=0", 1)])
    assert "2 are not comparable, as runs collapsed: p=0.1, p=0.2." in page_of(study).words


def test_methods_of_records_of_any_version_or_content_are_made():
    strange = {
        "channels": 3,
        "model": {"name": ["x"], "args": "y"},
        "optimizer": {"name": {"name": 7}, "lr": "fast"},
        "loss": "ce",
        "batch": {"patch_size_px": 5},
        "augment": [1],
        "evaluate": 3,
        "scheduler": {"name": {}},
    }
    for settings in ({}, strange):
        page_of(with_settings(made_study(), settings))


def test_every_reference_is_complete_and_links_to_a_doi_or_a_publisher():
    for reference in REFERENCES.values():
        assert re.search(r"\((19|20)\d\d\)\. .+\.$", reference.text)
        assert reference.url.startswith(
            ("https://doi.org/10.", "https://proceedings.mlr.press/", "https://jmlr.org/", "https://www.jstor.org/")
        )
    assert len({reference.url for reference in REFERENCES.values()}) == len(REFERENCES)


# the commands


@pytest.mark.slow
def test_training_writes_the_page_of_its_run(dlx, tmp_path):
    result = dlx("train", *SMALL_ARGS, "--epochs", "1", "--out", "run")
    assert f"{Path('run/report.html')}" in result.output
    page = Page((tmp_path / "run/report.html").read_text())
    assert len(page.of("image")) == 4
    dlx("report", "run", "--no-pictures")
    assert not Page((tmp_path / "run/report.html").read_text()).of("image")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("report.*")}
    assert set(before) >= {"report.html", "report.md", "report.svg", "report.png"}
    dlx("train", *SMALL_ARGS, "--epochs", "2", "--out", "run")  # another run: no file shows the earlier one
    assert [name for name, content in before.items() if (tmp_path / "run" / name).read_bytes() == content] == []
