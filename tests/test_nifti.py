"""NIfTI headers that leave something open: what is taken, with which note, and what `geometry="strict"` refuses.

The files are those of `made_headers`, valid except for one field; expected values are nibabel's, or worked out by hand.
"""

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dlx.data.volumes.header import BadFile, check_size, max_volume_bytes
from dlx.data.volumes.reading import Volume, read_volume
from dlx.system.errors import DataError
from made_headers import DATA, QFORM_ALONE, SFORM_ALONE, VOXELS, analyze_header, nifti, nifti_header, sform, write_pair

QFORM_PLACE = (-1.0, -2.0, 3.0)  # of the sound file, in SimpleITK's axes: its qform and sform say the same
AWAY = sform(0.5, 0, 0, 31, 0, 0.75, 0, 2, 0, 0, 1.25, 3)  # 30 mm further to the right than the qform
AWAY_PLACE = (-31.0, -2.0, 3.0)
SHEARED = sform(0.5, 0.2, 0, 1, 0, 0.75, 0, 2, 0, 0, 1.25, 3)
UNIT_SFORM = sform(-1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1, 0)  # as all files of ACDC have it
SPACING = (1.25, 0.75, 0.5)

# name -> file, kind of the note, spacing (d, h, w), origin (x, y, z)
OPEN = {
    "sform of 1 mm, true qform": (nifti(UNIT_SFORM), "spacing of pixdim", SPACING, QFORM_PLACE),
    "sform of 1 mm alone": (nifti(UNIT_SFORM, SFORM_ALONE), "spacing of pixdim", SPACING, (0, 0, 0)),
    "qform scanner, sform aligned": (nifti(AWAY, (252, "2h", (1, 2))), "forms apart, qform", SPACING, QFORM_PLACE),
    "qform aligned, sform scanner": (nifti(AWAY, (252, "2h", (2, 1))), "forms apart, sform", SPACING, AWAY_PLACE),
    "qform and sform of the scanner": (nifti(AWAY), "forms apart, sform", SPACING, AWAY_PLACE),
    "sform of a template": (nifti(AWAY, (252, "2h", (1, 4))), "forms apart, qform", SPACING, QFORM_PLACE),
    "sheared sform": (nifti(SHEARED), "unsound form", SPACING, QFORM_PLACE),
    "sform of zeros": (nifti(sform(*[0] * 12)), "unsound form", SPACING, QFORM_PLACE),
    "sform NaN": (nifti(sform(*[np.nan] * 12)), "unsound form", SPACING, QFORM_PLACE),
    "qform NaN": (nifti((256, "f", (np.nan,)), AWAY, (252, "2h", (1, 2))), "unsound form", SPACING, AWAY_PLACE),
    "quaternion of length 5": (nifti((256, "3f", (3, 4, 0)), AWAY), "unsound form", SPACING, AWAY_PLACE),
    "sform code 9": (nifti(AWAY, (252, "2h", (1, 9))), "unknown code", SPACING, QFORM_PLACE),
    "qform code -1": (nifti(AWAY, (252, "2h", (-1, 2))), "unknown code", SPACING, AWAY_PLACE),
    "negative spacing": (nifti((80, "3f", (-0.5, 0.75, 1.25)), QFORM_ALONE), "negative spacing", SPACING, QFORM_PLACE),
    "negative spacing, no form": (
        nifti((80, "3f", (-0.5, 0.75, -1.25)), (252, "2h", (0, 0))), "negative spacing", SPACING, (0, 0, 0),
    ),
    "spacing 0": (nifti((80, "3f", (0, 0, 0)), SFORM_ALONE), "spacing of the sform", SPACING, QFORM_PLACE),
    "spacing NaN": (nifti((84, "f", (np.nan,))), "spacing of the sform", SPACING, QFORM_PLACE),
    "micrometres": (
        nifti((123, "B", (3,)), (80, "3f", (500, 750, 1250)), (268, "3f", (1000, 2000, 3000)), QFORM_ALONE),
        "unit", SPACING, QFORM_PLACE,
    ),
    "metres": (
        nifti(
            (123, "B", (1,)), (80, "3f", (5e-4, 7.5e-4, 1.25e-3)), SFORM_ALONE,
            sform(5e-4, 0, 0, 1e-3, 0, 7.5e-4, 0, 2e-3, 0, 0, 1.25e-3, 3e-3),
        ),
        "unit", SPACING, QFORM_PLACE,
    ),
}  # fmt: skip


def read(folder: Path, data: bytes, name: str = "a.nii") -> Volume:
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return read_volume(folder / name, allow_4d=True)


@pytest.mark.parametrize("name", OPEN)
def test_what_a_header_leaves_open_is_read_in_one_way_with_a_note(tmp_path: Path, name: str) -> None:
    data, kind, spacing_mm, origin_mm = OPEN[name]
    for file in ("a.nii", "a.nii.gz"):
        volume = read(tmp_path, data, file)
        assert [note.kind for note in volume.notes] == [kind]
        assert np.array_equal(volume.array, VOXELS.reshape(1, 4, 5, 6))
        assert volume.array.dtype == np.int16
        assert volume.spacing_mm == pytest.approx(spacing_mm, rel=1e-6)
        assert volume.placement.origin_mm == pytest.approx(origin_mm, abs=1e-5)
        axes = np.abs(volume.placement.direction)
        assert axes == pytest.approx(np.eye(3), abs=1e-5)


@pytest.mark.parametrize("name", OPEN)
def test_strict_refuses_what_a_header_leaves_open_and_names_the_setting(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.nii").write_bytes(OPEN[name][0])
    with pytest.raises(DataError, match=r"^\S+a\.nii: .*data\.geometry=image"):
        read_volume(tmp_path / "a.nii", geometry="strict")


@pytest.mark.parametrize(
    "patches",
    [
        [],
        [(76, "f", (0,))],  # qfac 0 stands for 1
        [(252, "2h", (0, 0))],
        [(123, "B", (0,))],
        [(123, "B", (10,))],  # mm and seconds
        [(123, "B", (5,))],  # no unit of length: mm, as elsewhere
        [(68, "h", (1002,))],  # labels
        [(68, "h", (1007,))],  # vectors of one component
        [(40, "8h", (4, 6, 5, 4, 1, 1, 1, 1))],
        [(40, "8h", (7, 6, 5, 4, 1, 1, 1, 1))],
        [(40, "8h", (4, 6, 5, 4, 0, 1, 1, 1))],
        [(44, "h", (5,)), (92, "4f", (np.nan, -1, 0, 0))],  # of axes that are not there
    ],
)
def test_what_changes_nothing_is_read_without_a_note_and_under_strict(tmp_path: Path, patches: list) -> None:
    volume = read(tmp_path, nifti(*patches))
    assert volume.notes == ()
    assert np.array_equal(volume.array, VOXELS.reshape(1, 4, 5, 6))
    assert volume.spacing_mm == SPACING
    assert read_volume(tmp_path / "a.nii", geometry="strict").notes == ()


@pytest.mark.parametrize("spacing", [0, np.nan, np.inf, -2])
def test_the_spacing_of_the_fourth_axis_does_not_matter(tmp_path: Path, spacing: float) -> None:
    volume = read(tmp_path, nifti((40, "8h", (4, 6, 5, 2, 2, 1, 1, 1)), (92, "f", (spacing,))))
    assert np.array_equal(volume.array, VOXELS.reshape(2, 2, 5, 6))
    assert volume.spacing_mm == SPACING


@pytest.mark.parametrize("scaling", [(np.nan, np.nan), (np.inf, 0), (-np.inf, 3), (np.nan, 5), (0, 5), (0, np.nan)])
@pytest.mark.parametrize("dtype", ["<i2", ">u4", "<f4", "<f8"])
def test_a_scaling_without_a_slope_leaves_the_stored_values(tmp_path: Path, scaling: tuple, dtype: str) -> None:
    stored = np.arange(120).astype(dtype)
    header = nib.Nifti1Header(endianness=dtype[0])
    header.set_data_dtype(np.dtype(dtype))
    raw = bytearray(nib.Nifti1Image(stored.reshape(4, 5, 6).T, np.eye(4), header).to_bytes())
    struct.pack_into(f"{dtype[0]}2f", raw, 112, *scaling)
    volume = read(tmp_path, bytes(raw))
    assert [note.kind for note in volume.notes] == ["scaling"]
    assert volume.array.dtype == np.dtype(dtype[1:])
    assert np.array_equal(volume.array.ravel(), stored)
    assert np.array_equal(volume.array[0].T, np.asanyarray(nib.load(tmp_path / "a.nii").dataobj))
    assert read_volume(tmp_path / "a.nii", geometry="strict").array.dtype == volume.array.dtype


@pytest.mark.parametrize("bits", [0, 8, 32])
def test_the_datatype_counts_where_bitpix_contradicts_it(tmp_path: Path, bits: int) -> None:
    volume = read(tmp_path, nifti((72, "h", (bits,))))
    assert [note.kind for note in volume.notes] == ["bits"]
    assert np.array_equal(volume.array.ravel(), VOXELS)
    assert read_volume(tmp_path / "a.nii", geometry="strict").array.dtype == np.int16


@pytest.mark.parametrize("spacing", [(-0.5, 0.75, 1.25), (-0.5, -0.75, -1.25)])
def test_a_negative_spacing_of_analyze_counts_by_its_size(tmp_path: Path, spacing: tuple[float, ...]) -> None:
    path = write_pair(tmp_path, analyze_header((80, "3f", spacing)), DATA)
    volume, plain = read_volume(path), read_volume(write_pair(tmp_path, analyze_header(), DATA))
    assert [note.kind for note in volume.notes] == ["negative spacing"]
    assert volume.placement[:2] == plain.placement[:2]
    assert np.array_equal(volume.placement.direction, plain.placement.direction)
    assert np.array_equal(volume.array, plain.array)


@pytest.mark.parametrize("scaling", [(-1, 0), (-0.5, 3)])
def test_a_negative_slope_is_applied(tmp_path: Path, scaling: tuple[float, float]) -> None:
    volume = read(tmp_path, nifti((112, "2f", scaling)))
    assert np.array_equal(volume.array.ravel(), VOXELS * scaling[0] + scaling[1])
    assert volume.notes == ()


@pytest.mark.parametrize("scaling", [(0.1, 0), (1 / 3, -7.7), (-2.5, 1e5)])
@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4", "f8"])
def test_scaled_values_are_the_same_bit_for_bit_whoever_decodes_them(
    tmp_path: Path, scaling: tuple, dtype: str
) -> None:
    image = nib.Nifti1Image(np.arange(120).reshape(6, 5, 4).astype(dtype), np.diag([1, 2, 3, 1]))
    raw = bytearray(image.to_bytes())
    struct.pack_into("<2f", raw, 112, *scaling)
    by_simpleitk = read(tmp_path, bytes(raw))
    raw[123] = 0
    struct.pack_into("<f", raw, 80, -1.0)
    by_numpy = read(tmp_path, bytes(raw))
    assert (by_simpleitk.notes, [note.kind for note in by_numpy.notes]) == ((), ["negative spacing"])
    assert by_numpy.array.dtype == by_simpleitk.array.dtype
    assert np.array_equal(by_numpy.array, by_simpleitk.array)


def test_values_that_are_scaled_to_infinity_are_refused_whoever_decodes_them(tmp_path: Path) -> None:
    for patches in ([], [(80, "f", (-0.5,))]):
        with pytest.raises(DataError, match="not finite after scaling"):
            read(tmp_path, nifti((112, "f", (1e38,)), *patches))


def test_a_single_slice_without_a_thickness_counts_as_1_mm(tmp_path: Path) -> None:
    slice_ = (40, "4h", (3, 6, 5, 1))
    volume = read(tmp_path, nifti(slice_, (88, "f", (0,)), (252, "2h", (0, 0)), data=DATA[:60]))
    assert volume.spacing_mm == (1.0, 0.75, 0.5)
    assert [note.kind for note in volume.notes] == ["thickness"]


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ", "a.hdr"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_nifti2_is_read_as_nibabel_reads_it(tmp_path: Path, name: str, order: str) -> None:
    kind = nib.Nifti2Pair if name == "a.hdr" else nib.Nifti2Image
    rotation = nib.quaternions.quat2mat([0.9, 0.1, -0.3, 0.2])
    affine = nib.affines.from_matvec(rotation * [0.5, 0.75, 1.25], [4, -5, 6])
    for dtype in ("u1", "i2", "u2", "i8", "f4", "f8"):
        array = np.random.default_rng(0).integers(0, 99, (6, 5, 4)).astype(dtype)
        image = kind(array, affine, kind.header_class(endianness=order), dtype=np.dtype(dtype).newbyteorder(order))
        image.set_qform(affine, 1)
        if kind is nib.Nifti2Image:
            raw = image.to_bytes()
            (tmp_path / name).write_bytes(gzip.compress(raw) if name.lower().endswith("gz") else raw)
        else:
            nib.save(image, tmp_path / name)
        volume = read_volume(tmp_path / name)
        assert np.array_equal(volume.array[0], array.T)
        assert volume.array.dtype == np.dtype(dtype)
        expected = np.diag([-1, -1, 1, 1]) @ affine
        assert volume.placement.direction * volume.spacing_mm[::-1] == pytest.approx(expected[:3, :3])
        assert volume.placement.origin_mm == pytest.approx(expected[:3, 3])
        assert volume.notes == ()


def test_a_nifti2_file_is_the_same_image_as_its_nifti1_twin(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(6, 5, 4, 2))
    for kind, name in ((nib.Nifti1Image, "1.nii.gz"), (nib.Nifti2Image, "2.nii.gz")):
        header = kind.header_class()
        header.set_data_dtype(np.int16)  # nibabel then writes a slope and an offset
        nib.save(kind(array, np.diag([-1, -2, 3, 1]), header), tmp_path / name)
    one, two = (read_volume(tmp_path / f"{number}.nii.gz", allow_4d=True) for number in (1, 2))
    assert one.array.shape == two.array.shape == (2, 4, 5, 6)
    assert two.array == pytest.approx(one.array, rel=1e-6)  # NIfTI-1 keeps the slope as float32
    assert one.placement[:2] == two.placement[:2]
    assert np.array_equal(one.placement.direction, two.placement.direction)


NIFTI2 = nib.Nifti2Image(np.arange(120, dtype="<i2").reshape(6, 5, 4), np.eye(4)).to_bytes()


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (NIFTI2[:400], r"truncated: 400\b.*\b540"),
        (NIFTI2[:-1], r"truncated: 239\b.*\b240"),
        (NIFTI2 + b"x", "longer"),
        (NIFTI2[:4] + b"n+1\0" + NIFTI2[8:], "magic"),
        (NIFTI2[:24] + struct.pack("<q", 1 << 40) + NIFTI2[32:], "limit"),
        (NIFTI2[:24] + struct.pack("<q", -4) + NIFTI2[32:], "positive"),
        (NIFTI2[:168] + struct.pack("<q", 100) + NIFTI2[176:], "vox_offset"),
        (NIFTI2[:168] + struct.pack("<q", -(1 << 62)) + NIFTI2[176:], "vox_offset"),
    ],
)
def test_a_broken_nifti2_file_is_refused_with_its_cause(tmp_path: Path, data: bytes, cause: str) -> None:
    with pytest.raises(DataError, match=cause):
        read(tmp_path, data)


def test_a_pair_with_an_open_header_is_read_with_a_note(tmp_path: Path) -> None:
    path = write_pair(tmp_path, nifti_header(AWAY, (252, "2h", (1, 2)), magic=b"ni1\0"), DATA)
    volume = read_volume(path)
    assert [note.kind for note in volume.notes] == ["forms apart, qform"]
    assert np.array_equal(volume.array.ravel(), VOXELS)


def test_the_limit_follows_the_memory_and_is_never_below_2_gib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlx.system.memory.CGROUP", tmp_path)
    memory = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 64 << 18}  # 64 GiB
    monkeypatch.setattr("os.sysconf", memory.__getitem__)
    assert max_volume_bytes() == 32 << 30
    assert check_size([2048, 2048, 2048], 4) == 2048**3  # 32 GiB
    with pytest.raises(BadFile, match=r"\b65536\b.*\b32 GiB"):
        check_size([2048, 2048, 2049], 4)
    (tmp_path / "memory.max").write_text(str(16 << 30))  # in a container
    assert max_volume_bytes() == 8 << 30
    memory["SC_PHYS_PAGES"] = 1 << 18
    assert max_volume_bytes() == 2 << 30
