import pytest

from dlx.errors import SettingError
from dlx.settings import merge, read_recipe
from dlx.studies import Axis, make_study, make_variants, read_study_file, study_from_file

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
        ({**P, "metric": "val_dcie"}, "metric"),
        ({**P, "smallest_effect": 0}, "smallest_effect"),
        ({"axes": {"dropout.p": []}}, "at least one value"),
        ({"axes": {"dropout.p": [0, 0]}}, "two variants of the name 'p=0'"),
        ({"axes": {"dropout.p": [0, 1.5]}}, "variant 'p=1.5': dropout.p"),
        ({"axes": [{"keys": ["dropout.p", "scheduler"], "values": [[0]]}]}, "one for each key"),
        ({"axes": [{"name": "x", "tables": [{"train": {}}]}]}, "needs a label"),
        ({"axes": [{"key": "dropout.p", "keys": ["a"], "values": [1]}]}, "has one of"),
        ({**P, "claims": [{"text": "t", "kind": "greater"}]}, "names a variant"),
        ({**P, "claims": [{"text": "t", "kind": "greater", "variant": "p=9"}]}, "no variant 'p=9'"),
        ({**P, "claims": [{"text": "t", "kind": "within", "variant": "p=0.1"}]}, "margin above 0"),
        (
            {**P, "claims": [{"text": "t", "kind": "less", "variant": "p=0.1", "metric": "gap", "window": [1, 2]}]},
            "window goes with an epoch's figure",
        ),
        ({**P, "claims": [{"text": "t", "kind": "best", "variant": "p=0", "among": ["p=0"]}]}, "needs rivals"),
        ({**P, "claims": [{"text": "t", "kind": "falls", "axis": "x"}]}, "axis must be one of dropout.p"),
        ({**P, "claims": [{"text": "t", "kind": "less", "variant": "p=0.1", "window": [5, 3]}]}, "first, last"),
        ({**P, "claims": [{"text": "t", "kind": "less", "variant": "p=0.1", "window": [5, 99]}]}, "epoch 99 of 10"),
        ({"axes": {"scheduler": ["constant", "cosine"]}, "claims": [{"text": "t", "kind": "rises"}]}, "numbers"),
    ],
)
def test_a_study_that_cannot_be_is_refused_with_the_cause(document, words):
    with pytest.raises(SettingError, match=words):
        study(document)


def test_a_claim_may_speak_of_the_last_epoch_or_of_a_window():
    claims = [{"text": "t", "kind": "less", "variant": "p=0.1", "metric": "train_dice_subset", "window": [8, 10]}]
    (claim,) = study({**P, "claims": claims}).claims
    assert claim.window == (8, 10)


def test_a_study_of_one_variant_has_no_control():
    assert make_study(name="x", variants=make_variants(BASE, []), seeds=(0,)).control is None
