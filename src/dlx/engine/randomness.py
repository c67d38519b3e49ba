"""Randomness in streams, so that a trial's weights, batches and noise can be told apart and repeated.

Each stream is a generator of its own, seeded anew at the start of each epoch from (seed, stream, epoch). Trials with
one seed therefore see the same batches whatever their dropout or scheduler, evaluation draws nothing, and resuming at
an epoch needs no generator state.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

STREAMS = ("weights", "order", "augment", "noise")


def stream_seed(seed: int, stream: str, epoch: int) -> int:
    """A 63-bit seed for one stream in one epoch; streams and epochs never share one but by hash collision."""
    if stream not in STREAMS:
        raise ValueError(f"'{stream}' is not one of {STREAMS}")
    digest = hashlib.blake2b(f"{seed}/{stream}/{epoch}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, stream: str, epoch: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A new generator on `device`, at the start of a stream's epoch."""
    return torch.Generator(device).manual_seed(stream_seed(seed, stream, epoch))


@contextmanager
def weights_from(seed: int) -> Iterator[None]:
    """Within, torch's default CPU generator is the seed's weights stream; afterwards it is as it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(seed, "weights", 0))
        yield
