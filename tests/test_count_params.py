"""`dlx count-params`: its tables, its JSON, networks of the user's own, and its errors."""

import json
import sys

import pytest
from typer.testing import CliRunner

from dlx.cli.main import app
from dlx.system.errors import SettingError

OWN = """
import torch
from torch import nn
print("this module prints")

class Twice(nn.Module):
    def __init__(self, in_channels, num_classes, width=4):
        super().__init__()
        self.first = nn.Conv2d(in_channels, width, 3, padding=1)
        self.block = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, image):
        return self.head(self.block(self.block(self.first(image))))

class NeedsNumbers(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, int(torch.tensor(3.0).item()), 1)

    def forward(self, image):
        return self.conv(image)

made = Twice(2, 4)
number = 3
def gives_number(): return 3
def needs(depth): return made
def fails(): raise RuntimeError("no luck")
def leaves(): raise SystemExit("gone")
def refuses(in_channels, spatial_dims=3): return nn.Conv3d(in_channels + 1, 4, 1)
"""
# in 2, out 4, width 4: convolutions 2 to 4, 4 to 4, and 4 to 4 of 1x1
FIRST, BLOCK, HEAD = 2 * 4 * 9 + 4, 4 * 4 * 9 + 4, 4 * 4 + 4


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    (tmp_path / "own_networks.py").write_text(OWN, encoding="utf-8")
    (tmp_path / "broken.py").write_text("import there_is_no_such_module", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in ("own_networks", "broken"):
        sys.modules.pop(name, None)


def run(*args):
    """The command's standard output; what it raises is raised."""
    result = CliRunner().invoke(app, ["count-params", *args], catch_exceptions=False, env={"COLUMNS": "80"})
    assert result.exit_code == 0
    return result.stdout


def entry(*args):
    (only,) = json.loads(run(*args, "--json"))
    return only


def test_json_of_unet_is_the_six_blocks():
    found = entry("unet")
    assert found["model"] == "unet"
    assert found["parameters"] == found["trainable"] == 6_238_532
    assert found["parameters_if_unshared"] == 8_563_652
    assert len(found["shared"]) == 6
    assert all(set(use) == {"module", "calls", "parameters"} and use["calls"] == 2 for use in found["shared"])
    assert sum(use["parameters"] for use in found["shared"]) == 2_325_120
    assert found["input"] == [2, 64, 64]
    assert found["forward_backward_flops"] > found["flops"] > 0


def test_json_is_one_list_with_an_entry_for_each_network():
    found = json.loads(run("unet2", "unet2:width=8", "--json"))
    assert [one["model"] for one in found] == ["unet2", "unet2:width=8"]
    assert found[0]["shared"] == []
    assert found[1]["parameters"] < found[0]["parameters"]


def test_the_table_names_what_is_shared_and_the_count_without():
    text = run("unet")
    assert "6,238,532 parameters" in text
    assert "encoder.0.1 (also decoder.2.2)" in text
    assert "If nothing were shared: 8,563,652 parameters (2,325,120 more)." in text
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "Nothing is shared" in run("unet2", "--set", "width=4")


def test_several_networks_are_compared():
    text = run("unet", "unet2")
    after = text[text.index("Compared") :].splitlines()
    assert any(line.split() == ["unet", "6,238,532", "8,563,652", "6.20", "18.60"] for line in after)
    assert any(line.split() == ["unet2", "8,563,652", "8,563,652", "6.20", "18.60"] for line in after)


def test_depth_says_how_many_levels_are_shown():
    assert "encoder.0 " not in run("unet2", "--set", "width=2", "--depth", "1")
    assert "encoder.0.1.conv" in run("unet2", "--set", "width=2", "--depth", "4")
    assert "encoder" not in run("unet2", "--set", "width=2", "--depth", "0")


def test_a_setting_may_be_given_by_its_full_key():
    assert entry("unet2", "--set", "model.width=4")["parameters"] == entry("unet2:width=4")["parameters"]


def test_a_3d_network_is_counted_with_a_cube():
    assert entry("unet2", "--set", "dims=3", "--set", "width=2")["input"] == [2, 64, 64, 64]


def test_input_and_classes_reach_the_network():
    # one level: two 3x3 blocks with batch norm, 5 -> 2 -> 2, and the head
    found = entry("unet2", "--input", "5,8,8", "--classes", "3", "--set", "width=2", "--set", "levels=1")
    assert found["parameters"] == (5 * 2 * 9 + 6) + (2 * 2 * 9 + 6) + (2 * 3 + 3)


def test_a_network_of_ones_own_is_found_from_the_current_folder_and_what_it_prints_is_kept_out(own_folder):
    found = entry("own_networks:Twice")
    assert found["parameters"] == FIRST + BLOCK + HEAD
    assert found["shared"] == [{"module": "block", "calls": 2, "parameters": BLOCK}]
    assert found["parameters_if_unshared"] == FIRST + 2 * BLOCK + HEAD


def test_a_network_in_a_file_is_counted_with_the_dimensions_that_it_takes(own_folder):
    (own_folder / "nets").mkdir()
    text = "from torch import nn\ndef net(in_channels, n_classes): return nn.Conv3d(in_channels, n_classes, 1)\n"
    (own_folder / "nets/own_volumes.py").write_text(text)
    found = entry("nets/own_volumes.py:net")
    assert found["input"] == [2, 64, 64, 64]
    assert found["parameters"] == 2 * 4 + 4
    assert entry("nets/own_volumes.py:net:n_classes=5", "--input", "3,8,8,8")["parameters"] == 3 * 5 + 5


def test_a_network_that_is_made_already_is_counted(own_folder):
    assert entry("own_networks:made")["parameters"] == FIRST + BLOCK + HEAD


def test_settings_reach_a_network_of_ones_own(own_folder):
    found = entry("own_networks:Twice", "--set", "width=1", "--set", "num_classes=2")
    assert found["parameters"] == (2 * 9 + 1) + (9 + 1) + (2 + 2)


def test_a_network_that_computes_with_numbers_while_it_is_built_is_built_with_numbers(own_folder):
    assert entry("own_networks:NeedsNumbers")["parameters"] == 2 * 3 + 3


@pytest.mark.long
def test_the_published_counts_of_the_classifiers():
    names = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "vgg16", "vgg16_bn"]
    found = json.loads(run(*names, "--json"))
    assert [one["parameters"] for one in found] == [
        11_689_512,
        21_797_672,
        25_557_032,
        44_549_160,
        60_192_808,
        138_357_544,
        138_365_992,
    ]
    assert all(one["input"] == [3, 224, 224] and one["shared"] == [] for one in found)
    assert [sum(one["weighted_layers"].values()) for one in found] == [18, 34, 50, 101, 152, 16, 16]


def test_resnet50_costs_what_is_published():
    # He et al. 2015, table 1: 3.8 x 10^9 multiply-adds; with the stride on the 3x3 convolution 4.09
    assert entry("resnet50")["flops"] == pytest.approx(2 * 4.09e9, rel=2e-3)


def test_parts_and_layers_of_each_stage_are_shown():
    layers = "stem 1, stage2 9, stage3 12, stage4 18, stage5 9, head 1"
    assert f"50 weighted layers: {layers}" in " ".join(run("resnet50", "--depth", "1").split())
    found = entry("unet-resnet34")
    assert list(found["parts"]) == ["backbone", "neck", "head"]
    assert sum(found["parts"].values()) == found["parameters"]
    assert found["parts"]["head"] == 32 * 4 + 4
    assert found["weighted_layers"] == {
        "stem": 1,
        "stage2": 6,
        "stage3": 8,
        "stage4": 12,
        "stage5": 6,
        "neck": 10,
        "head": 1,
    }
    lines = run("unet-resnet34", "--depth", "1").splitlines()
    assert [line.split()[0] for line in lines if line.startswith(("  backbone", "  neck", "  head"))] == [
        "backbone",
        "neck",
        "head",
    ]


def test_a_network_that_counts_no_weighted_layers_has_null():
    found = entry("unet2", "--set", "width=4")
    assert found["weighted_layers"] is None
    assert list(found["parts"]) == ["encoder", "decoder", "head"]


def test_channels_classes_and_settings_reach_a_classifier():
    found = entry("resnet18:width=8", "--input", "1,32,32", "--classes", "2", "--set", "norm=none")
    assert found["input"] == [1, 32, 32]
    assert found["parts"]["head"] == 64 * 2 + 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["unett"], "unknown model 'unett': did you mean 'unet'"),
        (["unet", "--set", "widht=3"], "did you mean 'width'"),
        (["unet", "--set", "width=0"], "width: expected 1 or more"),
        (["unet", "--set", "width"], "expected key=value"),
        (["unet", "--input", "2,sixty"], "--input 2,sixty: expected channels and sizes"),
        (["unet", "--input", "0,64,64"], "--input 0,64,64: expected channels and sizes"),
        (["unet", "--input", "2,64"], "input of 1x2x64: .* 2D network takes .*--input"),
        (["own_networks:made", "--input", "5,8,8"], "input of 1x5x8x8: RuntimeError.*2 channels"),
        (["own_networks:made", "--set", "width=3"], "takes no arguments: leave out width"),
        (["own_networks:Twice", "--set", "widht=3"], "no argument 'widht': did you mean 'width'"),
        (["own_networks:refuses"], "input of 1x2x64x64x64: .*expected input.* to have 3 channels"),
        (["own_networks:needs"], "needs depth: give --set model.depth=VALUE"),
        (["own_networks:number"], "is of type int"),
        (["own_networks:gives_number"], "of type int; expected a torch.nn.Module"),
        (["own_networks:fails"], "could not be built: RuntimeError: no luck"),
        (["own_networks:leaves"], "could not be built: RuntimeError: it called sys.exit\\('gone'\\)"),
        (["own_networks:Twise"], "there is no 'Twise' in 'own_networks': did you mean 'Twice'"),
        (["own_network.py:Twice"], "own_network.py: no such file"),
        (["own_networks.Twice"], "unknown model .* is named own_networks:Twice"),
        (["no_such_module:Net"], "no module 'no_such_module' is installed or in "),
        (["broken:Net"], "importing it failed: .*there_is_no_such_module.*broken.py, line 1"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_that_names_it(own_folder, args, message):
    with pytest.raises(SettingError, match=message) as caught:
        run(*args)
    assert "\n" not in str(caught.value)
