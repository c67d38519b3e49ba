import re
import tomllib
from pathlib import Path

import pytest

from dlx.settings.layers import merge, read_recipe
from dlx.settings.spec import EvaluateSpec
from dlx.study.axes import Axis, make_variants
from dlx.study.metrics import EPOCH_METRICS, METRICS, TRIAL_METRICS, epoch_value, is_of_epochs
from dlx.study.results import EpochResult
from dlx.study.study import check_measured, make_study, read_study_file, study_from_file
from dlx.system.errors import SettingError

BASE = merge(read_recipe("quick"), {"data": {"source": "phantom:subjects=4,size=24"}})


def labels(*axes):
    return [variant.label for variant in make_variants(BASE, [Axis(**axis) for axis in axes])]


def study(document, **changes):
    file = read_study_file(document, "study.toml")
    return study_from_file(file, "study", merge(read_recipe(file.recipe), file.base), **changes)


def test_axes_multiply_and_labels_name_what_is_set():
    assert labels({"key": "dropout.p", "values": "0..0.2:0.1"}, {"key": "model.width", "values": [4, 8]}) == [
        "p=0, width=4",
        "p=0, width=8",
        "p=0.1, width=4",
        "p=0.1, width=8",
        "p=0.2, width=4",
        "p=0.2, width=8",
    ]


def test_a_part_says_its_own_name_in_a_label():
    axis = {"key": "scheduler", "values": ["constant", "step:step_size=3,gamma=0.5"]}
    assert labels(axis) == ["constant", "step:step_size=3,gamma=0.5"]


def test_paired_axes_go_together():
    axis = Axis(keys=("dropout.p", "scheduler"), values=((0, "constant"), (0.1, "cosine")))
    first, second = make_variants(BASE, [axis])
    assert (first.label, second.label) == ("p=0, constant", "p=0.1, cosine")
    assert (second.spec.dropout.p, second.spec.scheduler.name) == (0.1, "cosine")


def test_an_axis_of_tables_sets_anything_under_a_label():
    tables = ({"label": "as it is"}, {"label": "decay", "optimizer": {"weight_decay": 0.5}, "train": {"epochs": 2}})
    plain, decay = make_variants(BASE, [Axis(name="remedy", tables=tables)])
    assert plain.values == {"remedy": "as it is"}
    assert (decay.spec.optimizer.weight_decay, decay.spec.train.epochs) == (0.5, 2)
    assert decay.spec.optimizer.lr == plain.spec.optimizer.lr


def test_trials_go_seed_by_seed_so_that_each_whole_seed_can_be_compared():
    small = study({"axes": {"dropout.p": [0, 0.1]}, "seeds": [3, 5]})
    assert [(trial.seed, trial.label) for trial in small.trials()] == [
        (3, "p=0"),
        (3, "p=0.1"),
        (5, "p=0"),
        (5, "p=0.1"),
    ]


def test_the_first_variant_is_the_control_unless_another_is_named():
    assert study({"axes": {"dropout.p": [0.2, 0]}}).control == "p=0.2"
    assert study({"axes": {"dropout.p": [0.2, 0]}, "control": "p=0"}).control == "p=0"


def test_what_one_variant_needs_of_validation_all_have():
    variants = make_variants(BASE, [Axis(key="scheduler", values=("constant", "plateau"))])
    assert [variant.spec.evaluate.every for variant in variants] == [1, 1]
    alone = make_variants(BASE, [Axis(key="scheduler", values=("constant", "cosine"))])
    assert [variant.spec.evaluate.every for variant in alone] == [None, None]


def test_a_claim_that_names_no_metric_is_about_the_studys():
    claims = [{"text": "a", "kind": "less", "variant": "p=0.1"}]
    claims.append(claims[0] | {"metric": "val_dice"})
    made = study({"axes": {"dropout.p": [0, 0.1]}, "metric": "gap", "claims": claims})
    assert [claim.metric for claim in made.claims] == ["gap", "val_dice"]
    assert study({"axes": {"dropout.p": [0, 0.1]}, "claims": claims[:1]}).claims[0].metric == "val_dice"


def test_the_study_in_the_docs_can_be_run_with_each_of_the_pages_parts():
    page = (Path(__file__).parent.parent / "docs/studies.md").read_text(encoding="utf-8")
    whole, tables, claims = map(tomllib.loads, re.findall(r"```toml\n(.*?)```", page, re.DOTALL))
    made = study(whole)
    assert (len(made.variants), made.control) == (8, "p=0, width=8")
    assert len(study({k: v for k, v in whole.items() if k != "control"} | tables).variants) == 3
    rates = {"axes": [{"key": "dropout.p", "values": "0..0.3"}]}
    assert len(study(rates | {"claims": claims["claims"][:2]}).claims) == 2
    tail = {"axes": [{"key": "scheduler", "values": ["constant", "linear-tail"]}], "base": {"train": {"epochs": 100}}}
    assert len(study(tail | {"claims": claims["claims"][2:]}).claims) == 1


def test_options_go_over_the_files_base_and_its_axes_over_both():
    document = {"base": {"train": {"epochs": 3}}, "axes": {"train.steps_per_epoch": [2, 4]}}
    file = read_study_file(document, "study.toml")
    made = study_from_file(file, "study", merge(BASE, file.base, {"train": {"epochs": 7, "steps_per_epoch": 9}}))
    assert [(v.spec.train.epochs, v.spec.train.steps_per_epoch) for v in made.variants] == [(7, 2), (7, 4)]


P = {"axes": {"dropout.p": [0, 0.1, 0.2]}}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "axes"),
        ({**P, "qestion": "?"}, "unknown key 'qestion': did you mean 'question'"),
        ({**P, "control": "p=0.7"}, "no variant 'p=0.7'"),
        ({**P, "seeds": []}, "seeds"),
        ({**P, "seeds": 0}, "seeds: 0 .*1 to 10,000"),
        ({**P, "seeds": 2**62}, "seeds: .*1 to 10,000"),
        ({"axes": {"dropout": {"p": [0, 0.1]}}}, r'in quotes: "dropout.p" = \[...\]'),
        ({**P, "metric": "val_dcie"}, "metric"),
        ({**P, "smallest_effect": 0}, "smallest_effect"),
        ({**P, "direction": "up"}, "direction"),
        ({**P, "direction": "lower"}, "direction 'lower': of val_dice higher is better"),
        ({**P, "metric": "gap", "direction": "higher"}, "direction 'higher': of gap lower is better"),
        ({"axes": {"dropout.p": []}}, "at least one value"),
        ({"axes": {"dropout.p": [0, 0]}}, "two variants are named 'p=0'"),
        ({"axes": {"dropout.p": [0, 1.5]}}, "variant 'p=1.5': dropout.p"),
        ({"axes": [{"keys": ["dropout.p", "scheduler"], "values": [[0]]}]}, "one for each key"),
        ({"axes": [{"name": "x", "tables": [{"train": {}}]}]}, "needs a label"),
        ({"axes": [{"key": "dropout.p", "keys": ["a"], "values": [1]}]}, "axes.*takes one of: key"),
        ({**P, "claims": [{"text": "t", "kind": "greater"}]}, "claims.*'greater' needs a variant"),
        ({**P, "claims": [{"text": "t", "kind": "greater", "variant": "p=9"}]}, "no variant 'p=9'"),
        ({**P, "claims": [{"text": "t", "kind": "within", "variant": "p=0.1"}]}, "margin above 0"),
        (
            {**P, "claims": [{"text": "t", "kind": "less", "variant": "p=0.1", "metric": "gap", "window": [1, 2]}]},
            "claims.*window",
        ),
        ({**P, "claims": [{"text": "t", "kind": "best", "variant": "p=0", "among": ["p=0"]}]}, "claims.*'best' needs"),
        ({**P, "claims": [{"text": "t", "kind": "falls", "axis": "x"}]}, "axis must be one of dropout.p"),
        ({**P, "claims": [{"text": "t", "kind": "less", "variant": "p=0.1", "window": [5, 3]}]}, "first, last"),
        ({**P, "claims": [{"text": "t", "kind": "less", "variant": "p=0.1", "window": [5, 99]}]}, "epoch 99 of 10"),
        ({"axes": {"scheduler": ["constant", "cosine"]}, "claims": [{"text": "t", "kind": "rises"}]}, "numbers"),
        (
            {
                "axes": {"dropout.p": [0, 0.1], "scheduler": ["constant", "cosine"]},
                "claims": [
                    {"text": "t", "kind": "rises", "axis": "dropout.p", "among": ["p=0, constant", "p=0, cosine"]}
                ],
            },
            "two or more different numbers on the axis 'dropout.p'",
        ),
    ],
)
def test_a_study_that_cannot_be_is_refused_with_the_cause(document, words):
    with pytest.raises(SettingError, match=words):
        study(document)


def test_the_direction_is_the_metrics_own_unless_it_is_given():
    assert study(P).direction == "higher"
    assert study({**P, "metric": "hd95_mm"}).direction == "lower"
    assert study({**P, "metric": "gap", "direction": "lower"}).direction == "lower"


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_read_of_trials_or_of_epochs_and_its_epochs_have_it(name):
    epoch = EpochResult(epoch=1, lr={}, loss=0.5)
    assert name in TRIAL_METRICS or name in EPOCH_METRICS
    assert is_of_epochs(name) == hasattr(epoch, name)
    assert is_of_epochs(f"{name}:edema") == hasattr(epoch, f"{name}_per_class")
    assert epoch_value(epoch, name) == (0.5 if name == "loss" else None)


def checked(document, every, **evaluate):
    """Checks the study as it would be resolved with validation after every so many of 10 epochs."""
    made = study(document)
    specs = {v.label: v.spec for v in made.variants}
    for label, spec in specs.items():
        specs[label] = spec.model_copy(update={"evaluate": EvaluateSpec(every=every, **evaluate)})
    check_measured(made, specs)


def over(window, metric="val_dice", **fields):
    claim = {"text": "t", "kind": "greater", "variant": "p=0.1", "metric": metric, "window": window, **fields}
    return {**P, "claims": [claim]}


@pytest.mark.parametrize(
    ("document", "every", "evaluate", "words"),
    [
        ({**P, "metric": "jitter"}, 2, {}, "metric 'jitter': validation every 2 epochs, .*: set evaluate.every=1$"),
        (over([4, 6]), 10, {}, "claim 't': validation once, at the end, never in epochs 4-6: set evaluate.every=6$"),
        (over([9, 10], than_window=[1, 2]), 5, {}, "never in epochs 1-2: set evaluate.every=2$"),
        (over([9, 10], "gap_subset"), 1, {"train_subset": 0}, "set evaluate.train_subset=2$"),
        (over([9, 10], "train_soft_dice_running"), 1, {}, "set evaluate.soft_dice=true$"),
    ],
)
def test_what_would_not_be_measured_is_refused_with_the_setting_to_change(document, every, evaluate, words):
    with pytest.raises(SettingError, match=words):
        checked(document, every, **evaluate)


def test_what_is_measured_is_not_refused():
    checked({**P, "metric": "jitter"}, 1)
    checked(over([4, 6]), 5)
    checked(over([2, 3], "loss"), 10)
    checked(over([1, 2], "train_soft_dice_running"), 10, soft_dice=True)


def test_a_claim_may_speak_of_the_last_epoch_or_of_a_window():
    claims = [{"text": "t", "kind": "less", "variant": "p=0.1", "metric": "train_dice_subset", "window": [8, 10]}]
    (claim,) = study({**P, "claims": claims}).claims
    assert claim.window == (8, 10)


def test_a_study_of_one_variant_has_no_control():
    assert make_study(name="x", variants=make_variants(BASE, []), seeds=(0,)).control is None
