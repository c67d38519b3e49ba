"""Verdicts as values. Their words are in `dlx.report.wording.verdicts`."""

from enum import Enum, auto


class Verdict(Enum):
    """The result of the tests of a variant against its control, or of a claim."""

    BETTER = auto()
    WORSE = auto()
    NO_DIFFERENCE = auto()  # any difference is shown to be smaller than the smallest effect of interest
    CONFIRMED = auto()
    CONTRADICTED = auto()
    NOT_CONFIRMED = auto()  # shown to be less than claimed
    CANNOT_TELL = auto()
    COLLAPSED = auto()  # runs of the variant or of its control collapsed: nothing is tested
    NO_EFFECT = auto()  # every record equals the control's
    NOT_MEASURED = auto()
    INCOMPLETE = auto()

    @property
    def is_settled(self) -> bool:
        """Whether a comparison needs no more seeds."""
        return self in (Verdict.BETTER, Verdict.WORSE, Verdict.NO_DIFFERENCE)

    @property
    def is_open(self) -> bool:
        """Whether it reveals nothing about the result yet, so that showing it does not count as a look."""
        return self in (Verdict.INCOMPLETE, Verdict.NOT_MEASURED)
