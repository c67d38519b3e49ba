"""Verdicts as values. Their words are in `dlx.report.words`."""

from enum import Enum, auto


class Verdict(Enum):
    """What the tests say of a variant beside its control, or of a claim."""

    BETTER = auto()
    WORSE = auto()
    NO_DIFFERENCE = auto()  # larger than the smallest effect of interest
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
        """Whether it says nothing yet about the result, so that showing it is no look."""
        return self in (Verdict.INCOMPLETE, Verdict.NOT_MEASURED)
