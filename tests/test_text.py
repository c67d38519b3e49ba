import pytest

from dlx.settings.text import parse_grid, parse_part, parse_value
from dlx.system.errors import SettingError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("1e-3", 0.001),
        ("0.5", 0.5),
        ("true", True),
        ("False", False),
        ("none", None),
        ("[1,2]", [1, 2]),
        ("[[0,1.0],[1,0]]", [[0, 1.0], [1, 0]]),
        ("[]", []),
        ("'3'", "3"),
        ("batch", "batch"),
        ("../some folder", "../some folder"),
    ],
)
def test_a_typed_value_is_what_it_looks_like(text, value):
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_a_part_is_a_name_and_its_arguments():
    assert parse_part("step:step_size=30,gamma=0.1") == {"name": "step", "args": {"step_size": 30, "gamma": 0.1}}
    assert parse_part("linear-tail") == {"name": "linear-tail", "args": {}}
    weights = parse_part("focal:class_weights=[0.1,0.4],double-softmax=true")
    assert weights["args"] == {"class_weights": [0.1, 0.4], "double_softmax": True}


@pytest.mark.parametrize("text", ["", ":x=1", "step:3", "step:a=1,a=2", "step:=1", "3step", "step:x=[1,2"])
def test_a_malformed_part_is_refused(text):
    with pytest.raises(SettingError):
        parse_part(text)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.1..0.8", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)),
        ("0.1..0.3:0.05", (0.1, 0.15, 0.2, 0.25, 0.3)),
        ("0.05..0.08", (0.05, 0.06, 0.07, 0.08)),
        ("0..0.3", (0, 0.1, 0.2, 0.3)),
        ("0,0.1,0.5", (0, 0.1, 0.5)),
        ("0, 0.1..0.3, 0.2, 0.9", (0, 0.1, 0.2, 0.3, 0.9)),
        ("0.3..0.1", (0.3, 0.2, 0.1)),
        ("0.1..0.8:0.3", (0.1, 0.4, 0.7)),
        ("1..4", (1, 2, 3, 4)),
        ("1e-4..3e-4", (0.0001, 0.0002, 0.0003)),
        ("-1..1", (-1, 0, 1)),
    ],
)
def test_a_grid_is_the_numbers_one_would_write_by_hand(text, values):
    assert parse_grid(text) == values
    assert [type(number) for number in parse_grid(text)] == [type(number) for number in values]


def test_decimals_are_exact():
    assert repr(parse_grid("0.1..0.8")[2]) == "0.3"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no number"),
        ("a", "'a' is no number"),
        ("0.1..", "no number"),
        ("0.1..0.8:0", "above 0"),
        ("0.1..0.8:-0.1", "above 0"),
        ("0.5:0.1", "follows a range"),
        ("nan", "no number"),
        ("0..inf", "no number"),
        ("0..1:0.0001", "more than 1000"),
        ("0..1000000000000", "more than 1000"),
        ("0.1,,0.2", "no number"),
        ("1e9999", "more than 18 digits"),
        ("0..1e99999999", "more than 18 digits"),
        ("0..1:1e-9999", "more than 18 digits"),
        ("1" + "0" * 400, "more than 18 digits"),
    ],
)
def test_what_is_no_grid_is_refused_with_the_cause(text, words):
    with pytest.raises(SettingError, match=words):
        parse_grid(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("0.1:0.8:0.1", "0.1..0.8:0.1"),
        ("0.1:0.1:0.8", "0.1..0.8:0.1"),
        ("0.1:0.8", "0.1..0.8"),
        ("0.1-0.8", "0.1..0.8"),
        ("0.1\u20130.8", "0.1..0.8"),
        ("0.1\u20260.8", "0.1..0.8"),
        ("0.1 to 0.8", "0.1..0.8"),
        ("0.1..0.8 by 0.1", "0.1..0.8:0.1"),
        ("np.arange(0,1,0.1)", "0..1:0.1"),
        ("[0.1,0.3]", "0.1,0.3"),
        ("0.1;0.3", "0.1,0.3"),
        ("0.1 0.3", "0.1,0.3"),
        ("0.1,,0.3,", "0.1,0.3"),
        ("10%", "0.1"),
        ("10%..50%", "0.1..0.5"),
        ("10..50:10%", "0.1..0.5:0.1"),
        ("1e-4-1e-3", "1e-4..1e-3"),
        (".1-.8", "0.1..0.8"),
    ],
)
def test_another_spelling_of_a_grid_is_refused_with_one_that_can_be_typed(text, meant):
    with pytest.raises(SettingError) as raised:
        parse_grid(text)
    assert str(raised.value).endswith(f"did you mean {meant}?")
    assert parse_grid(meant)


HOPELESS = [
    "",
    "abc",
    "0.1...",
    "..0.8",
    "0.1..0.2..0.3",
    "1:2:3:4",
    "[]",
    "-",
    "%",
    "..%",
    "1.2.3%",
    "1:2:.",
    "1:..:3",
]


@pytest.mark.parametrize("text", HOPELESS)
def test_what_cannot_be_read_gets_no_hint_that_is_refused_too(text):
    with pytest.raises(SettingError) as raised:
        parse_grid(text)
    assert "did you mean" not in str(raised.value)
