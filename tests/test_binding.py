from contextlib import suppress
from itertools import product
from typing import Annotated, Literal

import pytest
from pydantic import Field

from dlx.settings import registry
from dlx.settings.binding import argument_schema, bind_arguments, bind_part
from dlx.settings.part import Part
from dlx.system.errors import SettingError


def factory(optimizer, *, gamma: Annotated[float, Field(gt=0, le=1)] = 0.5, kind: Literal["a", "b"] = "a"):
    return optimizer, gamma, kind


def bind(**args):
    return bind_arguments("scheduler", "mine", factory, args)


def test_defaults_are_filled_in():
    assert bind() == {"gamma": 0.5, "kind": "a"}
    assert bind(gamma=1) == {"gamma": 1.0, "kind": "a"}


def test_what_the_engine_gives_is_no_setting():
    with pytest.raises(SettingError, match=r"scheduler 'mine' .*'optimizer': .*\bgamma, kind"):
        bind(optimizer=3)


def test_an_unknown_argument_is_refused_with_the_nearest():
    with pytest.raises(SettingError, match=r"'gama': .*'gamma'"):
        bind(gama=0.1)


@pytest.mark.parametrize("args", [{"gamma": 0}, {"gamma": 1.5}, {"gamma": "x"}, {"gamma": float("nan")}, {"kind": "c"}])
def test_an_argument_out_of_range_is_refused_by_name(args):
    with pytest.raises(SettingError, match=rf"scheduler 'mine': {next(iter(args))}: .*got"):
        bind(**args)


def test_a_factory_without_settings_says_so():
    with pytest.raises(SettingError, match=r"scheduler 'constant' takes no arguments .*'x'"):
        bind_part("scheduler", Part(name="constant", args={"x": 1}))


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(SettingError, match=r"optimizer 'adamm': .*'adam'"):
        bind_part("optimizer", Part(name="adamm"))


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in registry.PARTS for name in registry.PARTS[kind]])
def test_every_registered_name_leads_to_something(kind, name):
    assert registry.load(kind, name) is not None


KINDS = [kind for kind in registry.PARTS if kind not in ("layout", "metric")]
WRONG = [-1e9, 0.123, "zzz", [1, "x"], {"q": 1}, None]


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_about_any_argument_has_its_name_and_no_word_of_the_checking_library(kind):
    refusals = 0
    for name in registry.PARTS[kind]:
        for argument, wrong in product(argument_schema(registry.load(kind, name)).model_fields, WRONG):
            with suppress(SettingError):
                bind_part(kind, Part(name=name, args={argument: wrong}))
                continue
            with pytest.raises(SettingError, match=rf"^{kind} '{name}': \w+(\.\w+)*: (?!Input|Field)"):
                bind_part(kind, Part(name=name, args={argument: wrong}))
            refusals += 1
    assert refusals > 0
