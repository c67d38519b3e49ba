"""Random streams: a trial's weights, batches, augmentation and noise are drawn independently and can be repeated.

The stream `network` seeds torch's default generator for what a network of the user's own draws itself.

Each stream is a generator that is seeded from (seed, stream, epoch) at the start of each epoch. So trials of one seed
see the same batches whatever their dropout or scheduler, evaluation draws nothing, and resuming at an epoch needs no
generator state.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

STREAMS = ("weights", "order", "augment", "noise", "network")


def stream_seed(seed: int, stream: str, epoch: int) -> int:
    """A 63-bit seed for one stream in one epoch, different for all streams and epochs except by hash collision."""
    if stream not in STREAMS:
        raise ValueError(f"'{stream}' is not one of {STREAMS}")
    digest = hashlib.blake2b(f"{seed}/{stream}/{epoch}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, stream: str, epoch: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A new generator on `device`, seeded for one epoch of a stream."""
    return torch.Generator(device).manual_seed(stream_seed(seed, stream, epoch))


@contextmanager
def weights_from(seed: int) -> Iterator[None]:
    """Seeds torch's default CPU generator with the weights stream within the block, and restores it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(seed, "weights", 0))
        yield
