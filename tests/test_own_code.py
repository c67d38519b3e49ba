"""The code of networks of the user's own: how it is named, which files belong to it, who may load it."""

import json
import os
import sys
from pathlib import Path

import pytest

import dlx
from dlx.engine import checkpoint
from dlx.settings import registry
from dlx.settings.binding import bind_part
from dlx.settings.layers import make_spec, merge
from dlx.settings.own import code
from dlx.settings.own.code import read_code, target_of, vouch, vouched_code
from dlx.settings.own.files import digest_of, files_of
from dlx.settings.own.named import with_named_code, with_own_code
from dlx.settings.own.names import OwnName, canonical_name, own_name, parse_own, plain_name
from dlx.settings.part import CodeSpec, Part
from dlx.settings.spec import Spec
from dlx.settings.text import parse_part
from dlx.system.errors import SettingError
from made_own_networks import write_nets
from small import SMALL_ARGS

MARK = "__import__('pathlib').Path({!r}).write_text('x')\n"  # what a file that is executed leaves behind


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """A process that has vouched for nothing yet, in an empty folder."""
    for name in ("_vouched", "_loaded", "_served"):
        monkeypatch.setattr(code, name, {})
    monkeypatch.chdir(tmp_path)


def load(text):
    """What a name that the user typed stands for."""
    own = own_name(text)
    found = read_code(own)
    vouch(found)
    return target_of(Part(name=found.name, code=CodeSpec(digest=found.digest, version=found.version)))


def digest(text):
    return read_code(own_name(text)).digest


# --- names


@pytest.mark.parametrize(
    ("text", "source", "attribute", "rest"),
    [
        ("my_net.py:Net", "my_net.py", "Net", ""),
        ("nets/my_net.py:Net", "nets/my_net.py", "Net", ""),
        ("/a b/é=1,2/my-net.v2.py:make.Net", "/a b/é=1,2/my-net.v2.py", "make.Net", ""),
        ("C:\\nets\\my_net.py:Net", "C:\\nets\\my_net.py", "Net", ""),
        ("my_net.py:Net:width=8,path=x.py:y", "my_net.py", "Net", "width=8,path=x.py:y"),
        ("package.module:Net", "package.module", "Net", ""),
        ("package.module:Net:channels=[4,8]", "package.module", "Net", "channels=[4,8]"),
    ],
)
def test_a_name_is_a_source_and_a_callable_and_perhaps_arguments(text, source, attribute, rest):
    assert parse_own(text) == (OwnName(source, attribute), rest)


@pytest.mark.parametrize(
    "text",
    [
        "unet2",
        "my_net.py",
        "step:gamma=0.1",
        "a:b=c",
        ":Net",
        "my_net.py:",
        "a b:Net",
        "os.system('x'):y",
        "a:b:",
        "my_net.py:N et",
        "x\n.py:Net",
        "my_net.py:Net\x1b",
    ],
)
def test_other_texts_name_no_code(text):
    found = parse_own(text)
    assert found is None or f"{found[0]}" != text
    assert own_name(text) is None


def test_parts_of_the_user_s_own_are_typed_as_registered_ones_are():
    assert parse_part("my_net.py:Net:width=8,norm=[group,4]") == {
        "name": "my_net.py:Net",
        "args": {"width": 8, "norm": ["group", 4]},
    }
    part = Part.model_validate("package.module:Net:width=8")
    assert part.is_own
    assert str(part) == "package.module:Net:width=8"
    assert Part.model_validate({"name": "my_net.py:Net", "width": 8}).args == {"width": 8}
    assert not Part(name="unet2").is_own
    with pytest.raises(SettingError, match=r"'unet2:width': expected key=value \(got 'width'\)"):
        parse_part("unet2:width")


def test_settings_and_folders_name_a_network_without_the_folder_of_its_file():
    assert canonical_name("/a/nets/my_net.py:Net") == "my_net.py:Net"
    assert plain_name("/a/nets/my_net.py:Net") == "my_net-Net"
    assert plain_name("package.module:Net") == "package.module-Net"
    assert canonical_name("unet2") == plain_name("unet2") == "unet2"


def test_parts_that_are_registered_are_written_as_before():
    assert Part(name="unet2", args={"width": 4}).model_dump() == {"name": "unet2", "args": {"width": 4}}
    assert "code" not in Spec().model_dump_json()
    dumped = Part(name="a.py:B", code=CodeSpec(digest="0" * 32)).model_dump()
    assert dumped["code"]["digest"] == "0" * 32
    assert Part.model_validate(dumped).code == CodeSpec(digest="0" * 32)


def test_a_network_of_ones_own_takes_over_no_arguments_of_another_network():
    recipe = {"model": {"name": "unet2", "width": 32}}
    for model in ("my_net.py:Net", {"name": "my_net.py:Net"}):
        assert make_spec(merge(recipe, {"model": model})).model.args == {}
    own = {"model": "my_net.py:Net:width=8"}
    assert make_spec(merge(own, {"model": {"name": "unet2"}})).model.args == {}
    assert make_spec(merge(own, {"model": {"name": "my_net.py:Net"}})).model.args == {"width": 8}
    assert make_spec(merge(own, {"model": {"depth": 2}})).model.args == {"width": 8, "depth": 2}


# --- files


def test_the_digest_is_of_the_content_and_not_of_the_folder(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_nets(tmp_path / folder)
    assert digest("a/nets.py:Net") == digest(f"{tmp_path}/b/nets.py:Plain")
    write_nets(tmp_path / "b", "x = 1")
    assert digest("a/nets.py:Net") != digest("b/nets.py:Net")


def test_files_beside_the_network_that_it_imports_belong_to_it(tmp_path):
    (tmp_path / "blocks").mkdir()
    files = {
        "net.py": "import blocks.deep, numpy\ndef make():\n    from layers import width\n    return width\n",
        "blocks/__init__.py": "",
        "blocks/deep.py": "from . import norms\nfrom .norms import norm\n",
        "blocks/norms.py": "import json\nnorm = 1\n",
        "layers.py": "width = 3\n",
        "unused.py": "raise RuntimeError\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = files_of(tmp_path / "net.py", "own-net", tmp_path)
    assert [file.module for file in found] == ["own-net", "blocks", "blocks.deep", "blocks.norms", "layers"]
    before = digest("net.py:make")
    assert load("net.py:make")() == 3
    (tmp_path / "unused.py").write_text("")
    assert digest("net.py:make") == before
    (tmp_path / "layers.py").write_text("width = 4\n")
    assert digest("net.py:make") != before
    assert load("net.py:make")() == 4  # in the same process, as in a notebook
    assert digest_of(found) == before


def test_a_package_in_the_working_folder_and_one_without_init_are_found(tmp_path):
    (tmp_path / "ownlab/nets").mkdir(parents=True)
    (tmp_path / "ownlab/nets/unet.py").write_text("from ownlab.blocks import width\nfrom ..blocks import width as w\n")
    (tmp_path / "ownlab/blocks.py").write_text("def width(): return 5\n")
    assert load("ownlab.nets.unet:w")() == 5
    (tmp_path / "ownlab/__init__.py").write_text("from .nets.unet import width as Net\n")
    assert load("ownlab:Net")() == 5
    assert str(tmp_path) not in sys.path


def test_what_was_hashed_is_executed_whatever_happens_to_the_file(tmp_path):
    (tmp_path / "net.py").write_text("from layers import width\ndef make(): return width\n")
    (tmp_path / "layers.py").write_text("width = 3\n")
    found = read_code(own_name("net.py:make"))
    (tmp_path / "layers.py").write_text("width = 4\n")
    (tmp_path / "net.py").unlink()
    vouch(found)
    assert target_of(Part(name="net.py:make", code=CodeSpec(digest=found.digest)))() == 3


def test_an_installed_module_comes_before_a_file_of_its_name(tmp_path):
    executed = tmp_path / "executed"
    for name in ("colorsys", "numpy", "torch"):
        (tmp_path / f"{name}.py").write_text(MARK.format(str(executed)))
    (tmp_path / "net.py").write_text("import colorsys, numpy\nnumber = lambda: colorsys.rgb_to_hsv(0, 0, 0)[0]\n")
    assert load("net.py:number")() == 0.0
    with pytest.raises(
        SettingError, match=r"there is no 'Net' in 'colorsys'.*rename your own colorsys\.py, or name the"
    ):
        load("colorsys:Net")
    assert not executed.exists()


def test_a_file_may_have_the_name_of_an_installed_module(tmp_path):
    (tmp_path / "colorsys.py").write_text("def make(): return 'own'\n")
    assert load("colorsys.py:make")() == "own"
    import colorsys

    assert hasattr(colorsys, "rgb_to_hsv")


def test_two_files_of_one_name_are_two_networks_but_may_not_import_different_files_by_one_name(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.py").write_text(f"def make(): return {folder!r}\n")
    assert (load("a/net.py:make")(), load("b/net.py:make")(), load("a/net.py:make")()) == ("a", "b", "a")
    for folder in ("a", "b"):
        (tmp_path / folder / "net.py").write_text("from layers import make\n")
        (tmp_path / folder / "layers.py").write_text(f"def make(): return {folder!r}\n")
    specs = {folder: make_spec({"model": f"{folder}/net.py:make"}) for folder in ("a", "b")}
    with pytest.raises(SettingError, match="import different files by the name 'layers': rename one"):
        with_named_code(specs, ["a/net.py:make", "b/net.py:make"])


def test_an_installed_package_is_known_by_its_version_and_the_file_that_defines_the_name():
    import jaxtyping

    found = read_code(own_name("jaxtyping:jaxtyped"))
    assert found.version == f"jaxtyping {jaxtyping.__version__}"
    defining = Path(sys.modules[jaxtyping.jaxtyped.__module__].__file__)
    assert found.digest == digest_of(files_of(defining, "x", Path("/nowhere"))[:1])
    assert found.files == ()
    assert load("jaxtyping:jaxtyped") is jaxtyping.jaxtyped


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def broken(:", r"net\.py, line 1: not Python: "),
        ("\0", r"net\.py: not Python: "),
        ("\n\nraise ValueError('no\\nluck')", r"importing it failed: ValueError: no luck \(net\.py, line 3\)"),
        ("import there_is_no_such_module", r"No module named 'there_is_no_such_module' \(net\.py, line 1\)"),
        ("raise SystemExit('gone')", r"importing it failed: SystemExit: gone \(net\.py, line 1\)"),
        ("from .layers import x", r"named package\.module:Name, from the folder above"),
        ("__import__('layers')", r"layers\.py beside it is found only by an import statement"),
        ("from layers import x", r"cannot import name 'x' from 'layers' .*\(net\.py, line 1\)"),
        ("import damaged", r"damaged\.py, line 2: not Python: "),
        ("", r"there is no 'Net' in 'net\.py': \(there are none\)"),
        ("# " + "x" * (4 << 20), r"net\.py: larger than 4 MiB"),
    ],
    ids=lambda value: value[:24],
)
def test_code_that_cannot_be_loaded_is_one_line_with_its_place(tmp_path, content, message):
    (tmp_path / "net.py").write_text(content)
    (tmp_path / "layers.py").touch()
    (tmp_path / "damaged.py").write_text("x = 1\nif x\n")
    with pytest.raises(SettingError, match=message) as caught:
        load("net.py:Net")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_none_is_refused(tmp_path):
    (tmp_path / "folder.py").mkdir()
    os.mkfifo(tmp_path / "pipe.py")
    for name, message in [
        ("nets/no.py:Net", r"nets/no\.py: no such file \(in "),
        ("folder.py:Net", r"folder\.py: a folder, not a file"),
        ("pipe.py:Net", r"pipe\.py: not a file"),
        ("no_such.package:Net", r"no module 'no_such\.package' is installed or in "),
    ]:
        with pytest.raises(SettingError, match=message):
            load(name)


# --- who may load it


def hostile(tmp_path):
    """A file that leaves a mark where it is executed, and the mark."""
    mark = tmp_path / "executed"
    (tmp_path / "evil.py").write_text(MARK.format(str(mark)) + "def Net(in_channels, num_classes): pass\n")
    return mark


NAMES = ["evil.py:Net", "evil:Net", "./evil.py:Net", "os:system", "evil.py:Net:x=1", "a:b:c", "__import__('os'):x"]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_in_settings_loads_anything_by_itself(tmp_path, name):
    mark = hostile(tmp_path)
    with pytest.raises(SettingError):
        bind_part("model", Part(name=name))
    with pytest.raises(SettingError):
        bind_part("model", Part(name=name, code=CodeSpec(digest="0" * 32)))
    for kind in ("model", "loss", "normalizer"):
        with pytest.raises(SettingError, match="unknown"):
            registry.load(kind, name)
    assert not mark.exists()


def test_a_digest_in_settings_does_not_make_code_vouched_for(tmp_path):
    mark = hostile(tmp_path)
    known = read_code(own_name("evil.py:Net"))
    assert not mark.exists()  # reading executes nothing
    part = Part(name="evil.py:Net", code=CodeSpec(digest=known.digest))
    with pytest.raises(SettingError, match="loaded only if you name it: --model"):
        vouched_code(part)
    with pytest.raises(SettingError, match="loaded only if you name it: --model"):
        target_of(part)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["evil.py:Net", "evil:Net"])
def test_a_study_file_loads_code_only_if_it_is_trusted(dlx, tmp_path, name):
    mark = hostile(tmp_path)
    (tmp_path / "study.toml").write_text(f'question = "?"\nseeds = 1\n[axes]\n"model.name" = ["unet2", "{name}"]\n')
    with pytest.raises(SettingError, match="add --trust-code if you trust the file"):
        dlx("run", "study.toml", "--dry-run")
    (tmp_path / "config.toml").write_text(f'model = "{name}"\n')
    with pytest.raises(SettingError, match="add --trust-code if you trust the file"):
        dlx("train", "--config", "config.toml")
    assert not mark.exists()
    with pytest.raises(SettingError, match=r"could not be built|returned an object of type NoneType"):
        dlx("run", "study.toml", "--dry-run", "--trust-code", *DATA)
    assert mark.exists()


DATA = SMALL_ARGS[: SMALL_ARGS.index("--model")]
SMALL = [*DATA, "--batch-size", "4", "--set", "batch.patch_size_px=[16,16]", "--steps-per-epoch", "3"]


def test_code_is_loaded_from_what_the_user_named_and_only_if_it_is_the_recorded_content(tmp_path):
    (tmp_path / "nets").mkdir()
    write_nets(tmp_path / "nets")
    spec = with_own_code(make_spec({"model": "nets/nets.py:Net:width=8"}), ["nets/nets.py:Net"])
    assert (spec.model.name, spec.model.args) == ("nets.py:Net", {"width": 8})
    recorded = make_spec(json.loads(spec.model_dump_json()))
    assert recorded == spec
    assert with_own_code(recorded, ["nets/nets.py:Net"]) == recorded
    assert with_own_code(recorded, [f"{tmp_path}/nets/nets.py:Net"]) == recorded
    assert with_own_code(recorded, ["nets/nets.py:Net:width=8"]) == recorded
    for given, trained in (("width=16", "width=8"), ("depth=2", "no argument depth")):
        with pytest.raises(
            SettingError, match=rf"'nets/nets\.py:Net:{given}': the run was trained with {trained}; the"
        ):
            with_own_code(recorded, [f"nets/nets.py:Net:{given}"])
    for named in ([], ["nets/nets.py:Plain"], ["unet2"], ["other.py:Net"]):
        with pytest.raises(SettingError, match=r"never loaded from records: name it: --model PATH/nets\.py:Net"):
            with_own_code(recorded, named)
    write_nets(tmp_path / "nets", "changed = 1\n")
    with pytest.raises(
        SettingError, match=r"'nets/nets\.py:Net' is not the recorded code: it has changed since \(code \w{8} -> "
    ):
        with_own_code(recorded, ["nets/nets.py:Net"])
    assert with_own_code(make_spec({"model": "unet2"}), []) == make_spec({"model": "unet2"})


def test_resuming_needs_the_network_s_name_and_its_recorded_content(dlx, tmp_path):
    nets = write_nets(tmp_path)
    dlx("train", "--model", "nets.py:Plain:width=8", *SMALL, "--epochs", "1", "--out", "out")
    result = next(Path("out/trials").iterdir()) / "result.json"
    before = json.loads(result.read_text())["result"]
    result.unlink()
    mark = tmp_path / "executed"
    code._vouched.clear()
    code._loaded.clear()
    nets.write_text(nets.read_text() + MARK.format(str(mark)))
    for words, message in [
        ([], r"never loaded from records: name it: --model PATH/nets\.py:Plain"),
        (["--trust-code"], "--trust-code: for settings in TOML files"),
        (["--model", "unet2"], "nothing to resume with these settings"),
        (["--model", "nets.py:Net"], r"the network in out is 'nets\.py:Plain'"),
        (["--model", "nets.py:Plain:width=9"], "has other arguments"),
        (["--model", "nets.py:Plain"], "is not the recorded code: it has changed since"),
    ]:
        with pytest.raises(SettingError, match=message):
            dlx("train", "--resume", "--out", "out", *words)
    assert not mark.exists()
    (tmp_path / "elsewhere").mkdir()
    moved = write_nets(tmp_path / "elsewhere")
    nets.unlink()
    shown = dlx("train", "--resume", "--out", "out", "--model", "elsewhere/nets.py:Plain").stderr
    assert f"--model {moved}:Plain:width=8" in shown
    assert json.loads(result.read_text())["result"] == before


def test_a_report_a_listing_and_a_checkpoint_execute_nothing(dlx, tmp_path):
    nets = write_nets(tmp_path)
    dlx("train", "--model", "nets.py:Plain", *SMALL, "--epochs", "1", "--out", "out")
    mark = tmp_path / "executed"
    nets.write_text(MARK.format(str(mark)))
    code._vouched.clear()
    assert "nets.py:Plain" in dlx("report", "out").stdout
    (trial,) = Path("out/trials").iterdir()
    assert checkpoint.read(trial / "last.safetensors").header["settings"]["model"]["name"] == "nets.py:Plain"
    assert not mark.exists()


def test_in_python_what_is_named_is_loaded_and_what_a_file_names_only_if_it_is_trusted(tmp_path):
    write_nets(tmp_path)
    (tmp_path / "study.toml").write_text('seeds = 1\n[axes]\nmodel = ["unet2", "nets.py:Net"]\n')
    with pytest.raises(SettingError, match=r"in Python: trust_code=True"):
        dlx.load_study("study.toml")
    known = digest("nets.py:Net")
    for study in (
        dlx.load_study("study.toml", trust_code=True),
        dlx.make_study({"model": ["unet2", "nets.py:Net"]}),
        dlx.make_study({"dropout.p": [0, 0.1]}, model="nets.py:Net"),
    ):
        assert study.variants[1].spec.model.code.digest == known


@pytest.mark.slow
def test_in_python_a_network_of_ones_own_is_trained(tmp_path, cache):
    write_nets(tmp_path)
    small = {"batch.patch_size_px": [16, 16], "split.val_fraction": 0.25}
    sizes = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 4, "threads": 1, "device": "cpu"}
    data = "phantom:subjects=4,size=24"
    found = dlx.train(model="nets.py:Plain", data=data, settings=small, cache_dir=cache, **sizes)
    assert found.failed == {}
    assert found.folder == Path("runs/phantom-nets-Plain")
    (trial,) = found.records.trials
    assert trial.record.settings["model"]["code"]["digest"] == digest("nets.py:Plain")
