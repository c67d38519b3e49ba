"""What fitting a step and fitting evaluation to the memory have in common; each has its own limits in its own file."""

from typing import NamedTuple

from dlx.settings.spec import Spec

PARALLEL_FRACTION = 0.5  # of the memory, for all trials that run at once


class Fitted(NamedTuple):
    """A spec with settings that were fitted to data or device, and remarks on them.

    `memory_fraction` is the share of the device's memory that a step or an evaluation with them may take; None if it
    was not counted, because it is small or cannot be measured.
    """

    spec: Spec
    remarks: list[str]
    memory_fraction: float | None = None
