"""What the command line says to type instead of what it does not take."""

import os
import sys
from pathlib import Path

import pytest

from dlx.cli.main import run
from dlx.settings.layers import read_toml
from dlx.system.errors import DlxError, SettingError
from small import SMALL_ARGS


def flat(text):
    """The words of a message in a box."""
    return " ".join(text.replace("│", " ").split())


def test_a_folder_in_place_of_an_option_gets_data_before_it(dlx):
    Path("my data").mkdir()
    assert "--data 'my data'" in flat(dlx("train", "my data", expect=2).output)
    assert "--data a/b" in flat(dlx("sweep-dropout", "a/b", expect=2).output)


def test_a_file_or_folder_in_place_of_a_command_gets_the_command_that_takes_it(dlx):
    Path("d").mkdir()
    Path("r").mkdir()
    for name in ("s.toml", "s.jsonl", "r/study.json"):
        Path(name).touch()
    for word, command in {
        "d": "train --data d",
        "r": "report r",
        "s.toml": "run s.toml",
        "s.jsonl": "report s.jsonl",
    }.items():
        assert f"Did you mean: dlx {command}" in flat(dlx(word, expect=2).output)


def test_code_of_the_users_own_comes_with_how_to_name_or_register_it(dlx, tmp_path):
    with pytest.raises(SettingError, match=f"no module .package.module. is installed or in {tmp_path}"):
        dlx("train", "--model", "package.module:make")
    with pytest.raises(SettingError, match=r"is named package\.module:make"):
        dlx("train", "--model", "package.module.make")
    with pytest.raises(SettingError, match=r"or nets/my_net\.py:Name, the class or function in it"):
        dlx("train", "--model", "nets/my_net.py")
    with pytest.raises(SettingError, match=r"docs/extending\.md"):
        dlx("train", "--loss", "package.module:make")
    with pytest.raises(SettingError, match=r"expected key=value \(got '32'\)$"):
        dlx("train", "--model", "unet2:32")


def test_several_files_that_cannot_be_used_have_a_line_each(dlx, monkeypatch, capsys, tmp_path):
    phantom = tmp_path / "ph"
    dlx("make-phantom", str(phantom), "--subjects", "3", "--size", "16")
    broken = sorted(phantom.glob("subject-*-T1.img"))[:2]
    for path in broken:
        path.write_bytes(b"nothing")
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["dlx", "train", "--data", str(phantom), "--dry-run"])
    with pytest.raises(SystemExit):
        run()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(broken)
    assert all(line.startswith("dlx: ") and path.stem in line for line, path in zip(lines, broken, strict=True))


@pytest.mark.parametrize(
    ("args", "meant"),
    [(["trian"], "'train'"), (["train", "--epohcs", "3"], "--epochs"), (["sweep_dropout"], "'sweep-dropout'")],
)
def test_a_misspelt_command_or_option_gives_the_nearest(dlx, args, meant):
    assert meant in flat(dlx(*args, expect=2).output)


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ("0", "1 to 10,000.*--seed 0"),
        ("-1", "1 to 10,000"),
        ("0..4", r"--seeds 0,3,7"),
        ("1,", r"--seeds 0,3,7"),
        ("1,1", "distinct"),
        ("1,-1", "at least 0"),
        ("9" * 400, r"9999\.\.\.: .*1 to 10,000"),
    ],
)
def test_invalid_seeds_say_what_to_type(dlx, seeds, words):
    with pytest.raises(SettingError, match=words):
        dlx("train", "--seeds", seeds)


@pytest.mark.parametrize("option", [["--seeds", "1"], ["--seed", "7"]])
def test_a_study_of_one_seed_says_beforehand_that_it_gives_no_verdict(dlx, option):
    args = ["sweep-dropout", "--p", "0.5", *SMALL_ARGS, "--epochs", "1", "--dry-run"]
    assert "no verdict; --seeds 5 trains five" in dlx(*args, *option).output
    assert "no verdict" not in dlx(*args, "--seeds", "2").output
    assert "no verdict" not in dlx("train", *SMALL_ARGS, "--epochs", "1", "--dry-run", *option).output


def test_the_folder_of_images_names_the_folder_above_and_the_folder_above_the_one_below(dlx, tmp_path):
    images = Path("top/task/imagesTr")
    images.mkdir(parents=True)
    (images / "a_0000.nii.gz").touch()
    Path("top/task/labelsTr").mkdir()
    Path("top/task/dataset.json").write_text(
        '{"channel_names": {"0": "T1"}, "labels": {"background": 0, "x": 1}, '
        '"numTraining": 1, "file_ending": ".nii.gz"}'
    )
    for given in (images, Path("top")):
        with pytest.raises(DlxError) as raised:
            dlx("train", "--data", str(given))
        assert str(raised.value).endswith(f"--data {tmp_path / 'top/task'}")


def test_more_than_one_layout_is_answered_with_the_setting_to_type(dlx):
    Path("d/imagesTr").mkdir(parents=True)
    Path("d/labelsTr").mkdir()
    Path("d/dataset.json").write_text(
        '{"channel_names": {"0": "T1"}, "labels": {"background": 0}, "file_ending": ".nii.gz", "numTraining": 1, '
        '"modality": {"0": "T1"}, "training": []}'
    )
    with pytest.raises(DlxError) as raised:
        dlx("train", "--data", "d")
    assert "nnunet, msd" in str(raised.value)
    assert "--set data.source.layout=" in str(raised.value)


def test_a_file_of_windows_is_read_with_its_mark_and_line_ends(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_bytes('\ufeffloss = "dice"\r\n[train]\r\nepochs = 1\r\n'.encode())
    assert read_toml(path) == {"loss": "dice", "train": {"epochs": 1}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'a = 1\nsource = "C:\\data\\x"\n', "line 2.*single quotes"),
        (b'source = "C:\\users"\n', "line 1.*single quotes"),
        (b"a = 1\n[b]\nlr = 0,001\n", "line 3.*0.001"),
        ("loss = \u201cdice\u201d\n".encode(), "line 1.*straight quotes"),
        (b"loss = dice\n", 'line 1.*"dice"'),
        ("loss = 'dice'\n".encode("utf-16"), "UTF-16: save it as UTF-8"),
        ("a = 1\n# größe\n".encode("latin-1"), r"not UTF-8 \(line 2\): save it as UTF-8"),
        (b"a = 1\na = 2\n", "line 2"),
    ],
)
def test_a_settings_file_that_is_not_toml_is_refused_with_line_and_remedy(tmp_path, content, words):
    path = tmp_path / "settings.toml"
    path.write_bytes(content)
    with pytest.raises(SettingError, match=words):
        read_toml(path)


def test_settings_may_come_through_a_pipe(tmp_path):
    reading, writing = os.pipe()
    os.write(writing, b"a = 1\n")
    os.close(writing)
    assert read_toml(Path(f"/dev/fd/{reading}")) == {"a": 1}
    os.close(reading)
