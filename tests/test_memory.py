"""What evaluation takes in memory, and that nothing of its result depends on how it is cut to pieces."""

import dataclasses
import itertools
import mmap

import pytest
import torch

import measure_memory
from dlx.data.cases import Original
from dlx.data.dataset import open_dataset
from dlx.engine import evaluate
from dlx.engine.footprint import PeakBytes, forward_bytes
from dlx.engine.score import score_set
from dlx.execution.planning.plan import make_plan
from dlx.execution.trials.stores import host_stores
from dlx.scoring.outputs import Outputs
from dlx.scoring.surface import surface_threads
from dlx.settings import registry
from dlx.settings.spec import DataSpec
from dlx.study.axes import Variant
from dlx.study.study import Study
from dlx.system import memory
from dlx.system.errors import DataError
from dlx.trial import evaluation_memory
from dlx.trial.factories import make_model
from dlx.trial.resolve import resolve
from small import small_job, small_resolved, small_spec

THREE_D = {"model": {"dims": 3}, "batch": {"patch_size_px": [8, 16, 12], "size": 2}}
FLAT_WINDOWS = {"model": {"dims": 3}, "batch": {"patch_size_px": [4, 48, 48]}, "evaluate": {"batch_size": 1}}


@pytest.mark.parametrize(
    "changes",
    [
        {"evaluate": {"batch_size": 5}},
        {"batch": {"slice_axis": 1}},
        {"batch": {"slice_axis": 2}},
        THREE_D,
        {
            "data": {"source": "phantom:subjects=3,size=22"},
            "model": {"dims": 3},
            "batch": {"patch_size_px": [32, 8, 16]},
        },
    ],
    ids=["slices", "axis 1", "axis 2", "windows", "a window deeper than the case"],
)
def test_evaluation_in_small_pieces_equals_evaluation_of_the_whole_to_the_bit(monkeypatch, changes):
    job = small_job(changes, {"evaluate": {"soft_dice": True}})
    monkeypatch.setattr(evaluate, "PIECE_SIZE", 2**40)
    whole = job.evaluator.measure(job.model, job.val_cases, keep_predictions=True)
    monkeypatch.setattr(evaluate, "PIECE_SIZE", 1)
    pieces = job.evaluator.measure(job.model, job.val_cases, keep_predictions=True)
    assert torch.equal(pieces.counts, whole.counts)
    assert torch.equal(pieces.soft, whole.soft)
    assert torch.equal(pieces.predictions[0], whole.predictions[0])


def test_windows_in_slabs_equal_windows_summed_over_the_whole_case():
    job = small_job(THREE_D)
    evaluator, model, case = job.evaluator, job.model.eval(), job.val_cases[0]
    shape, window = evaluator.store.shapes[case], (8, 16, 12)
    total, weights = torch.zeros(4, *shape), torch.zeros(shape)
    grids = [evaluate.window_starts(n, w, 0.5) for n, w in zip(shape, window, strict=True)]
    slabs = torch.empty(4, *shape)
    with torch.inference_mode():
        for start in itertools.product(*grids):
            image, _ = evaluator.store.gather(torch.tensor([case]), torch.tensor([start]), window)
            inside = tuple(slice(at, at + size) for at, size in zip(start, window, strict=True))
            total[(slice(None), *inside)] += model(image.movedim(-1, 1)).softmax(1)[0] * evaluate.gaussian_weight(
                window
            )
            weights[inside] += evaluate.gaussian_weight(window)
        for place, piece in evaluator.pieces(model, case):
            slabs[(slice(None), *place)] = piece
    torch.testing.assert_close(slabs, total / weights, rtol=0, atol=1e-5)


def test_soft_sums_of_a_large_case_are_those_of_its_pieces(monkeypatch):
    job = small_job({"evaluate": {"soft_dice": True}})
    whole = job.evaluator.measure(job.model, job.val_cases).soft
    monkeypatch.setattr(evaluate, "MAX_EXACT_SOFT", 0)
    monkeypatch.setattr(evaluate, "PIECE_SIZE", 1)
    torch.testing.assert_close(job.evaluator.measure(job.model, job.val_cases).soft, whole, rtol=1e-5, atol=0)


def peak_of_evaluation(job, **changes):
    """Bytes of the tensors that evaluating the validation case takes at its peak."""
    evaluator = dataclasses.replace(job.evaluator, **changes)
    with PeakBytes() as counter:
        evaluator.measure(job.model, job.val_cases)
    return counter.peak


class Classes(torch.nn.Module):
    """Logits of any number of classes, in next to no memory besides."""

    def __init__(self, dims: int, num_classes: int) -> None:
        super().__init__()
        make = torch.nn.Conv2d if dims == 2 else torch.nn.Conv3d
        self.head = make(2, num_classes, 1)

    def forward(self, image):
        return self.head(image)


@pytest.mark.parametrize("changes", [{"evaluate": {"batch_size": 2}}, FLAT_WINDOWS], ids=["2D", "3D"])
def test_peak_memory_does_not_grow_with_classes_times_the_voxels_of_a_case(monkeypatch, changes):
    monkeypatch.setattr(evaluate, "PIECE_SIZE", 1)
    job = small_job({"data": {"source": "phantom:subjects=2,size=48"}, "split": {"val_fraction": 0.5}}, changes)
    voxels = job.evaluator.store.voxels(job.val_cases[0])
    peaks = []
    for num_classes in (4, 44):
        job.model = Classes(job.evaluator.dims, num_classes)
        peaks.append(peak_of_evaluation(job, outputs=Outputs(num_classes)))
    assert (peaks[1] - peaks[0]) / 40 < 2 * voxels  # a float32 for each class and voxel would be 4


def test_the_peak_of_a_forward_pass_is_counted_tensor_by_tensor():
    with torch.device("meta"):
        model = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 1))
    # the image of 100 floats, which the caller holds, and two features of 800 at once
    assert forward_bytes(model, (1, 1, 10, 10)) == 4 * (100 + 800 + 800)
    assert model.training


@pytest.fixture
def limit_memory(monkeypatch, tmp_path):
    """A function that limits the memory of this machine to a number of bytes, as a container does."""
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    return lambda limit: (tmp_path / "memory.max").write_text(f"{limit}\n")


def bytes_of_a_slice() -> int:
    """What a slice of the small study takes during evaluation."""
    resolved = small_resolved()
    with torch.device("meta"):
        model = make_model(resolved.spec, resolved.dataset)
    return evaluation_memory.bytes_of_each(resolved.spec, model, resolved.dataset, (24, 24))


def test_the_evaluated_batch_is_halved_until_it_fits_the_memory(limit_memory):
    each, before = bytes_of_a_slice(), small_resolved()
    assert before.spec.evaluate.batch_size == 64
    for limit, fitted in ((4 * 64 * each, 64), (4 * 64 * each - 4, 32), (4 * 17 * each, 16), (4 * each - 4, 1)):
        limit_memory(limit)
        resolved = small_resolved()
        assert resolved.spec.evaluate.batch_size == fitted
        assert (resolved.trial_id(0) == before.trial_id(0)) == (fitted == 64)
        remarks = [remark for remark in resolved.remarks if remark.startswith("evaluate.batch_size: ")]
        assert len(remarks) == (fitted < 64)
        assert all(f"from 64 to {fitted}" in remark for remark in remarks)
    assert small_resolved({"evaluate": {"batch_size": 48}}).spec.evaluate.batch_size == 48


def test_the_soft_dice_of_resampled_cases_takes_the_memory_of_their_original_voxels(limit_memory):
    spec, dataset = small_spec({"evaluate": {"soft_dice": True}}), small_resolved().dataset
    cases = [
        dataclasses.replace(case, original=Original(case.mask.repeat(4, axis=0), (0.25, 1.0, 1.0)))
        for case in dataset.cases
    ]
    resampled = dataclasses.replace(dataset, cases=tuple(cases))
    kept = 2 * 4 * 4 * (4 * 24 * 24 * 24)  # the pieces and their concatenation: a float32 for each of four classes
    room = 64 * bytes_of_a_slice() + kept
    for limit, fitted in ((4 * room, 64), (4 * room - 4, 32)):
        limit_memory(limit)
        assert resolve(spec, resampled).spec.evaluate.batch_size == fitted


def test_a_study_that_began_with_the_whole_batch_keeps_it(limit_memory, tmp_path):
    study = Study(name="s", variants=(Variant(label="unet2", spec=small_spec()),), seeds=(0,))

    def planned(**known):
        (trial,) = make_plan(study, tmp_path / "out", cache_dir=None, keep_cache=False, **known).trials
        return trial.resolved.trial_id(0), trial.resolved.spec.evaluate.batch_size

    before, _ = planned()
    limit_memory(4 * 32 * bytes_of_a_slice())
    now, fitted = planned()
    assert (now != before, fitted) == (True, 32)
    assert planned(known_trials=[before]) == (before, 64)
    assert planned(known_trials=[now, before]) == (now, 32)
    assert planned(known_trials=["of another study"]) == (now, 32)


def test_the_slab_of_a_window_as_deep_as_the_case_is_counted():
    job = small_job({"model": {"dims": 3}, "batch": {"patch_size_px": [24, 8, 8]}, "evaluate": {"batch_size": 1}})
    shape = job.evaluator.store.shapes[job.val_cases[0]]
    peaks = []
    for num_classes in (4, 44):
        job.model = Classes(3, num_classes)
        peaks.append(peak_of_evaluation(job, outputs=Outputs(num_classes)))
    few, many = (evaluation_memory.slab_bytes((24, 8, 8), [shape], Outputs(n)) for n in (4, 44))
    pieces = 2 * 4 * 40 * 24 * (24 * 24 + 8 * 8)  # at the end a piece of the whole case, and the window's probabilities
    assert many - few == 4 * 40 * 24 * 24 * 24
    assert many - few < peaks[1] - peaks[0] < many - few + pieces


def test_a_slab_leaves_less_memory_for_windows(limit_memory):
    asked = {"model": {"dims": 3}, "batch": {"patch_size_px": [24, 24, 24]}}
    resolved = small_resolved(asked)
    with torch.device("meta"):
        model = make_model(resolved.spec, resolved.dataset)
    each = evaluation_memory.bytes_of_each(resolved.spec, model, resolved.dataset, (24, 24, 24))
    slab = 4 * 5 * 24**3
    for room, fitted in ((64 * each + slab, 64), (64 * each + slab - 1, 32)):
        limit_memory(4 * room)
        assert small_resolved(asked).spec.evaluate.batch_size == fitted


class Untraceable(torch.nn.Module):
    """A network that cannot run on the meta device."""

    dims, stride = 2, 1

    def __init__(self, in_channels, num_classes, dropout, *, width: int = 1, levels: int = 1) -> None:
        super().__init__()
        self.head = torch.nn.Conv2d(in_channels, num_classes, 1)

    def forward(self, image):
        return self.head(image) * image.sum().item()

    def parameter_groups(self):
        return {"head": list(self.parameters())}


def test_small_data_are_resolved_without_a_trace_and_a_network_that_has_none_is_reported(monkeypatch, limit_memory):
    monkeypatch.setitem(registry.PARTS["model"], "untraceable", f"{__name__}:Untraceable")
    asked = {"model": {"name": "untraceable"}}
    said = "evaluate.batch_size: the memory of this network cannot be measured"
    assert not any(said in remark for remark in small_resolved(asked).remarks)
    limit_memory(2**26)
    assert any(said in remark for remark in small_resolved(asked).remarks)


@pytest.mark.parametrize(
    ("name", "text", "limit"),
    [
        ("memory.max", "1048576\n", 1048576),
        ("memory.max", "max\n", None),
        ("memory/memory.limit_in_bytes", "4096", 4096),
    ],
)
def test_a_containers_limit_is_its_memory(tmp_path, monkeypatch, name, text, limit):
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    whole = memory.host_memory_bytes()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert memory.host_memory_bytes() == (whole if limit is None else limit)


def test_cases_beyond_the_memory_are_refused_while_they_are_read(limit_memory):
    spec = DataSpec.model_validate({"source": "phantom:subjects=4,size=16"})
    case_bytes = 16**3 * (2 * 2 + 1)
    limit_memory(8 * case_bytes)
    dataset = open_dataset(spec, cache_dir=None)
    assert [case.image.nbytes + case.mask.nbytes for case in dataset.cases] == [case_bytes] * 4
    limit_memory(8 * case_bytes - 1)
    with pytest.raises(DataError, match=r"first 4 of 4 cases take .* use fewer cases"):
        open_dataset(spec, cache_dir=None)
    limit_memory(4 * case_bytes)
    with pytest.raises(DataError, match="first 3 of 4 cases"):
        open_dataset(spec, cache_dir=None)


def test_prepared_cases_beyond_the_memory_are_refused_before_they_are_copied(limit_memory):
    resolved = small_resolved()
    (size,) = [store.nbytes for store in host_stores([resolved]).values()]
    limit_memory(size)
    assert [store.nbytes for store in host_stores([resolved, resolved]).values()] == [size]
    limit_memory(size - 1)
    with pytest.raises(DataError, match=r"cases take .* GiB of memory"):
        host_stores([resolved])


@pytest.mark.skipif(not memory.STATUS.exists(), reason="needs Linux's /proc")
def test_the_peak_memory_of_the_process_can_be_reset():
    size = 2**26
    with mmap.mmap(-1, 2 * size) as held:
        held[:: mmap.PAGESIZE] = bytes(2 * size // mmap.PAGESIZE)
        before = memory.peak_bytes()
    if not memory.reset_peak():
        pytest.skip("this system cannot reset the peak")
    assert memory.peak_bytes() <= before - size
    with mmap.mmap(-1, size) as held:
        low = memory.peak_bytes()
        held[:: mmap.PAGESIZE] = bytes(size // mmap.PAGESIZE)
        assert memory.peak_bytes() >= low + size // 2


@pytest.mark.parametrize("dims", [2, 3])
def test_the_memory_of_a_large_case_can_be_measured(dims):
    if not memory.reset_peak():
        pytest.skip("this system does not tell a process's peak of memory")
    found = measure_memory.measure((16, 24, 32), num_classes=3, width=2, dims=dims, threads=1)
    assert found["evaluating"] > 0
    assert found["scoring"] > 0


def test_large_cases_have_their_surfaces_scored_in_few_threads():
    assert surface_threads(64, 512 * 512 * 600) == 2
    assert surface_threads(16, 144 * 192 * 256) == 16
    assert surface_threads(1, 2000**3) == 1


def test_surfaces_scored_in_threads_equal_those_of_one_thread():
    job = small_job({"split": {"val_fraction": 0.5}})
    store = job.evaluator.store
    moved = tuple(store.mask(case).roll(1, 0) for case in job.val_cases)
    measured = dataclasses.replace(job.evaluator.measure(job.model, job.val_cases), predictions=moved)
    scored = []
    for threads in (1, 3):
        job.compute = dataclasses.replace(job.compute, threads=threads)
        scored.append(score_set(job, job.val_cases, measured, 1.0))
    assert scored[0] == scored[1]
    assert all(case.hd95_mm["WM"] for case in scored[0].cases.values())
