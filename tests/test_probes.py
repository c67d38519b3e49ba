"""Probes: figures of each level by hand, nothing changed by looking, and the notes' claim on down-sampling."""

import pytest
import torch
from torch import nn

from dlx.engine.fit import TrialProgress, fit
from dlx.engine.probes import Prober
from dlx.records.schema import EpochRecord
from dlx.settings import registry
from dlx.study.results import DropoutSample
from small import small_job

PROBED = {"evaluate": {"probes": True}}


def results(job):
    return [event.result for event in fit(job, TrialProgress()) if isinstance(event, EpochRecord)]


class Two(nn.Module):
    """Two levels whose features are known."""

    def __init__(self):
        super().__init__()
        self.on_block = None
        self.weight = nn.Parameter(torch.tensor([3.0, 4.0]))

    def level_parameters(self):
        return {"encoder0": [self.weight], "encoder1": [self.weight]}

    def forward(self, image):
        features = torch.relu(image * self.weight.view(1, 2, 1, 1))
        self.on_block("encoder0_0", image)  # an earlier block of the level: not kept
        self.on_block("encoder0_1", features)
        self.on_block("encoder1_0", features / 4)
        return features


def test_the_figures_of_a_level_by_hand():
    model = Two()
    image = torch.tensor([[1.0, -1.0], [2.0, -2.0]]).view(2, 2, 1, 1)  # features 3, 0; 6, 0: the second channel is dead
    prober = Prober(model)
    prober.measure(lambda: model(image).sum().backward())
    first, second = prober.levels().values()
    assert (first.mean_abs, first.mean, first.variance) == (2.25, 2.25, pytest.approx(8.25))
    assert first.dead_fraction == 0.5
    assert (first.gradient_norm, first.weight_norm) == (3.0, 5.0)  # d/dw of 1 w and 2 w; |(3, 4)|
    assert second.mean_abs == 2.25 / 4
    assert model.on_block is None


def test_looking_changes_no_number():
    plain, probed = results(small_job()), results(small_job(PROBED))
    assert [result.model_copy(update={"levels": None, "coins": None}) for result in probed] == plain
    assert all(result.levels is result.coins is None for result in plain)


def test_levels_are_named_from_the_image_down_and_up_again():
    (first, *_) = results(small_job(PROBED, {"model": {"levels": 3}}))
    assert [*first.levels] == ["encoder0", "encoder1", "encoder2", "decoder0", "decoder1"]
    assert all(0 <= probe.dead_fraction <= 1 and probe.gradient_norm > 0 for probe in first.levels.values())


def test_draws_are_counted_for_each_dropout_that_is_active_and_none_without():
    (without, *_) = results(small_job(PROBED))
    assert without.coins == {}
    assert without.dropout_off == without.dropout_outside == 0.0
    (first, second, *_) = results(small_job(PROBED, {"dropout": {"p": 0.3}}))
    assert all(s.p == 0.3 and 0 < s.dropped < s.tossed for s in first.coins.values())
    assert {*first.coins} == {*second.coins}
    assert first.coins != second.coins  # other draws each epoch
    tossed = [sample.tossed for sample in first.coins.values()]
    channels = results(small_job(PROBED, {"dropout": {"p": 0.3, "kind": "dropout2d"}}))[0].coins
    assert all(sample.tossed < elements for sample, elements in zip(channels.values(), tossed, strict=True))


def test_a_dropped_fraction_lies_in_the_95_percent_interval_or_outside_by_hand():
    # p = 0.5, 100 draws: 0.5 +- 1.96 * 0.05 = 0.402 to 0.598
    inside, outside = (DropoutSample(p=0.5, tossed=100, dropped=dropped) for dropped in (59, 60))
    assert (inside.deviation, outside.deviation) == (pytest.approx(0.09), pytest.approx(0.1))
    assert not inside.is_outside_interval
    assert outside.is_outside_interval


@pytest.mark.parametrize("name", sorted(registry.PARTS["model"]))
def test_every_network_reports_each_block_once_and_the_parameters_of_each_level(name):
    with torch.device("meta"):
        model = registry.load("model", name)(2, 3)
    seen = []
    model.on_block = lambda block, features: seen.append(block)
    model(torch.empty(2, 2, 64, 64, device="meta"))
    assert seen == model.block_names("encoder") + model.block_names("decoder")
    assert list(dict.fromkeys(block.partition("_")[0] for block in seen)) == list(model.level_parameters())
    assert sum(level.startswith(("encoder", "backbone")) for level in model.level_parameters()) > 1
    assert all(parameters for parameters in model.level_parameters().values())


def test_with_strided_convolutions_and_no_norm_features_fall_away_with_depth_and_with_a_norm_they_do_not():
    def kept(norm):
        model = {"norm": norm, "down": "conv", "down_norm": norm, "levels": 4, "width": 8}
        return results(small_job(PROBED, {"model": model, "train": {"epochs": 1}}))[0].deepest_to_first

    assert kept("none") < 0.1
    assert kept("batch") > 0.5
