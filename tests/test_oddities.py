import pytest
import torch

from dlx.data.split import Split
from dlx.models.unet import unet2
from dlx.settings import registry
from dlx.settings.spec import DropoutSpec
from dlx.trial.sanity import odd_dropout, odd_patches, odd_threads
from small import small_resolved
from test_voxels import make_case


class Data:
    def __init__(self, *cases):
        self.cases = cases
        self.classes = ("background", "one", "two")


def split(*ids):
    return Split(train=ids, val=("v",))


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
    assert odd_threads(4, 2) == ["4 threads on 2 cores train slower than 2 would"]


def remarks_on_dropout(p=0.5, where="every", model="unet2", **args):
    with torch.device("meta"):
        return odd_dropout(registry.load("model", model)(2, 4, DropoutSpec(p=p, where=where), width=4, **args), 2)


@pytest.mark.parametrize("model", registry.names("model"))
def test_dropout_before_batch_norm_is_told(model):
    (remark,) = remarks_on_dropout(model=model)
    assert remark.startswith("dropout comes before batch norm")


@pytest.mark.parametrize("norm", ["none", "instance", "group"])
def test_dropout_before_a_norm_without_running_statistics_is_not_odd(norm):
    assert remarks_on_dropout(norm=norm) == []


def test_dropout_that_no_batch_norm_follows_is_not_odd():
    assert remarks_on_dropout(p=0.0) == []
    model = unet2(2, 4, DropoutSpec(p=0.5), width=4, levels=1)
    del model.dropouts["encoder0_0"]  # what is left stands before the head
    assert odd_dropout(model.to("meta"), 2) == []


@pytest.mark.parametrize("where", ["every", "decoder", "bottleneck"])
def test_the_way_of_the_features_decides_and_not_the_settings(where):
    assert len(remarks_on_dropout(where=where)) == 1
    assert len(remarks_on_dropout(where=where, norm="none", down_norm="batch")) == (where == "every")


def test_a_trial_with_dropout_is_remarked_on_once_and_one_without_is_not():
    assert sum("batch norm" in remark for remark in small_resolved({"dropout": {"p": 0.1}}).remarks) == 1
    assert small_resolved().remarks == ()
