import numpy as np

from dlx.data.split import Split
from dlx.oddities import odd_data, odd_patches, odd_threads
from small import small_resolved
from test_voxels import make_case


class Data:
    def __init__(self, *cases):
        self.cases = cases
        self.classes = ("background", "one", "two")


def split(*ids):
    return Split(train=ids, val=("v",))


def test_a_class_that_no_training_case_has_is_told():
    case = make_case("a", (4, 6, 8))
    case.mask[:] = 0
    case.mask[0, 0, 0] = 2
    (remark,) = odd_data(Data(case, make_case("v", (4, 6, 8))), split("a"))
    assert remark == "no training case has the class 'one'"


def test_an_image_that_trains_twice_is_told():
    cases = [make_case(name, (4, 6, 8)) for name in ("a", "b")]
    for case in cases:
        case.mask[0, 0, :3] = (0, 1, 2)
        object.__setattr__(case, "value_hash", "same")
    assert odd_data(Data(*cases), split("a", "b")) == ["b holds the same image as a: it trains twice"]


def remarks_of(shape, **batch):
    spec = small_resolved({"batch": batch}).spec
    return odd_patches(spec, Data(make_case("a", shape)), split("a"), 2)


def test_slices_cut_along_the_wrong_axis_are_told():
    (remark,) = remarks_of((48, 48, 2), patch_size_px=[48, 2])
    assert remark == "slices along array axis 0 are 48 x 2: was batch.slice_axis=2 meant?"
    assert remarks_of((2, 48, 48), patch_size_px=[48, 48]) == []
    assert remarks_of((1, 48, 6), patch_size_px=[48, 6]) == []  # a 2D image has no other axis


def test_patches_of_mostly_padding_are_told():
    (remark,) = remarks_of((32, 32, 32), patch_size_px=[1000, 32])
    assert remark == "patches of 1000 x 32 are mostly padding: nothing there is larger than 32 x 32"
    assert remarks_of((32, 32, 30), patch_size_px=[32, 32]) == []


def test_more_threads_than_cores_are_told():
    assert odd_threads(2, 2) == []
    assert odd_threads(4, 2) == ["4 threads on 2 core(s) train slower than 2 would"]


def test_the_phantom_is_not_odd():
    resolved = small_resolved()
    assert odd_data(resolved.dataset, resolved.split) == []
    assert np.prod(resolved.dataset.cases[0].mask.shape) > 0
