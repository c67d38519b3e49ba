"""How the runs of a variant are named: by their seed, in cross-validation by fold and seed."""

from collections.abc import Iterable

RunId = int | tuple[int, int]  # a seed, or (fold, seed)


def seed_of(run: RunId) -> int:
    """The seed of a run."""
    return run if isinstance(run, int) else run[1]


def in_order(runs: Iterable[RunId]) -> tuple[RunId, ...]:
    """The runs sorted by fold and seed."""
    return tuple(sorted(runs, key=lambda run: (-1, run) if isinstance(run, int) else run))


def spell_run(run: RunId) -> str:
    """`seed 3`, in cross-validation `fold 1 seed 3`."""
    return f"seed {run}" if isinstance(run, int) else f"fold {run[0]} seed {run[1]}"


def spell_runs(runs: Iterable[RunId]) -> str:
    """`seed 3`, `seeds 1, 3`, in cross-validation `fold 0 seed 1, fold 2 seed 1`."""
    known = [*runs]
    if len(known) > 1 and all(isinstance(run, int) for run in known):
        return f"seeds {', '.join(map(str, known))}"
    return ", ".join(map(spell_run, known))
