"""`dlx settings`: what it says is what the spec and the parts take."""

import json

import pytest

from dlx.settings.layers import make_spec, nest
from dlx.settings.part import Part, Section
from dlx.settings.reference import all_settings, choices, spell_schema
from dlx.settings.registry import PARTS
from dlx.settings.spec import PART_KINDS, Spec
from dlx.settings.text import parse_value
from dlx.system.errors import SettingError


def leaves(section, prefix=""):
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section) and not issubclass(inner, Part):
            yield from leaves(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_every_field_of_the_spec_is_listed_once():
    assert [setting.key for setting in all_settings() if not setting.parts] == list(leaves(Spec))


@pytest.mark.parametrize("setting", all_settings(), ids=lambda setting: f"{setting.key} {','.join(setting.parts)}"[:60])
def test_every_setting_has_a_meaning_of_a_line_or_two(setting):
    assert 8 < len(setting.meaning) <= 140, "write it below the field, or into Field(description=...) of the argument"
    assert setting.meaning.endswith(".")
    assert setting.type


def test_every_part_says_what_it_does():
    for key, kind in PART_KINDS.items():
        assert list(choices(key)) == list(PARTS[kind])
        assert all(len(meaning) > 8 for meaning in choices(key).values())


def test_the_defaults_that_are_shown_are_those_of_the_spec():
    shown = [s for s in all_settings() if not s.parts and s.key not in PART_KINDS]
    assert len(shown) > 30
    assert make_spec(nest((s.key, parse_value(s.default)) for s in shown)) == Spec()


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 4096}, "whole number from 1 to 4,096"),
        ({"type": "number", "exclusiveMinimum": 0.0, "exclusiveMaximum": 1.0}, "number above 0 and below 1"),
        ({"type": "number", "minimum": 0.0}, "number from 0 on"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "whole number, or none"),
        ({"enum": ["a", "b"]}, "a | b"),
        ({"type": "array", "items": {"type": "integer", "minimum": 1}}, "list of whole numbers from 1 on"),
        ({"type": "boolean"}, "true | false"),
    ],
)
def test_types_and_ranges_in_words(schema, words):
    assert spell_schema(schema) == words


def test_the_list_fits_80_columns_and_names_what_recipes_set(dlx, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    shown = dlx("settings").stdout
    assert max(len(line) for line in shown.splitlines() if line.startswith(" ")) <= 80
    assert "train.epochs = 10   (notes: 100)" in shown


@pytest.mark.parametrize("columns", ["0", "-5", "20", "abc"])
def test_odd_widths_of_a_terminal_do_no_harm(dlx, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert "optimizer.lr = 0.002" in dlx("settings", "optimizer").stdout


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("optimizer.lr", {"optimizer.lr"}),
        ("lr", {"optimizer.lr"}),
        ("dropout", {"dropout.p", "dropout.kind", "dropout.where", "dropout.own_rates"}),
        ("cosine", {"scheduler", "scheduler.t_max", "scheduler.eta_min"}),
    ],
)
def test_a_setting_a_section_or_a_part_can_be_asked_for(dlx, name, keys):
    found = json.loads(dlx("settings", name, "--json").stdout)
    assert {entry["key"] for entry in found} == keys
    assert all({"key", "type", "default", "meaning"} <= set(entry) for entry in found)


def test_a_name_that_is_no_setting_gives_the_nearest(dlx):
    with pytest.raises(SettingError, match="did you mean 'optimizer'"):
        dlx("settings", "optimiser")
