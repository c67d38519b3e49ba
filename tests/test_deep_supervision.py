"""Deep supervision: the loss worked by hand, the masks against torch's, and what of a trial it leaves alone."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from dlx.engine import checkpoint
from dlx.engine.fit import TrialProgress, fit
from dlx.models.architectures.unet import unet, unet2
from dlx.models.inspection.count import count
from dlx.records.schema import EpochRecord
from dlx.settings import registry
from dlx.settings.binding import bind_arguments
from dlx.system.errors import SettingError
from dlx.training.deep_supervision import DeepSupervision, coarse_mask
from small import small_job, small_resolved

DEEP = {"model": {"levels": 4, "deep_supervision": 2}}


class MeanOfClassOne(nn.Module):
    """A loss whose value is easily worked out."""

    def forward(self, logits, mask):
        return (logits[:, 1] * mask).mean()


def test_the_weights_are_4_2_and_1_sevenths():
    mask = torch.ones(1, 8, 8, dtype=torch.int64)
    logits = [torch.full((1, 2, size, size), value) for size, value in [(8, 7.0), (4, 70.0), (2, 700.0)]]
    assert DeepSupervision(MeanOfClassOne())(logits, mask).item() == pytest.approx(4 + 20 + 100)


@pytest.mark.parametrize("name", sorted(registry.PARTS["loss"]))
def test_of_one_resolution_it_is_the_loss_itself(name):
    factory = registry.load("loss", name)
    loss = factory(4, **bind_arguments("loss", name, factory, {}))
    draws = torch.Generator().manual_seed(0)
    logits, mask = torch.randn(2, 4, 8, 8, generator=draws), torch.randint(4, (2, 8, 8), generator=draws)
    torch.testing.assert_close(DeepSupervision(loss)([logits], mask), loss(logits, mask))


@pytest.mark.parametrize("sizes", [(16, 24), (8, 16, 24)])
@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_a_coarse_mask_is_torchs_nearest(sizes, factor):
    mask = torch.randint(5, (2, *sizes), generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(mask[:, None].double(), scale_factor=1 / factor, mode="nearest-exact")[:, 0].long()
    assert torch.equal(coarse_mask(mask, factor), expected)


def test_a_coarse_mask_of_sizes_that_do_not_fit_is_rounded_up():
    assert coarse_mask(torch.arange(7)[None], 4).tolist() == [[2, 6]]
    assert coarse_mask(torch.arange(5)[None], 4).tolist() == [[2, 4]]
    assert coarse_mask(torch.arange(1)[None], 4).tolist() == [[0]]


@pytest.mark.parametrize("factory", [unet, unet2])
@pytest.mark.parametrize(("dims", "size"), [(2, 16), (2, 13), (3, 16), (3, 9)])
def test_each_level_has_logits_of_its_size_and_the_first_are_the_networks_own(factory, dims, size):
    torch.manual_seed(0)
    model = factory(2, 4, width=4, levels=4, dims=dims, deep_supervision=2).eval()
    image = torch.randn(1, 2, *[size] * dims)
    logits = model.forward_levels(image)
    assert [tuple(one.shape) for one in logits] == [(1, 4, *[-(-size // 2**level)] * dims) for level in range(3)]
    torch.testing.assert_close(logits[0], model(image), rtol=0, atol=0)


def test_heads_cost_a_parameter_for_each_channel_and_class_and_no_operations_in_evaluation():
    plain, deep = (unet2(2, 4, width=4, levels=4, deep_supervision=n) for n in (0, 2))
    added = sum(p.numel() for p in deep.parameters()) - sum(p.numel() for p in plain.parameters())
    assert added == (8 + 1) * 4 + (16 + 1) * 4
    assert count(deep, (2, 16, 16)).flops == count(plain, (2, 16, 16)).flops
    assert count(deep, (2, 16, 16)).parameters == count(plain, (2, 16, 16)).parameters + added
    assert [len(model.parameter_groups()["head"]) for model in (plain, deep)] == [2, 6]


def test_networks_with_and_without_start_with_the_same_weights():
    plain, deep = small_job({"model": {"levels": 4}}), small_job(DEEP)
    theirs = deep.model.state_dict()
    assert all(torch.equal(weight, theirs[name]) for name, weight in plain.model.state_dict().items())


def test_the_first_loss_is_the_weighted_mean_and_training_reaches_every_head():
    job = small_job(DEEP, {"loss": "ce"})
    before = {name: weight.clone() for name, weight in job.model.state_dict().items()}
    seen = []
    job.step.loss.register_forward_hook(lambda module, args, loss: seen.append((*args, loss)))
    next(iter(fit(job, TrialProgress())))
    (logits, mask, loss), *_ = seen
    terms = [F.cross_entropy(one, coarse_mask(mask, 2**level)) for level, one in enumerate(logits)]
    torch.testing.assert_close(loss, (4 * terms[0] + 2 * terms[1] + terms[2]) / 7)
    heads = [name for name in before if name.startswith("coarse_heads") and name.endswith("weight")]
    assert len(heads) == 2
    assert all(not torch.equal(before[name], job.model.state_dict()[name]) for name in heads)


def test_a_resumed_trial_ends_with_the_same_records():
    whole = small_job(DEEP)
    expected = [event.result for event in fit(whole, TrialProgress()) if isinstance(event, EpochRecord)]
    first = small_job(DEEP)
    next(event for event in fit(first, TrialProgress()) if isinstance(event, EpochRecord))
    resumed = small_job(DEEP, seed=0)
    checkpoint.restore(checkpoint.snapshot(first, {}), resumed)
    rest = [event.result for event in fit(resumed, TrialProgress(epoch=1)) if isinstance(event, EpochRecord)]
    assert rest == expected[1:]
    assert checkpoint.weights_hash(resumed.model) == checkpoint.weights_hash(whole.model)


@pytest.mark.parametrize(("levels", "asked"), [(1, 1), (2, 1), (4, 3)])
def test_more_heads_than_coarser_levels_are_refused(levels, asked):
    allowed = rf"{max(0, levels - 2)} or less with {levels} levels?\b"
    with pytest.raises(SettingError, match=rf"^model\.deep_supervision: .*{allowed} \(got {asked}\)"):
        small_resolved({"model": {"levels": levels, "deep_supervision": asked}})
