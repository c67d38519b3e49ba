"""Splits: who trains and who validates, and that no person or image does both."""

import hashlib
import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from dlx.data.splits.choose import num_folds, split_cases
from dlx.data.splits.folds import assign_folds
from dlx.data.splits.groups import load_groups
from dlx.data.splits.split import Split, remarks_on_folds
from dlx.data.splits.splits_file import splits_document
from dlx.settings.spec import SplitSpec
from dlx.system.errors import DataError, SettingError

TEN = [f"subject-{number}" for number in range(1, 11)]


def split(
    ids: list[str],
    *,
    groups: dict[str, str] | None = None,
    same: tuple[str, ...] = (),
    classes: dict[str, list[str]] | None = None,
    **spec: Any,
) -> Split:
    """A split of cases that all differ, but for those of `same`, which hold one image."""
    hashes = {case: "same" if case in same else f"image of {case}" for case in ids}
    return split_cases(ids, hashes, groups or {}, SplitSpec(**spec), classes=classes)


def test_by_default_a_fifth_validates_and_both_sides_are_in_natural_order() -> None:
    result = split(TEN[::-1])
    assert (len(result.train), len(result.val)) == (8, 2)
    assert sorted(result.train + result.val) == sorted(TEN)
    assert list(result.train) == [case for case in TEN if case in result.train]
    assert result.remarks == ()


def test_a_named_case_validates_and_all_others_train() -> None:
    assert split(TEN, val="subject-1") == Split(train=tuple(TEN[1:]), val=("subject-1",))
    assert split(TEN, val="subject-10, subject-2").val == ("subject-2", "subject-10")


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(SettingError, match="no case 'subjet-3': did you mean 'subject-3'"):
        split(TEN, val="subjet-3")
    many = [f"case-{number:03d}" for number in range(260)]
    with pytest.raises(SettingError, match=r"did you mean 'case-00\d'.*255 more") as refused:
        split(many, val="cse-007")
    assert len(str(refused.value)) < 200


def test_naming_every_case_leaves_none_to_train() -> None:
    with pytest.raises(DataError, match=r"split.val"):
        split(TEN, val=",".join(TEN))


def test_fold_0_of_5_of_260_cases_has_208_to_train_and_52_to_validate() -> None:
    result = split([f"hippocampus_{number:03d}" for number in range(260)], fold=0)
    assert (len(result.train), len(result.val)) == (208, 52)


@pytest.mark.parametrize("num_cases", [5, 7, 10])
def test_every_case_validates_in_exactly_one_fold(num_cases: int) -> None:
    vals = [case for fold in range(5) for case in split(TEN[:num_cases], fold=fold).val]
    assert sorted(vals) == sorted(TEN[:num_cases])


def test_the_shuffle_is_the_one_of_the_hashes() -> None:
    # From b2sum, not from this code: printf '0\0subject-1' | b2sum -l 128, and so on, sorted.
    assert split(TEN, fold=0, folds=10).val == ("subject-4",)
    assert split(TEN, fold=9, folds=10).val == ("subject-7",)


def test_another_seed_gives_another_split_and_the_same_seed_the_same() -> None:
    assert split(TEN, seed=3) == split(TEN[::-1], seed=3)
    assert len({split(TEN, seed=seed).val for seed in range(8)}) > 4


@pytest.mark.parametrize(("fraction", "num_val"), [(0.01, 1), (0.25, 3), (0.5, 5), (0.99, 9)])
def test_each_side_keeps_at_least_one_case_whatever_the_fraction(fraction: float, num_val: int) -> None:
    result = split(TEN, val_fraction=fraction)
    assert (len(result.train), len(result.val)) == (10 - num_val, num_val)


@pytest.mark.parametrize("spec", [{"val": "subject-1", "fold": 0}, {"fold": 0, "val_fraction": 0.5}])
def test_two_ways_at_once_are_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="cannot be combined"):
        split(TEN, **spec)


def test_folds_that_the_data_do_not_have_are_refused() -> None:
    with pytest.raises(SettingError, match=r"split.fold: 5 .*0 to 4"):
        split(TEN, fold=5)
    with pytest.raises(SettingError, match=r"split.folds: 11 .* 10"):
        split(TEN, fold=0, folds=11)
    with pytest.raises(DataError, match="at least two cases"):
        split(["alone"])


def test_a_persons_cases_stay_on_one_side() -> None:
    groups = {case: f"person-{int(case[8:]) // 2}" for case in TEN}  # 1 | 2 3 | 4 5 | 6 7 | 8 9 | 10
    for fold in range(6):
        result = split(TEN, groups=groups, fold=fold, folds=6)
        assert {groups[case] for case in result.train}.isdisjoint(groups[case] for case in result.val)
        assert len({groups[case] for case in result.val}) == 1


def test_naming_one_case_of_a_person_whose_others_would_train_is_refused() -> None:
    groups = {"subject-3": "anna", "subject-7": "anna"}
    with pytest.raises(
        DataError, match=r"'subject-7' is in training and 'subject-3' in validation.*one person \('anna'\)"
    ):
        split(TEN, groups=groups, val="subject-3")
    assert split(TEN, groups=groups, val="subject-3,subject-7").val == ("subject-3", "subject-7")


def test_groups_of_one_change_nothing() -> None:
    assert split(TEN, groups={case: case for case in TEN}, fold=2) == split(TEN, fold=2)


def test_groups_that_fit_no_case_are_refused() -> None:
    with pytest.raises(DataError, match=r"groups.json: a name matches no case: 'Subject_1'"):
        split(TEN, groups={"Subject_1": "anna"})


def test_cases_of_one_person_alone_cannot_be_split() -> None:
    with pytest.raises(DataError, match="one person"):
        split(TEN, groups=dict.fromkeys(TEN, "anna"))


def test_one_image_under_two_names_on_two_sides_is_refused() -> None:
    with pytest.raises(
        DataError, match="'subject-4' is in training and 'subject-1' in validation, but both hold the same"
    ):
        split(TEN, same=("subject-1", "subject-4"), val="subject-1")
    assert len(split(TEN, same=("subject-2", "subject-4"), val="subject-1").train) == 9


def test_images_alike_once_prepared_are_refused_on_two_sides_and_named() -> None:
    hashes = {case: case for case in TEN}
    alike = hashes | {"subject-4": "same", "subject-1": "same"}
    with pytest.raises(
        DataError, match="'subject-4' is in training and 'subject-1' in validation, but both hold the same image, "
    ):
        split_cases(TEN, hashes, {}, SplitSpec(val=("subject-1",)), prepared_hashes=alike)
    assert split_cases(TEN, hashes, {}, SplitSpec(val=("subject-1", "subject-4")), prepared_hashes=alike).train


def test_persons_are_counted_where_one_has_several_scans() -> None:
    groups = {"subject-1": "anna", "subject-2": "anna", "subject-3": "ben", "subject-4": "ben"}
    assert split(TEN, groups=groups, val="subject-1,subject-2,subject-5").num_persons == (6, 2)
    assert split(TEN, groups=groups, val="subject-1,subject-2", train_subjects=7).num_persons == (7, 1)
    assert split(TEN, val="subject-1").num_persons is None


def test_one_wrong_name_among_right_ones_in_the_groups_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"groups.json: a name matches no case: 'subject-33' \(did you mean 'subject-3'"
    ):
        split(TEN, groups={"subject-1": "anna", "subject-33": "anna"})


def test_fewer_training_subjects_are_always_among_more() -> None:
    sets = [set(split(TEN, val="subject-1", train_subjects=n).train) for n in range(1, 10)]
    assert [len(chosen) for chosen in sets] == list(range(1, 10))
    assert all(fewer < more for fewer, more in pairwise(sets))
    assert (sets[0], sets[1]) == ({"subject-4"}, {"subject-4", "subject-10"})  # by b2sum, as above
    with pytest.raises(SettingError, match=r"split.train_subjects: 10 .* 9"):
        split(TEN, val="subject-1", train_subjects=10)


def test_a_training_subject_comes_with_all_its_cases() -> None:
    groups = {case: f"person-{int(case[8:]) % 5}" for case in TEN}
    result = split(TEN, groups=groups, fold=0, train_subjects=2)
    assert len(result.train) == 4
    assert len({groups[case] for case in result.train}) == 2


def write_json(path: Path, value: Any) -> str:
    path.write_text(json.dumps(value))
    return str(path)


def test_an_nnunet_split_file_is_used_unchanged(tmp_path: Path) -> None:
    folds = [{"train": ["b", "c"], "val": ["a"]}, {"train": ["a"], "val": ["c"]}]
    file = write_json(tmp_path / "splits_final.json", folds)
    assert split(["a", "b", "c"], file=file, fold=0) == Split(train=("b", "c"), val=("a",))
    second = split(["a", "b", "c"], file=file, fold=1)
    assert (second.train, second.val) == (("a",), ("c",))
    assert second.remarks == ("1 of 3 cases are on neither side of the split: 'b'",)
    with pytest.raises(SettingError, match=r"2 folds; choose one with split.fold"):
        split(["a", "b", "c"], file=file)
    with pytest.raises(SettingError, match="0 to 1"):
        split(["a", "b", "c"], file=file, fold=2)


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        ([{"train": ["a", "x"], "val": ["b"]}], "not in the data: 'x'"),
        ([{"train": ["a", "b"], "val": ["b"]}], "'b' would be in both"),
        ([{"train": ["a", "a"], "val": ["b"]}], "'a' occurs twice"),
        ([{"train": [], "val": ["b"]}], "'train' must be a list"),
        ([{"train": "a", "val": ["b"]}], "'train' must be a list"),
        ([{"train": ["a"]}], "'val' must be a list"),
        (["a"], "'train' must be a list"),
        ([], "expected a list of folds"),
        ({"train": ["a"], "val": ["b"]}, "expected a list of folds, not a table"),
    ],
)
def test_a_split_file_that_does_not_fit_is_refused(tmp_path: Path, value: Any, cause: str) -> None:
    with pytest.raises(DataError, match=cause):
        split(["a", "b"], file=write_json(tmp_path / "splits.json", value))


def test_a_split_file_that_is_missing_or_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        split(TEN, file=str(tmp_path / "none.json"))
    (tmp_path / "bad.json").write_text("[{")
    with pytest.raises(DataError, match="not valid JSON"):
        split(TEN, file=str(tmp_path / "bad.json"))


def test_groups_come_from_the_setting_else_from_the_folder(tmp_path: Path) -> None:
    assert load_groups(SplitSpec(), None) == {}
    assert load_groups(SplitSpec(), tmp_path) == {}
    write_json(tmp_path / "groups.json", {"a": "anna"})
    assert load_groups(SplitSpec(), tmp_path) == {"a": "anna"}
    other = write_json(tmp_path / "other.json", {"a": "ben"})
    assert load_groups(SplitSpec(groups=other), tmp_path) == {"a": "ben"}
    with pytest.raises(DataError, match="no such file"):
        load_groups(SplitSpec(groups=str(tmp_path / "none.json")), tmp_path)


@pytest.mark.parametrize(
    ("value", "cause"), [(["a"], "not a list"), ({"a": 1}, "not a number"), ({"a": "x\ny"}, "unprintable")]
)
def test_groups_of_another_form_are_refused(tmp_path: Path, value: Any, cause: str) -> None:
    write_json(tmp_path / "groups.json", value)
    with pytest.raises(DataError, match=cause):
        load_groups(SplitSpec(), tmp_path)


@settings(max_examples=50)
@given(
    persons=st.lists(st.integers(0, 8), min_size=2, max_size=30).filter(lambda who: len(set(who)) > 1),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(-5, 5),
)
def test_no_split_has_a_person_on_both_sides_or_an_empty_side(persons: list[int], fraction: float, seed: int) -> None:
    groups = {f"case-{number}": f"person-{who}" for number, who in enumerate(persons)}
    result = split(list(groups), groups=groups, val_fraction=fraction, seed=seed)
    assert sorted(result.train + result.val) == sorted(groups)
    assert {groups[case] for case in result.train}
    assert {groups[case] for case in result.val}
    assert {groups[case] for case in result.train}.isdisjoint(groups[case] for case in result.val)


def test_each_fold_trains_on_other_persons_where_few_are_kept() -> None:
    shuffled = sorted(TEN, key=lambda case: hashlib.blake2b(f"0\0{case}".encode(), digest_size=16).digest())
    kept = {fold: split(TEN, fold=fold, folds=5, train_subjects=3).train for fold in range(5)}
    for fold, start in ((0, 0), (1, 1), (2, 3), (3, 4), (4, 6)):  # fold * 8 // 5
        others = [case for position, case in enumerate(shuffled) if position % 5 != fold]
        assert set(kept[fold]) == {(others * 2)[start + n] for n in range(3)}
        sets = [set(split(TEN, fold=fold, folds=5, train_subjects=n).train) for n in range(1, 9)]
        assert all(fewer < more for fewer, more in pairwise(sets))
        assert sets[-1] == set(others)
    assert len(set(kept.values())) == 5


def val_sides(folds: int, **options: Any) -> list[set[str]]:
    return [set(split(TEN, fold=fold, folds=folds, **options).val) for fold in range(folds)]


def test_a_class_that_enough_persons_have_is_in_every_fold() -> None:
    shuffled = sorted(TEN, key=lambda case: hashlib.blake2b(f"0\0{case}".encode(), digest_size=16).digest())
    classes = {case: ["organ"] for case in TEN}
    assert val_sides(5, classes=classes) == val_sides(5)  # nothing is missing, so nothing changes
    rare = {shuffled[position] for position in (0, 1, 2, 5, 6)}  # folds 3 and 4 would have none
    classes |= {case: ["organ", "tumour"] for case in rare}
    sides = val_sides(5, classes=classes)
    assert [len(side) for side in sides] == [2] * 5
    assert set().union(*sides) == set(TEN)
    assert [len(side & rare) for side in sides] == [1] * 5
    assert split(TEN, fold=0, folds=5, classes=classes).remarks == ()
    assert val_sides(5, classes=classes, seed=3) != sides


def made_persons(seed: int) -> tuple[dict[str, list[str]], int]:
    """Persons with classes, and a number of folds that the rarer classes barely reach."""
    draw = random.Random(seed).randrange
    folds = 2 + draw(7)
    classes = {f"p{number}": list[str]() for number in range(folds + draw(40))}
    for name in (f"class {number}" for number in range(3 + draw(5))):
        having = folds + draw(2) if draw(3) else draw(len(classes))  # two of three classes are rare
        for person in sorted(classes, key=lambda _: draw(2**30))[:having]:
            classes[person].append(name)
    return classes, folds


def num_pairs(dealt: list[list[str]], classes: dict[str, list[str]], common: list[str]) -> int:
    """The (class, fold) pairs in which a person of the fold has the class."""
    return sum(any(name in classes[person] for person in fold) for fold in dealt for name in common)


def most_pairs(classes: dict[str, list[str]], folds: int, common: list[str]) -> int:
    """The optimum of `num_pairs` by an exact solver, with folds whose sizes differ by one at most."""
    kinds = Counter(tuple(name in names for name in common) for names in classes.values())
    num_put, num_found = len(kinds) * folds, len(common) * folds
    put = np.eye(num_put).reshape(len(kinds), folds, num_put)  # persons of a kind in a fold
    put = np.concatenate([put, np.zeros((len(kinds), folds, num_found))], axis=2)
    found = np.eye(num_found, num_put + num_found, k=num_put).reshape(len(common), folds, -1)
    has = np.array([*kinds], dtype=float).reshape(len(kinds), len(common))
    there = (np.einsum("tc,tfv->cfv", has, put) - found).reshape(num_found, -1)
    sizes = [len(range(fold, len(classes), folds)) for fold in range(folds)]
    solution = milp(
        -found.sum(axis=(0, 1)),
        integrality=np.ones(num_put + num_found),
        bounds=Bounds(0, [*np.repeat([*kinds.values()], folds), *np.ones(num_found)]),
        constraints=[
            LinearConstraint(put.sum(axis=1), [*kinds.values()], [*kinds.values()]),
            LinearConstraint(put.sum(axis=0), sizes, sizes),
            LinearConstraint(there, 0, np.inf),
        ],
    )
    assert solution.success
    return round(-solution.fun)


def test_folds_have_as_many_classes_as_an_exact_solver_finds_possible() -> None:
    num_in_turn = num_impossible = 0
    for seed in range(60):
        classes, folds = made_persons(seed)
        counts = Counter(name for names in classes.values() for name in names)
        common = [name for name in counts if counts[name] >= folds]
        dealt = assign_folds(classes, folds)
        sizes = [len(fold) for fold in dealt]
        assert max(sizes) - min(sizes) <= 1
        assert sorted(person for fold in dealt for person in fold) == sorted(classes)
        reached = num_pairs(dealt, classes, common)
        assert reached == most_pairs(classes, folds, common), seed
        num_impossible += reached < len(common) * folds
        in_turn = [[*classes][fold::folds] for fold in range(folds)]
        if num_pairs(in_turn, classes, common) == len(common) * folds:
            num_in_turn += 1
            assert dealt == in_turn
    assert num_in_turn >= 2  # the instances are of all three sorts
    assert num_impossible >= 2
    assert num_in_turn + num_impossible < 40


def test_a_thousand_persons_are_dealt_although_no_folds_have_every_class() -> None:
    # A and B share nine persons, so p9 and p10 must be in one fold; C has both, and ten persons for ten folds
    having = {"A": range(10), "B": [*range(9), 10], "C": range(9, 19)}
    classes = {f"p{n}": [name for name, persons in having.items() if n in persons] for n in range(1000)}
    dealt = assign_folds(classes, 10)
    assert {len(fold) for fold in dealt} == {100}
    assert num_pairs(dealt, classes, [*having]) == 29


def test_a_class_of_too_few_persons_for_every_fold_is_reported_and_changes_nothing() -> None:
    classes = {case: ["organ"] for case in TEN} | {"subject-1": ["organ", "tumour"]}
    assert val_sides(5, classes=classes) == val_sides(5)
    (remark,) = split(TEN, fold=2, folds=5, classes=classes).remarks
    assert "4 folds of 5" in remark
    assert "'tumour'" in remark
    assert "1 subject of 10" in remark


def test_a_persons_scans_stay_together_where_classes_decide_the_folds() -> None:
    groups = {case: f"person-{int(case[8:]) % 5}" for case in TEN}
    rare = ["subject-1", "subject-2"]  # of persons 1 and 2
    sides = val_sides(2, groups=groups, classes={case: ["tumour"] * (case in rare) for case in TEN})
    assert all(len({groups[case] for case in side}) * 2 == len(side) for side in sides)
    assert [len(side & set(rare)) for side in sides] == [1, 1]


def test_the_folds_are_written_as_an_nnunet_file_that_gives_them_back(tmp_path: Path) -> None:
    found = [split(TEN, fold=fold, folds=3, train_subjects=4) for fold in range(3)]
    file = write_json(tmp_path / "splits_final.json", splits_document(found))
    again = [split(TEN, file=file, fold=fold) for fold in range(3)]
    assert [(one.train, one.val) for one in again] == [(one.train, one.val) for one in found]
    assert num_folds(SplitSpec(file=file, fold="all")) == 3
    assert (num_folds(SplitSpec(fold="all")), num_folds(SplitSpec(fold="all", folds=7))) == (5, 7)


def test_cases_that_several_folds_validate_or_none_are_named_once() -> None:
    folds = [Split(("a", "b"), ("c", "d")), Split(("a", "d"), ("c", "e")), Split(("a",), ("f",))]
    several, never = remarks_on_folds(folds, "abcdef")
    assert "1 of 6" in several
    assert "new patients" in several
    assert several.endswith("'c'")
    assert "2 of 6" in never
    assert never.endswith("'a', 'b'")
    assert remarks_on_folds([split(TEN, fold=fold, folds=3) for fold in range(3)], TEN) == []


def test_one_split_is_not_of_all_folds() -> None:
    with pytest.raises(SettingError, match=r"split\.fold: all"):
        split(TEN, fold="all")
