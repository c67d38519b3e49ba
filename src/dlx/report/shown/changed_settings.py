"""The settings of a trial that differ from the defaults, and from those of its control."""

from dataclasses import dataclass

from dlx.records.one_trial import OneTrial
from dlx.report.findings.differing_settings import differing_settings
from dlx.settings.flat import flattened, spell_setting
from dlx.settings.spec import Spec

UNKNOWN = "-"


@dataclass(frozen=True)
class ChangedSetting:
    """A setting as text: its value in the trial, its default, and the control's value (of the control itself, `-`)."""

    key: str
    value: str
    default: str
    control: str = UNKNOWN


def changed_settings(trial: OneTrial) -> list[ChangedSetting]:
    """The settings that were given for the study and differ from the defaults, in the order of `dlx settings`, and
    those in which the trial differs from its control.

    Values that are chosen by the data where none is given, such as the size of patches, are not listed.
    """
    defaults = flattened(Spec().model_dump(mode="json"))
    given = flattened(trial.header.settings) if trial.header is not None else {}
    found: dict[str, ChangedSetting] = {}

    def default_of(key: str) -> str:
        return spell_setting(defaults[key]) if key in defaults else UNKNOWN

    for key, asked in given.items():
        if asked is not None and asked != defaults.get(key):
            found[key] = ChangedSetting(key, spell_setting(asked), default_of(key))
    ours = trial.history.settings()
    theirs = trial.control.settings() if trial.control is not None else None
    for key, value, control in differing_settings(theirs, ours) if ours and theirs else ():
        found[key] = ChangedSetting(key, spell_setting(value), default_of(key), spell_setting(control))
    return list(found.values())
