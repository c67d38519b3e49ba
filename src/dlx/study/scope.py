"""For whom a verdict holds."""

from enum import StrEnum


class Scope(StrEnum):
    """For whom a verdict holds, from the narrowest to the widest.

    `seeds`: other runs with this training set, on these patients. `patients`: this training set, on other patients.
    `procedure`: other training sets, seeds and patients.
    """

    SEEDS = "seeds"
    PATIENTS = "patients"
    PROCEDURE = "procedure"
