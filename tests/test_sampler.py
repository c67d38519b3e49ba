import numpy as np
import pytest
import torch

from dlx.data.batches.sampler import Foreground, PatchSampler, PatchSource, box_extent, fit_patch_size
from dlx.data.batches.voxels import VoxelStore
from dlx.engine.randomness import generator
from dlx.settings.spec import BatchSpec
from small import small_job, small_resolved
from test_voxel_store import make_case

WHOLE = ((0, 10), (0, 8), (0, 6))


def draw(plan, steps=50, batch=8, seed=0):
    return plan.draw_epoch(steps, batch, generator(seed, "order", 1))


def test_patches_stay_inside_their_box_and_reach_every_corner_of_it():
    plan = PatchSampler((1, 4, 4), (5,), (((2, 9), (1, 7), (0, 6)),))
    cases, starts = draw(plan, steps=200)
    assert (cases == 5).all()
    flat = starts.reshape(-1, 3)
    assert flat.min(0).values.tolist() == [2, 1, 0]
    assert flat.max(0).values.tolist() == [8, 3, 2]  # 9 - 1, 7 - 4, 6 - 4


def test_a_patch_larger_than_its_box_is_centred_on_it():
    plan = PatchSampler((1, 12, 6), (0,), (WHOLE,))
    _, starts = draw(plan)
    assert (starts[..., 1] == -2).all()  # 8 voxels in a patch of 12: two before, two after
    assert (starts[..., 2] == 0).all()


def test_all_cases_are_drawn_about_equally_often():
    plan = PatchSampler((1, 4, 4), (3, 7, 9), (WHOLE,) * 3)
    cases, _ = draw(plan, steps=300, batch=10)
    counts = [int((cases == case).sum()) for case in (3, 7, 9)]
    # 3000 draws, each with chance 1/3: standard deviation 25.8; four of them
    assert all(abs(count - 1000) < 104 for count in counts)


def test_the_same_stream_draws_the_same_patches_and_another_seed_others():
    plan = PatchSampler((1, 4, 4), (0, 1), (WHOLE,) * 2)
    assert all(torch.equal(a, b) for a, b in zip(draw(plan), draw(plan), strict=True))
    assert not torch.equal(draw(plan)[1], draw(plan, seed=1)[1])


def test_foreground_patches_hold_a_labelled_voxel():
    case = make_case("a", (10, 8, 6))
    case.mask[:] = 0
    case.mask[7, 6, 1] = 1
    store = VoxelStore([case])
    plan = PatchSampler((1, 4, 4), (0,), (WHOLE,), foreground_fraction=1.0)
    batch = BatchSpec(size=8, slice_axis=0, foreground_fraction=1.0)
    source = PatchSource(store, plan, batch, 2, torch.device("cpu"), 5)
    source.begin_epoch(generator(0, "order", 1))
    for step in range(5):
        _, mask = source.batch(step)
        assert (mask.flatten(1).max(1).values == 1).all()


def centred_one_by_one(plan, order, masks, steps, batch):
    """The starts as they were first computed: patch by patch, from the positions (n, 3) of all labelled voxels."""
    voxels = [(mask > 0).nonzero() for mask in masks]
    extent = torch.tensor(plan.extent)
    picked = torch.randint(len(plan.cases), (steps, batch), generator=order)
    low = torch.tensor([[bounds[0] for bounds in box] for box in plan.boxes])[picked]
    room = torch.tensor([[bounds[1] - bounds[0] for bounds in box] for box in plan.boxes])[picked] - extent
    uniform = torch.rand((steps, batch, 3), generator=order, dtype=torch.float64)
    start = low + torch.where(room >= 0, (uniform * (room + 1)).long(), room // 2)
    counts = torch.tensor([len(positions) for positions in voxels])
    chance = torch.rand(picked.shape, generator=order, dtype=torch.float64)
    which = (torch.rand(picked.shape, generator=order, dtype=torch.float64) * counts[picked]).long()
    for at in ((chance < plan.foreground_fraction) & (counts[picked] > 0)).nonzero().tolist():
        step, position = at
        centre = voxels[picked[step, position]][which[step, position]] - extent // 2
        for axis in range(3):
            if room[step, position, axis] >= 0:
                lowest = int(low[step, position, axis])
                highest = lowest + int(room[step, position, axis])
                start[step, position, axis] = min(max(int(centre[axis]), lowest), highest)
    return torch.tensor(plan.cases)[picked], start


@pytest.mark.parametrize("fraction", [0.3, 1.0])
@pytest.mark.parametrize("extent", [(1, 4, 4), (3, 8, 5), (12, 9, 1)])
def test_foreground_patches_lie_where_they_lay_when_they_were_placed_one_by_one(extent, fraction):
    shapes = [(10, 8, 6), (4, 9, 7), (6, 6, 6), (5, 3, 8)]
    cases = [make_case(str(n), shape, seed=n) for n, shape in enumerate(shapes)]
    cases[1].mask[:] = 0  # no labelled voxel
    cases[3].mask[:] = 0
    cases[3].mask[-1, -1, -1] = 2
    store = VoxelStore(cases)
    boxes = tuple(tuple((0, size) for size in shape) for shape in shapes)
    boxes = (((2, 9), (1, 7), (0, 6)), *boxes[1:])
    plan = PatchSampler(extent, (0, 1, 2, 3), boxes, foreground_fraction=fraction)
    masks = [store.mask(case) for case in plan.cases]
    drawn = plan.draw_epoch(40, 8, generator(0, "order", 1), Foreground(masks))
    expected = centred_one_by_one(plan, generator(0, "order", 1), masks, 40, 8)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(drawn, expected, strict=True))


def test_labelled_voxels_are_kept_in_four_bytes_each():
    mask = torch.from_numpy(make_case("a", (10, 8, 6)).mask)
    kept = Foreground([mask])
    assert (kept.flat.dtype, len(kept.flat)) == (torch.int32, int((mask > 0).sum()))
    every = torch.arange(len(kept.flat))
    assert torch.equal(kept.position(torch.zeros_like(every), every), mask.nonzero())


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_2d_patch_is_a_slice_along_the_slice_axis(axis):
    case = make_case("a", (10, 8, 6), channels=2)
    store = VoxelStore([case])
    batch = BatchSpec(size=3, slice_axis=axis)
    plan = PatchSampler(box_extent((4, 5), batch), (0,), (WHOLE,))
    source = PatchSource(store, plan, batch, 2, torch.device("cpu"), 1)
    source.begin_epoch(generator(0, "order", 1))
    image, mask = source.batch(0)
    assert image.shape == (3, 2, 4, 5)
    assert mask.shape == (3, 4, 5)
    start = source.starts[0, 0].tolist()
    box = tuple(slice(s, s + e) for s, e in zip(start, plan.extent, strict=True))
    np.testing.assert_array_equal(mask[0], case.mask[box].squeeze(axis))
    np.testing.assert_array_equal(image[0], np.moveaxis(case.image[box].squeeze(axis), -1, 0).astype(np.float32))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_block_is_one_cube_of_one_subject_taken_as_slices(axis):
    case = make_case("a", (10, 8, 6))
    store = VoxelStore([case])
    batch = BatchSpec(kind="block", size=5, slice_axis=axis)
    plan = PatchSampler(box_extent((4, 3), batch), (0,), (WHOLE,))
    source = PatchSource(store, plan, batch, 2, torch.device("cpu"), 1)
    source.begin_epoch(generator(0, "order", 1))
    image, mask = source.batch(0)
    assert image.shape == (5, 2, 4, 3)
    box = tuple(slice(s, s + e) for s, e in zip(source.starts[0, 0].tolist(), plan.extent, strict=True))
    np.testing.assert_array_equal(mask, np.moveaxis(case.mask[box], axis, 0))


def test_2d_batches_lie_channels_last():
    store = VoxelStore([make_case("a", (10, 8, 6))])
    batch = BatchSpec(size=3, slice_axis=0)
    source = PatchSource(store, PatchSampler((1, 4, 4), (0,), (WHOLE,)), batch, 2, torch.device("cpu"), 1)
    source.begin_epoch(generator(0, "order", 1))
    assert source.batch(0)[0].is_contiguous(memory_format=torch.channels_last)


def test_patch_size_is_the_median_rounded_up_to_the_stride_and_limited():
    # medians 50 and 35; up to multiples of 8: 56 and 40
    assert fit_patch_size(None, [(50, 35), (40, 30), (59, 43)], stride=8) == (56, 40)
    assert fit_patch_size(None, [(192, 144)], stride=8) == (64, 64)
    assert fit_patch_size(None, [(36, 50, 35)], stride=8) == (40, 48, 40)
    assert fit_patch_size((64, 32), [(50, 35)], stride=8) == (64, 32)


def test_patches_by_class_are_centred_on_each_of_the_cases_classes_equally_often():
    """A rare class (1 voxel of 73) gets half of the patches of a case; a case with one class gets that one."""
    first, second = make_case("a", (10, 8, 6)), make_case("b", (9, 9, 9))
    first.mask[:], second.mask[:] = 0, 0
    first.mask[2:8, 2:6, 1:4] = 1
    first.mask[5, 4, 2] = 2
    second.mask[4, 4, 4] = 3
    store = VoxelStore([first, second])
    boxes = (WHOLE, ((0, 9), (0, 9), (0, 9)))
    plan = PatchSampler((1, 3, 3), (0, 1), boxes, foreground_fraction=1.0, foreground_by="class")
    foreground = Foreground([store.mask(0), store.mask(1)], by_class=True)
    cases, starts = plan.draw_epoch(300, 8, generator(0, "order", 1), foreground)
    centres = starts + torch.tensor(plan.extent) // 2
    found = torch.tensor(
        [
            [int(store.mask(int(c))[tuple(at)]) for c, at in zip(*row, strict=True)]
            for row in zip(cases, centres.tolist(), strict=True)
        ]
    )
    assert set(found[cases == 1].tolist()) == {3}
    num_first = int((cases == 0).sum())
    rare = int((found[cases == 0] == 2).sum())
    assert abs(rare - num_first / 2) < 4 * (num_first / 4) ** 0.5  # four standard deviations
    assert set(found[cases == 0].tolist()) == {1, 2}


def test_the_voxels_of_a_class_are_drawn_equally_often():
    case = make_case("a", (4, 4, 4))
    case.mask[:] = 0
    case.mask[:2] = 1
    case.mask[3, 3, :] = 2
    foreground = Foreground([torch.from_numpy(case.mask)], by_class=True)
    at = torch.zeros(4000, dtype=torch.int64)
    draws = torch.rand(2, 4000, generator=generator(0, "order", 1), dtype=torch.float64)
    positions = foreground.position(at, foreground.draw(at, draws[0], draws[1]))
    seen = {tuple(p): 0 for p in torch.from_numpy(case.mask).nonzero().tolist()}
    for position in positions.tolist():
        seen[tuple(position)] += 1  # KeyError for a voxel without a label
    assert all(abs(n - 2000 / 32) < 4 * 62.5**0.5 for p, n in seen.items() if p[0] < 2)
    assert all(abs(n - 500) < 4 * 500**0.5 for p, n in seen.items() if p[0] == 3)


def test_how_foreground_voxels_are_drawn_changes_no_case_and_no_other_patch():
    cases = [make_case(str(n), (10, 8, 6), seed=n) for n in range(3)]
    cases[2].mask[:] = 0  # no labelled voxel: its patches lie anywhere
    masks = [torch.from_numpy(case.mask) for case in cases]
    drawn = {}
    for by in ("voxel", "class"):
        plan = PatchSampler((1, 4, 4), (0, 1, 2), (WHOLE,) * 3, foreground_fraction=0.4, foreground_by=by)
        drawn[by] = plan.draw_epoch(100, 8, generator(0, "order", 1), Foreground(masks, by_class=by == "class"))
    assert torch.equal(drawn["voxel"][0], drawn["class"][0])
    assert torch.equal(drawn["voxel"][1][drawn["voxel"][0] == 2], drawn["class"][1][drawn["class"][0] == 2])
    is_same = (drawn["voxel"][1] == drawn["class"][1]).all(-1)
    assert 0.6 < float(is_same.float().mean()) < 0.9  # 0.4 * 2 / 3 of the patches are on foreground voxels


def test_voxels_by_class_are_kept_in_four_bytes_each_too():
    mask = torch.from_numpy(make_case("a", (10, 8, 6)).mask)
    kept = Foreground([mask, torch.zeros_like(mask)], by_class=True)
    assert (kept.flat.dtype, kept.counts.tolist()) == (torch.int32, [int((mask > 0).sum()), 0])
    every = torch.arange(len(kept.flat))
    of_each = [mask[tuple(p)] for p in kept.position(torch.zeros_like(every), every).tolist()]
    assert of_each == sorted(of_each)


def test_the_setting_reaches_the_patches_of_a_trial_and_is_in_no_id_at_its_default():
    share = {"batch": {"foreground_fraction": 1.0}}
    by_class = {"batch": {"foreground_by": "class"}}
    sources = [small_job(share, change).step.source for change in ({}, by_class)]
    for source in sources:
        source.begin_epoch(generator(0, "order", 1))
    assert torch.equal(sources[0].cases, sources[1].cases)
    assert not torch.equal(sources[0].starts, sources[1].starts)
    assert "foreground_by" not in small_resolved(share).settings(0)["batch"]
    assert small_resolved(share).trial_id(0) != small_resolved(share, by_class).trial_id(0)
