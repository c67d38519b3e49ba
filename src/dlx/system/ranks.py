"""The processes that train one trial together, as torchrun started them: which one this is, and its part of a batch."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from dlx.system.errors import SettingError


@dataclass(frozen=True)
class Ranks:
    """This process among those of torchrun; the default is a process on its own."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among the processes of this machine
    local_size: int = 1

    def part(self, num_samples: int) -> slice:
        """This rank's samples of a global batch, whose size must be a multiple of `size`."""
        each = num_samples // self.size
        return slice(self.rank * each, (self.rank + 1) * each)


ALONE = Ranks()


def ranks_of(environment: Mapping[str, str] = os.environ) -> Ranks:
    """The ranks that torchrun's variables describe; ALONE if there are none. SettingError if they are malformed."""
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return ALONE
    try:
        rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        local_rank = int(environment.get("LOCAL_RANK", rank))
        local_size = int(environment.get("LOCAL_WORLD_SIZE", size))
    except ValueError:
        raise SettingError("RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE must be integers") from None
    if not (0 <= rank < size and 0 <= local_rank < local_size <= size):
        raise SettingError(
            f"RANK={rank} WORLD_SIZE={size} LOCAL_RANK={local_rank} LOCAL_WORLD_SIZE={local_size} is no rank of a group"
        )
    return Ranks(rank, size, local_rank, local_size)
