import torch

from dlx.engine.randomness import STREAMS, generator, stream_seed, weights_from


def test_every_stream_epoch_and_seed_has_a_seed_of_its_own():
    seeds = {stream_seed(seed, stream, epoch) for seed in range(5) for stream in STREAMS for epoch in range(50)}
    assert len(seeds) == 5 * len(STREAMS) * 50
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_streams_seed_is_the_same_on_every_machine():
    # worked out with Python's hashlib, apart from the code: blake2b("0/order/1"), 8 bytes, little-endian, halved
    import hashlib

    expected = int.from_bytes(hashlib.blake2b(b"0/order/1", digest_size=8).digest(), "little") // 2
    assert stream_seed(0, "order", 1) == expected


def test_an_unknown_stream_is_refused():
    import pytest

    with pytest.raises(ValueError, match="'orders' is not one of"):
        stream_seed(0, "orders", 1)


def test_each_new_generator_starts_at_the_same_state():
    first = torch.rand(8, generator=generator(3, "noise", 2))
    assert torch.equal(first, torch.rand(8, generator=generator(3, "noise", 2)))
    assert not torch.equal(first, torch.rand(8, generator=generator(3, "noise", 3)))


def test_weights_from_leaves_torchs_own_generator_as_it_was():
    before = torch.get_rng_state()
    with weights_from(1):
        first = torch.nn.Linear(3, 3).weight.detach().clone()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    with weights_from(1):
        assert torch.equal(torch.nn.Linear(3, 3).weight, first)
