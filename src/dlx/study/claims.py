"""A claim: a statement about a study's result, declared before the study runs. Claims are tested elsewhere."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dlx.settings.part import Section
from dlx.study.metrics import EPOCH_METRICS, ClaimMetric, find_metric, is_of_epochs


class Claim(Section):
    """A statement about the study's result, declared before it runs; `dlx.report.findings.claims` tests it.

    `greater`: the metric of `variant` exceeds that of `than` (by default the control) by more than `margin`; `less`,
    `within`: likewise. `best`: no other variant has a better metric. `rises`, `falls`: the least-squares slope of the
    metric over a numeric axis. `metric`: in a study's file by default that of the study. `window`: the epochs [first,
    last], from 1, over which a metric of epochs is averaged; by default the value after the last epoch. `than_window`:
    another window, in which the metric of the same variant is compared.
    """

    text: str
    kind: Literal["greater", "less", "within", "best", "rises", "falls"]
    metric: ClaimMetric
    variant: str | None = None
    than: str | None = None
    among: tuple[str, ...] | None = None  # labels; None: all (for `best` the others, for trends the whole axis)
    axis: str | None = None  # for trends; not needed in a study of one axis
    window: tuple[int, int] | None = None
    than_window: tuple[int, int] | None = None
    margin: Annotated[float, Field(ge=0.0)] = 0.0

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.kind in ("greater", "less", "within", "best") and self.variant is None:
            raise ValueError(f"a claim of kind '{self.kind}' needs a variant")
        if self.kind == "within" and self.margin == 0.0:
            raise ValueError("a claim of kind 'within' needs a margin above 0")
        for window in self.windows:
            if not 1 <= window[0] <= window[1]:
                raise ValueError("a window is [first, last] epoch, from 1")
        if self.window is None and (self.than_window is not None or find_metric(self.metric)[0].needs_window):
            raise ValueError("this claim needs a window of epochs")
        if self.window is not None and not is_of_epochs(self.metric):
            raise ValueError(f"a window needs a metric of epochs: {', '.join(EPOCH_METRICS)}")
        if self.kind == "best" and self.among is not None and not set(self.among) - {self.variant}:
            raise ValueError("a claim of kind 'best' needs other variants in `among`")
        return self

    @property
    def windows(self) -> tuple[tuple[int, int], ...]:
        """The windows of epochs that the claim is about; none if it is about the last epoch."""
        return tuple(window for window in (self.window, self.than_window) if window is not None)

    def concerns(self, labels: Sequence[str], control: str | None) -> list[str]:
        """The variants among `labels` that the claim compares; the control is one of them if it replaces `than`."""
        named = {self.variant, self.than, *(self.among or ())}
        if self.among is None and self.kind in ("best", "rises", "falls"):
            return list(labels)
        if self.kind in ("greater", "less", "within") and self.than is None and self.than_window is None:
            named.add(control)
        return [label for label in labels if label in named]
