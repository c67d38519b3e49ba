"""How the runs of a variant are named: by their seed, in cross-validation by fold and seed."""

RunId = int | tuple[int, int]  # a seed, or (fold, seed)


def seed_of(run: RunId) -> int:
    """The seed of a run."""
    return run if isinstance(run, int) else run[1]


def fold_of(run: RunId) -> int | None:
    """The fold of a run; None without cross-validation."""
    return None if isinstance(run, int) else run[0]
