"""`dlx export`: files give the labels that the network gives, also in programs without dlx."""

import ast
import hashlib
import json
import runpy
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import jaxtyping
import nibabel
import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import dlx as public
import made_grids
from conftest import DEEPER
from dlx.cli.main import app
from dlx.cli.output.exporting import unlike_predict
from dlx.engine import device
from dlx.exporting import export as exporting
from dlx.exporting.check import SHARE, FileCheck, FileComparison, as_the_engine
from dlx.exporting.export import ExportedFile, export
from dlx.exporting.images import cut_inputs, images_of_run
from dlx.exporting.network_file import METADATA_KEY
from dlx.exporting.norms import ExactNorm, make_norms_exact
from dlx.exporting.onnx_file import PACKAGES, load_onnx, onnx_bytes
from dlx.exporting.plain import made_up_images, plain_network, without_messages
from dlx.exporting.preparation import describe_preparation
from dlx.exporting.torchscript_file import load_torchscript, torchscript_bytes
from dlx.models.layers.blocks import ConvBlock
from dlx.prediction.trained_network import load_network
from dlx.scoring.outputs import Outputs
from dlx.settings.part import Part
from dlx.system.errors import DataError, DlxError, SettingError
from made_networks import make
from made_own_networks import NETS
from made_scans import TRAIN, make_data, train, voxels_of
from pages import ROOT, blocks_of, text_of
from test_models import CASES, every_network

# of float32 logits, as a share of the largest one; the exporters' own tolerance is 1e-4
ROUNDING = 1e-5
SCRIPT = ROOT / "docs/exported_labels.py"
# layers that no registered network has by default
KINDS = {
    "instance, convolutions": (
        "unet2",
        {"dims": 3, "levels": 2, "norm": "instance", "down": "conv", "up": "transposed", "activation": "leaky-relu"},
    ),
    "group, average": ("unet2", {"dims": 2, "levels": 3, "norm": "group", "down": "average", "deep_supervision": 1}),
    "gaussian": ("voxel", {"dims": 3, "features": "gaussian", "norm": "none"}),
}


@pytest.fixture(autouse=True, scope="module")
def sizes_may_be_symbols():
    """The shapes of models are not checked while exporters trace them: their sizes are no numbers then."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def largest_difference(network, file):
    """Of logits on noise, as a share of the largest logit; sizes and batch are not those that were traced."""
    image = made_up_images(network, 2, batch=3, variation=1)
    with torch.no_grad():
        expected = as_the_engine(network)(image)
    found = file(image)
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def written(network, make_bytes, *args):
    plain = plain_network(network, 2)
    return make_bytes(plain, made_up_images(plain, 2), "{}", *args)


STUBBORN = """
import torch
from torch import nn


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, image):
        return 2 * image

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


class Net(nn.Module):
    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.head = nn.Conv2d(in_channels, num_classes, 1)

    def forward(self, image):
        return Twice.apply(self.head(image))
"""


# networks


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dims"), [case for case in CASES if not DEEPER.search(case.id)])
def test_torchscript_gives_the_logits_of_each_network(name, dims):
    network = make(name, dims).eval()
    assert largest_difference(network, load_torchscript(written(network, torchscript_bytes))) < ROUNDING


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_onnx_gives_the_logits_of_each_kind_of_layer(kind):
    name, args = KINDS[kind]
    network = make(name, args).eval()
    assert largest_difference(network, load_onnx(written(network, onnx_bytes, 18))) < ROUNDING


@pytest.mark.long
@every_network
def test_onnx_gives_the_logits_of_each_network(name, dims):
    network = make(name, dims).eval()
    assert largest_difference(network, load_onnx(written(network, onnx_bytes, 18))) < ROUNDING


@every_network
def test_the_plain_network_computes_the_same_and_leaves_the_network_as_it_is(name, dims):
    is_voxel = name == "voxel"  # its features are float32
    args = {"features": "gaussian"} if is_voxel else {"norm": "group"}
    network = make(name, dims, **args).train()
    plain = plain_network(network, 2)
    assert network.training
    assert not plain.training
    for module, copied in zip(network.modules(), plain.modules(), strict=True):
        assert isinstance(copied, ExactNorm) == isinstance(module, nn.GroupNorm)
        if isinstance(module, ConvBlock):
            assert (module.is_plain, copied.is_plain) == (False, True)
    dtype = torch.float32 if is_voxel else torch.float64
    image = made_up_images(network, 2).to(dtype)
    with torch.no_grad():
        torch.testing.assert_close(plain.to(dtype)(image), network.eval().to(dtype)(image))


@pytest.mark.parametrize(
    "norm",
    [nn.GroupNorm(2, 6), nn.GroupNorm(6, 6, affine=False), nn.InstanceNorm3d(6), nn.InstanceNorm3d(6, affine=True)],
    ids=str,
)
def test_exact_norms_are_torchs_norms(norm):
    network = nn.Sequential(norm).double().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(2))
    features = torch.randn(2, 6, 3, 4, 5, generator=torch.Generator().manual_seed(1)).double()
    expected = network(features)
    make_norms_exact(network)
    assert isinstance(network[0], ExactNorm)
    torch.testing.assert_close(network(features), expected)


def test_norms_with_running_statistics_stay():
    network = nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True), nn.BatchNorm2d(3))
    make_norms_exact(network)
    assert [type(layer) for layer in network] == [nn.InstanceNorm2d, nn.BatchNorm2d]


def test_exact_norms_are_exact_where_torchs_of_channels_last_features_are_not():
    features = torch.randn(1, 4, 48, 48, 48, generator=torch.Generator().manual_seed(1)).exp()
    wide = features.double()
    expected = (wide - wide.mean((2, 3, 4), keepdim=True)) / (
        wide.var((2, 3, 4), keepdim=True, correction=0) + 1e-5
    ).sqrt()
    norm = nn.GroupNorm(4, 4, affine=False)
    found = ExactNorm(4, 4, norm.eps, None, None)(features)
    of_torch = norm(features.contiguous(memory_format=torch.channels_last_3d))
    assert (found - expected).abs().max() < 1e-5
    assert (of_torch - expected).abs().max() > 1e-4  # once this fails, docs/export.md may say less


# labels, in a program without dlx


def run_command(*args):
    """A command line in the working folder, which has to succeed; what it printed."""
    result = CliRunner().invoke(app, [*args, *(["--cache-dir", "cache"] if args[0] == "train" else [])])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with runs and their data, which tests only read: `slices` in 2D with averaged weights; `volumes` of a
    3D network, for CT with regions, with several windows and mirrored predictions. Ten scans are in `new`.
    """
    folder = tmp_path_factory.mktemp("made")
    for name in ("slices", "volumes"):
        (folder / name).mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "slices")
        train(run_command, "orientations", make_data("ignored", run_command))
        patch.chdir(folder / "volumes")
        data = make_data("regions", run_command)
        table = json.loads((data / "dataset.json").read_text())
        (data / "dataset.json").write_text(json.dumps(table | {"channel_names": {"0": "CT"}}))
        train(run_command, "3d", data, "--set", "model.norm=batch", "--set", "evaluate.mirror=true")
    made_grids.write(folder / "new", {f"s{k}": ("LPS", (1.0, 1.2, 1.4)) for k in range(10, 20)}, (13, 15, 17))
    return folder


@pytest.fixture
def trained_slices(made):
    """The network of `slices`; its name is the path of its checkpoint."""
    (path,) = (made / "slices/run").glob("trials/*/last.safetensors")
    return load_network(path)


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A working folder with copies of the two runs, whose data are elsewhere, and the ten scans in `scans`."""
    monkeypatch.chdir(tmp_path)
    for name in ("slices", "volumes"):
        shutil.copytree(made / name / "run", name)
    shutil.copytree(made / "new/imagesTr", "scans")
    return tmp_path


def scans():
    found = sorted(Path("scans").iterdir())
    assert len(found) == 10
    return found


def as_read(path):
    """The image (1, z, y, x), read by another library than dlx's."""
    return np.asarray(nibabel.load(path).dataobj).T[None]


def test_the_script_of_the_documentation_needs_no_dlx():
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    third_party = {module.partition(".")[0] for module in modules} - {*sys.stdlib_module_names}
    assert third_party == {"nibabel", "numpy", "onnxruntime"}


@pytest.fixture(scope="module")
def in_onnx(made):
    """A folder with the ONNX files of both runs: `slices.onnx`, `volumes.onnx`."""
    for run in ("slices", "volumes"):
        printed = run_command("export", str(made / run / "run"), "-o", str(made / f"{run}.onnx"))
        assert f"checked by onnxruntime on 3 images: the run's data ({made / run}" in printed
        assert "labels: 0 of " in printed
    return made


@pytest.mark.slow
@pytest.mark.parametrize("run", [pytest.param("slices", marks=pytest.mark.long), "volumes"])
def test_a_program_without_dlx_gives_every_voxel_the_label_of_dlx_predict(here, in_onnx, run):
    """The script of docs/export.md, which has numpy, onnxruntime and the JSON file; for slices also the page's code."""
    for ending in ("onnx", "json"):
        shutil.copy(in_onnx / f"{run}.{ending}", f"net.{ending}")
    run_command("predict", "-i", "scans", "-o", "predicted", "-m", run, "--device", "cpu")
    predict = runpy.run_path(str(SCRIPT))["predict"]
    (page_code,) = [block.lines for block in blocks_of("", text_of("docs/export.md")) if block.language == "python"]
    seen, differing = set(), 0
    for path in scans():
        expected = voxels_of(Path("predicted") / path.name.replace("_0000", ""))
        seen |= {*np.unique(expected).tolist()}
        differing += np.count_nonzero(predict(Path("net.onnx"), as_read(path)) != expected)
        if run == "slices":
            shutil.copy(path, "scan.nii.gz")
            exec("\n".join(page_code), {})
            differing += np.count_nonzero(as_read(Path("labels.nii.gz"))[0] != expected)
    assert len(seen) > 1
    assert differing == 0


def test_the_script_refuses_an_image_that_would_be_turned_or_resampled_first():
    check_grid = runpy.run_path(str(SCRIPT))["check_grid"]
    image = nibabel.Nifti1Image(np.zeros((4, 5, 1), np.uint8), np.diag([1.0, 1.2, 3.0, 1.0]))  # runs to RAS
    described = {"orientation": "RAS", "spacing_mm": [1.0, 1.2, 1.4]}
    check_grid(image, described)  # one voxel along z has no spacing that matters
    check_grid(image, {"orientation": None, "spacing_mm": None})
    with pytest.raises(SystemExit, match="axes of the image run to RAS, and those of the network to LPS"):
        check_grid(image, described | {"orientation": "LPS"})
    with pytest.raises(SystemExit, match="resample the image first"):
        check_grid(image, described | {"spacing_mm": [1.0, 1.25, 1.4]})


# what is written


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["onnx", "torchscript"])
def test_the_description_is_in_the_file_and_beside_it(here, in_onnx, file_format):
    import onnx

    (checkpoint,) = Path("volumes").glob("trials/*/last.safetensors")
    if file_format == "onnx":
        path, description = in_onnx / "volumes.onnx", in_onnx / "volumes.json"
    else:
        (exported,) = export("volumes", format="torchscript")
        path, description = exported.path, exported.description
        assert (path, description) == (checkpoint.with_suffix(".pt"), checkpoint.with_suffix(".json"))
    described = json.loads(description.read_text())
    if file_format == "onnx":
        model = onnx.load(path)
        inside = {entry.key: entry.value for entry in model.metadata_props}[METADATA_KEY]
        tensors = [entry.type.tensor_type for entry in (*model.graph.input, *model.graph.output)]
        shapes = [[size.dim_value or size.dim_param for size in tensor.shape.dim] for tensor in tensors]
        assert [shape[1] for shape in shapes] == [1, 2]
        assert all(isinstance(size, str) and size.startswith("2*") for shape in shapes for size in shape[2:])
    else:
        extra = {f"{METADATA_KEY}.json": ""}
        with without_messages():
            torch.jit.load(path, _extra_files=extra)
        inside = extra[f"{METADATA_KEY}.json"]
    assert json.loads(inside) == described
    assert described["trial"]["checkpoint_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    network = load_network(checkpoint)
    (window,) = network.windows
    assert described["intensities"] == [{"channel": "CT", "method": "window", **window.model_dump()}]
    assert described["output"]["regions"] == [
        {"name": "whole", "labels": [1, 2], "written_as": 1},
        {"name": "inner", "labels": [2], "written_as": 2},
    ]
    assert described["cut"]["window_px"] == [8, 12, 10]
    assert described["mirrored_axes"] == [0, 1, 2]
    assert described["orientation"] == "LPS"
    assert described["spacing_mm"] == pytest.approx([1.0, 1.2, 1.4])
    assert described["input"]["size_multiple"] == 2
    steps = " ".join(described["steps"])
    for number in (*window.model_dump().values(), network.spec.evaluate.overlap_fraction):
        assert f" {number:.9g}" in steps
    content = path.read_bytes()
    assert str(ROOT).encode() not in content
    assert str(in_onnx).encode() not in content


@pytest.mark.parametrize(
    ("normalize", "expected", "words"),
    [
        ("zscore:over=all", {"method": "zscore", "over": "all"}, "of all voxels; pad value 0"),
        ("minmax:over=foreground", {"method": "minmax", "over": "foreground"}, "pad value: what 0 becomes"),
        (
            "percentile:low=1,high=99,over=all",
            {"method": "percentile", "low": 1, "high": 99, "over": "all"},
            "percentiles 1 and 99 of all voxels",
        ),
        ("whiten:over=all", {"method": "whiten", "over": "all"}, "ZCA-cor"),
        ("rgb", {"method": "rgb"}, "divide by 255"),
        ("none", {"method": "none"}, "leave as it is; pad value 0"),
        ("mixed:schemes=[zscore]", {"method": "zscore", "over": "all"}, "of all voxels; pad value 0"),
        ("mixed:schemes=[rgb]", {"method": "rgb"}, "divide by 255; pad value 0"),
    ],
)
def test_each_normaliser_is_described(trained_slices, normalize, expected, words):
    spec = trained_slices.spec
    data = spec.data.model_copy(update={"normalize": Part.model_validate(normalize)})
    trained = replace(trained_slices, spec=spec.model_copy(update={"data": data}))
    described = describe_preparation(trained, SCRIPT)
    assert described["intensities"] == [{"channel": "T1", **expected}]
    assert words in described["steps"][1]


def test_a_window_that_a_checkpoint_lacks_is_named(trained_slices):
    spec = trained_slices.spec
    data = spec.data.model_copy(update={"normalize": Part(name="ct", args={"low": 0.5, "high": 99.5})})
    with pytest.raises(DataError, match="lacks the window of channel 'T1'"):
        describe_preparation(replace(trained_slices, spec=spec.model_copy(update={"data": data})), SCRIPT)


# where it is written


def test_several_networks_are_a_file_each_in_a_folder(here):
    header = json.loads(Path("slices/study.json").read_text())
    (trial,) = Path("slices/trials").iterdir()
    again = header["trials"][0] | {"seed": 1, "trial": "f" * 32}
    changed = {"trials": [*header["trials"], again], "seeds": [0, 1]}
    Path("slices/study.json").write_text(json.dumps(header | changed))
    copied = Path(shutil.copytree(trial, trial.with_name("unet2-seed1-ffffffff")))
    exported = public.export("slices", "nets", format="torchscript")
    names = [trial.name, copied.name]
    assert [one.path for one in exported] == [Path("nets") / f"{name}.pt" for name in names]
    assert sorted(path.name for path in Path("nets").iterdir()) == sorted(
        f"{n}.{e}" for n in names for e in ("pt", "json")
    )
    with pytest.raises(SettingError, match=r"one.pt: is one file for 2 networks .*seed 0.*seed 1"):
        export("slices", "one.pt", format="torchscript")
    (best,) = export(trial, "nets/", format="torchscript", checkpoint="best")
    assert best.path.name == f"{trial.name}-best.pt"


@pytest.mark.parametrize("out", ["net.onnx", "net.pth", "net.zip"])
def test_a_file_of_another_ending_is_refused(here, out):
    with pytest.raises(SettingError, match=r"expected a file that ends in \.pt, or a folder"):
        export("slices", out, format="torchscript")


def test_only_exports_are_replaced(here):
    Path("net.json").write_text('{"labels": {"background": 0}}')
    with pytest.raises(SettingError, match=r"net\.json: is there, and no export of dlx: --overwrite"):
        export("slices", "net.pt", format="torchscript")
    export("slices", "net.pt", format="torchscript", overwrite=True)
    export("slices", "net.pt", format="torchscript")
    Path("net.json").unlink()
    with pytest.raises(SettingError, match=r"net\.pt: is there, and no export of dlx"):
        export("slices", "net.pt", format="torchscript")


def test_a_format_that_is_none_is_refused(here):
    with pytest.raises(SettingError, match="--format tflite: expected onnx or torchscript"):
        export("slices", format="tflite")


def test_a_file_beside_the_description_of_another_is_kept(here):
    """The description alone does not make a file an export."""
    export("slices", "net.pt", format="torchscript")
    Path("net.pt").write_bytes(b"weights of another program")
    with pytest.raises(SettingError, match=r"^net\.pt: is there, and no export of dlx"):
        export("slices", "net.pt", format="torchscript")
    assert Path("net.pt").read_bytes() == b"weights of another program"


def test_a_description_is_not_shared_by_two_networks(here):
    """net.json would be that of the other network for a program that reads net.onnx."""
    export("slices", "net.pt", format="torchscript")
    before = Path("net.json").read_bytes()
    Path("net.pt").rename("net.onnx")
    export("slices", "net.pt", format="torchscript")  # of the same checkpoint
    (other,) = Path("volumes").glob("trials/*/last.safetensors")
    with pytest.raises(SettingError, match=r"net\.json describes net\.onnx too, which is of another network"):
        export(other, "net.pt", format="torchscript")
    assert Path("net.json").read_bytes() == before


def test_a_slash_at_the_end_makes_a_folder_of_a_name_with_a_dot(here):
    run_command("export", "slices", "-o", "nets-v1.2/", "--format", "torchscript")
    assert len([*Path("nets-v1.2").glob("*.pt")]) == 1


def test_a_file_in_place_of_the_folder_is_named(here):
    Path("nets").write_text("")
    with pytest.raises(SettingError, match=r"^-o nets: nets is a file, not a folder$"):
        export("slices", "nets/net.pt", format="torchscript")


@pytest.mark.parametrize("opset", [0, 17, 24])
def test_an_opset_that_torch_does_not_write_is_refused(here, opset):
    with pytest.raises(SettingError, match=f"--opset: {opset} is out of range .expected 18 to 23"):
        export("slices", opset=opset)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_package_is_named_with_the_command_that_installs_it(here, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DlxError, match=rf"^ONNX files need {name}, which is not installed: pip install 'dlx\[onnx\]'$"):
        export("slices")
    assert export("slices", format="torchscript")


# the check


class Altered(nn.Module):
    """A network whose logits are off by `amount` for one class."""

    def __init__(self, network, amount):
        super().__init__()
        self.network, self.amount = network, amount

    def forward(self, image):
        logits = self.network(image)
        return torch.cat([logits[:, :1] + self.amount, logits[:, 1:]], 1)


def files_below(folder):
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


def test_a_file_that_differs_is_not_kept(here, monkeypatch):
    before = files_below(".")

    def wrong(network, num_channels):
        plain = Altered(plain_network(network, num_channels), 0.1)
        plain.dims, plain.stride = network.dims, network.stride
        return plain

    monkeypatch.setattr(exporting, "plain_network", wrong)
    with pytest.raises(DlxError, match=r"differs on noise: logits by up to 0\.1, .*the file was not written"):
        export("slices", format="torchscript")
    assert files_below(".") == before


@pytest.mark.parametrize("amount", [0.01, float("nan")])
def test_logits_that_differ_are_an_error_on_noise_and_on_real_images(trained_slices, amount):
    plain = plain_network(trained_slices.network, 1)
    check = FileCheck(trained_slices, plain, Altered(plain, amount))
    with pytest.raises(DlxError, match="differs on noise: logits by up to"):
        check.on_noise()
    real = images_of_run(Path(trained_slices.name), trained_slices)
    with pytest.raises(DlxError, match=r"differs on the run's data .*: logits by up to"):
        check.on_images(real, is_required=True)


def test_differences_are_counted_as_worked_by_hand():
    outputs = Outputs(2)
    expected = torch.tensor([[[1.0, 2.0, 0.0]], [[0.0, 5.0, 0.5]]]).movedim(0, 1)[None].movedim(1, 2)
    found = expected.clone()
    found[0, 0, 0, 2] = 0.75  # class 0 instead of 1
    comparison = FileComparison().with_more(expected, found, outputs).with_more(expected, expected, outputs)
    assert comparison == FileComparison(difference=0.75, largest=5.0, num_voxels=6, num_differing=1)
    assert comparison.tolerance == pytest.approx(5e-4)
    nothing = FileComparison().with_more(expected, torch.full_like(expected, float("nan")), outputs)
    assert np.isnan(nothing.with_more(expected, expected, outputs).difference)


def test_one_voxel_in_ten_thousand_may_differ_in_label():
    FileComparison(num_voxels=10_000, num_differing=1).check_labels("noise")
    with pytest.raises(DlxError, match="2 of 19,999 voxels have another label"):
        FileComparison(num_voxels=19_999, num_differing=2).check_labels("noise")


class Amplified(nn.Module):
    """Logits of which rounding changes a thousandth: they are differences of large numbers."""

    dims, stride = 2, 1

    def forward(self, image):
        return (image + 1e4) - 1e4


def test_what_may_differ_follows_from_the_rounding_of_the_network(trained_slices):
    assert FileCheck(trained_slices, plain_network(trained_slices.network, 1), None).share == SHARE
    assert 1e-3 < FileCheck(trained_slices, Amplified(), None).share < 1e-2


@pytest.mark.parametrize(
    ("measured", "unlike", "precision", "expected"),
    [
        (True, 7, "bf16", "labels 7 of these 50 voxels differently: it computes in bf16"),
        (True, 0, "bf16", "computes in bf16 on devices that have it"),
        (True, 7, "float32", "labels 7 of these 50 voxels differently: torch computes norms less exactly"),
        (False, 0, "bf16", "computes in bf16 on devices that have it"),
        (True, 0, "float32", None),
    ],
)
def test_the_command_says_what_dlx_predict_labels_differently(measured, unlike, precision, expected):
    compared = FileComparison(num_voxels=50)
    exported = ExportedFile(
        name="run", format="onnx", path=Path("net.onnx"), description=Path("net.json"), num_bytes=1,
        on_noise=compared, on_images=compared if measured else None, num_images=1, images="scans",
        num_unlike_predict=unlike, predict_precision=precision, trial_precision=precision,
    )  # fmt: skip
    lines = unlike_predict(exported)
    assert len(lines) == (expected is not None)
    assert expected is None or expected in lines[0]


def test_a_trial_in_bf16_is_compared_in_the_precision_of_dlx_predict(trained_slices, monkeypatch):
    """The file itself is held to float32; on a CPU that computes in bf16, `dlx predict` rounds."""
    monkeypatch.setattr(device, "does_bf16_well", lambda device: True)
    compute = trained_slices.spec.compute.model_copy(update={"precision": "bf16"})
    trained = replace(trained_slices, spec=trained_slices.spec.model_copy(update={"compute": compute}))
    plain = plain_network(trained.network, 1)
    for of, precision in ((trained_slices, "float32"), (trained, "bf16")):
        check = FileCheck(of, plain, plain)
        _, found = check.on_images(images_of_run(Path(of.name), of), is_required=True)
        assert check.predicting.precision == precision
        assert (found[-1].difference > 1e-4) == (precision == "bf16")
        assert found[0].difference == 0


def test_the_images_of_a_run_are_its_validation_cases_and_some_more(trained_slices):
    real = images_of_run(Path(trained_slices.name), trained_slices)
    record = json.loads(Path(trained_slices.name).with_name("result.json").read_text())
    names = [image.name for image in real.images]
    assert len(names) == 3
    assert names[: len(record["settings"]["split"]["val"])] == record["settings"]["split"]["val"]


def test_a_network_gets_what_it_gets_in_predictions(made, trained_slices):
    """Whole slices, padded to its stride; and windows where predictions have them, none of them twice."""
    (image, *_) = images_of_run(Path(trained_slices.name), trained_slices).images
    slices = torch.cat([*cut_inputs(image, trained_slices)])
    assert slices.shape == (12, 1, 14, 16)
    some = torch.cat([*cut_inputs(image, trained_slices, max_voxels=3 * 14 * 16 + 1)])
    torch.testing.assert_close(some, slices[[2, 6, 10]])
    (path,) = (made / "volumes/run").glob("trials/*/last.safetensors")
    volumes = load_network(path)
    (image, *_) = images_of_run(path, volumes).images
    windows = torch.cat([*cut_inputs(image, volumes)])
    assert windows.shape == (2 * 2 * 3, 1, 8, 12, 10)
    assert len({window.numpy().tobytes() for window in windows}) == 12


def without_data(run):
    """The run as it is once its data are gone."""
    header = Path(run) / "study.json"
    document = json.loads(header.read_text())
    document["settings"]["data"]["source"]["args"]["path"] = str(Path("gone").absolute())
    header.write_text(json.dumps(document))


def test_without_its_data_a_run_is_checked_on_noise_or_on_named_images(here):
    without_data("slices")
    printed = run_command("export", "slices", "-o", "net.pt", "--format", "torchscript")
    assert "checked by libtorch on noise only" in printed
    assert "gone: no such folder" in printed
    printed = run_command("export", "slices", "-o", "net.pt", "--format", "torchscript", "-i", "scans")
    assert "on 10 images: the images that -i names" in printed
    assert "labels: 0 of 37,440 voxels differ" in printed
    Path("bad.nii.gz").write_bytes(b"no image")
    Path("net.pt").unlink()
    with pytest.raises(DataError, match=r"bad\.nii\.gz"):
        export("slices", "net.pt", format="torchscript", images="bad.nii.gz")
    assert not Path("net.pt").exists()


def test_data_that_cannot_be_read_any_more_are_left_out(here, made):
    data = Path(shutil.copytree(made / "slices/data", "data"))
    for path in data.glob("imagesTr/*"):
        path.write_bytes(path.read_bytes()[:100])
    header = Path("slices/study.json")
    header.write_text(header.read_text().replace(str(made / "slices/data"), str(data.absolute())))
    (exported,) = export("slices", format="torchscript")
    assert exported.on_images is None
    assert "the run's data" in exported.images
    assert "cannot be read" in exported.images


def test_a_network_of_the_users_own_is_exported_if_its_code_is_named(here):
    Path("my_net.py").write_text(NETS)
    options = [option for option in TRAIN if option != "--quiet"]
    run_command("train", "--data", "phantom:subjects=3,size=16", *options, "--model", "my_net.py:Net", "--out", "own")
    with pytest.raises(SettingError, match="--model"):
        export("own", format="torchscript")
    (exported,) = export("own", format="torchscript", model="my_net.py:Net")
    assert exported.on_images.num_differing == 0
    assert exported.on_images.num_voxels == 3 * 16**3
    assert json.loads(exported.description.read_text())["network"]["name"] == "my_net.py:Net"


def test_a_network_that_cannot_be_exported_is_an_error_in_one_line(here):
    Path("my_net.py").write_text(STUBBORN)
    run_command("train", "--data", "phantom:subjects=3,size=16", *TRAIN, "--model", "my_net.py:Net", "--out", "own")
    with pytest.raises(DlxError, match=r"^torch cannot export this network to TorchScript: .*$"):
        export("own", format="torchscript", model="my_net.py:Net")
