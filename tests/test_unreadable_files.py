"""Files that are refused before their header is read: not regular, not readable, or oddly named."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from dlx.data.volumes.reading import read_volume
from dlx.system.errors import DataError
from made_headers import analyze_header, nifti, refusal, write_pair


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(path))


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _dangling(path: Path) -> None:
    path.symlink_to(path.with_name("gone.nii"))


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _missing(path: Path) -> None:
    assert not path.exists()


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (_fifo, "FIFO"),
        (_loop, "cycle"),
        (_dangling, "symbolic link"),
        (_device, "a device"),
        (Path.mkdir, "a folder"),
        (Path.touch, "empty"),
        (_missing, "no such file"),
    ],
    ids=["fifo", "loop", "dangling link", "device", "folder", "empty", "missing"],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".hdr", ".mha", ".nrrd", ".png", ".tif"])
def test_what_is_not_a_regular_file_is_refused(
    tmp_path: Path, make: Callable[[Path], None], cause: str, suffix: str
) -> None:
    make(tmp_path / f"a{suffix}")
    assert cause in refusal(tmp_path / f"a{suffix}")


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path has room for a hundred letters only
    _socket(Path("a.nii"))
    assert "a socket" in refusal(Path("a.nii"))


def test_a_fifo_in_place_of_the_img_is_refused(tmp_path: Path) -> None:
    path = write_pair(tmp_path, analyze_header(), None)
    os.mkfifo(tmp_path / "a.img")
    assert "FIFO" in refusal(path)


@pytest.mark.skipif(os.getuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(nifti())
    path.chmod(0)
    assert "permission" in refusal(path)


def test_a_name_that_is_not_utf8_is_refused_in_one_printable_line(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.nii"))
    path.write_bytes(nifti())
    with pytest.raises(DataError, match=r"caf\\xe9\.nii: .*UTF-8"):
        read_volume(path)


def test_a_name_with_a_line_break_gives_one_line(tmp_path: Path) -> None:
    path = tmp_path / "two\nlines.nii"
    path.write_bytes(nifti()[:-1])
    with pytest.raises(DataError, match=r"two\\nlines\.nii: truncated") as caught:
        read_volume(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.jpg", "a.nii.bz2", "a", "a.Nii", "a.NII.gz", ".nii\0.nii"])
def test_a_name_that_says_no_known_format_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"unknown file format|zero byte"):
        read_volume(tmp_path / name)
