"""When a peer's training is interrupted to measure its Dice, and the time of training without these looks."""

import json
import time
from collections.abc import Callable
from typing import Any

SHARES = (1 / 60, 1 / 30, 1 / 15, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)  # of the limit: 1, 2, 4, 7.5, 15 ... of 60 minutes


class Looks:
    """The looks so far. Times count from `started`, when the command was typed, and leave out the looks themselves."""

    def __init__(self, started: float, limit_s: float) -> None:
        self.started, self.limit_s = started, limit_s
        self.due_s = [share * limit_s for share in SHARES]
        self.looks: list[tuple[float, float]] = []  # seconds, Dice; all by plain prediction
        self.mirrored_look: tuple[float, float] | None = None  # at the limit
        self.looking_s = 0.0

    @property
    def trained_s(self) -> float:
        return time.time() - self.started - self.looking_s

    @property
    def is_over(self) -> bool:
        return not self.due_s

    @property
    def is_due(self) -> bool:
        return bool(self.due_s) and self.trained_s >= self.due_s[0]

    def look(self, measure: Callable[[bool], float], facts: dict[str, Any]) -> None:
        """Measures the Dice by `measure(mirrors)`: without mirroring and, at the limit, with it too. After each of the
        two prints a line of JSON with all looks so far: the last line that a peer prints is its result, also if it
        fails or is ended later.
        """
        at = self.trained_s
        self.due_s = [due for due in self.due_s if due > at]
        before_s, begun = self.looking_s, time.time()
        self.looks.append((at, measure(False)))
        self.looking_s = before_s + time.time() - begun
        self._print(facts)
        if at >= self.limit_s:
            self.mirrored_look = (at, measure(True))
            self.looking_s = before_s + time.time() - begun
            self._print(facts)

    def _print(self, facts: dict[str, Any]) -> None:
        found = {"looks": self.looks, "mirrored_look": self.mirrored_look, "looking_s": self.looking_s}
        print("\n" + json.dumps({**found, "wall_s": time.time() - self.started, **facts}), flush=True)
