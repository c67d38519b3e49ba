"""Reading volumes and slices: the file is checked first (`dlx.data.volumes`), and only then SimpleITK decodes it.

Here: the volume as an array with its geometry, hashes of voxels. Not here: what the formats look like
(`dlx.data.volumes`), the comparison of two geometries (`same_voxels`), which files belong together (the layouts), and
any change of voxels.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dlx.data.notes import HARMLESS
from dlx.data.volumes.claim import BadFile, Claim, Note, Place, RawVoxels, check_orthogonal
from dlx.data.volumes.decoder import Decoded, decode
from dlx.data.volumes.metaimage import check_metaimage
from dlx.data.volumes.nifti import check_nifti, check_pair, header_path
from dlx.data.volumes.nifti_voxels import decode_raw
from dlx.data.volumes.nrrd import check_nrrd
from dlx.data.volumes.opening import OpenedFile, open_regular, show_path
from dlx.data.volumes.png import check_png
from dlx.data.volumes.tiff import check_tiff
from dlx.settings.spec import Geometry
from dlx.system.errors import DataError

CHECKS: dict[str, Callable[[OpenedFile], Claim]] = {
    ".nii.gz": check_nifti,
    ".nii": check_nifti,
    ".hdr": check_pair,
    ".img": check_pair,
    ".nrrd": check_nrrd,
    ".mha": check_metaimage,
    ".png": check_png,
    ".tif": check_tiff,
    ".tiff": check_tiff,
}
DETACHED = {".mhd": ".mha", ".nhdr": ".nrrd"}
# Geometry written as text or float32 comes back with relative errors near 1e-7 to 1e-5.
SPACING_TOLERANCE = 1e-4  # of what SimpleITK reads against what the header says; relative
PICTURES = ("PNGImageIO", "TIFFImageIO")


@dataclass(frozen=True)
class Volume:
    """Voxels and where they lie.

    array: (C, D, H, W) in the type of the file (float where its header scales the values), finite.
    spacing_mm: (d, h, w), each above 0; d is 1 for a 2D image.
    origin_mm: (x, y, z) of the first voxel's centre; direction: 3 x 3 row by row, its columns the x, y, z axes of the
    array, as SimpleITK has them (x to the left, y to the back, z upwards).
    notes: what was read in one of several ways; also: other places that the header gives to the same voxels.
    is_picture: PNG or TIFF, whose resolution, if any, is often that of a screen or printer.
    """

    array: np.ndarray
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: tuple[float, float, float, float, float, float, float, float, float]
    notes: tuple[Note, ...] = ()
    also: tuple[Place, ...] = ()
    is_picture: bool = False


def read_volume(path: Path, *, allow_rgb: bool = False, allow_4d: bool = False, geometry: Geometry = "image") -> Volume:
    """Reads `.nii`, `.nii.gz`, `.hdr`/`.img` (NIfTI or Analyze 7.5), `.nrrd`, `.mha`, `.png`, `.tif` or `.tiff`.

    A 2D image has D = 1. An RGB image (PNG, TIFF) has C = 3 and needs `allow_rgb`; a fourth axis becomes C and needs
    `allow_4d`. `geometry="strict"` refuses a header that says two things of where the voxels lie. Raises
    DataError, `path: cause` in one line, for whatever cannot be trusted. The file must not change while it is read:
    the check and the decoder open it one after the other.
    """
    try:
        source, check = _recognize(Path(path))
        with open_regular(source) as file:
            claim = check(file)
        if claim.components == 3 and not allow_rgb:
            raise BadFile("holds RGB colours where one value a voxel is expected")
        if claim.size_px[3] > 1 and not allow_4d:
            raise BadFile(f"has 4 axes ({' x '.join(map(str, claim.size_px))}) where 3 are expected")
        differing = [note.detail for note in claim.notes if note.kind not in HARMLESS]
        if geometry == "strict" and differing:
            raise BadFile(f"{differing[0]} (data.geometry=image reads it and says what was taken)")
        volume = _decode(source, claim) if claim.raw is None else _decode_raw(claim, claim.raw)
        return replace(volume, notes=claim.notes, also=claim.also, is_picture=claim.image_io in PICTURES)
    except BadFile as bad:
        raise DataError(f"{show_path(Path(path))}: {bad}") from None


def _recognize(path: Path) -> tuple[Path, Callable[[OpenedFile], Claim]]:
    """The file to open (of a pair the header) and the check of its format, both by its name's end."""
    for suffix, attached in DETACHED.items():
        if path.name.endswith((suffix, suffix.upper())):
            raise BadFile(f"a {suffix} file has its voxels in another file, which could be any: save it as {attached}")
    for suffix, check in CHECKS.items():
        if path.name.endswith((suffix, suffix.upper())):  # the NIfTI library takes no mixture of cases
            return header_path(path), check
    raise BadFile(f"unknown kind of file: the name must end in {', '.join(CHECKS)}")


def _decode_raw(claim: Claim, raw: RawVoxels) -> Volume:
    """A checked file that is not for SimpleITK."""
    w, h, d = raw.place.spacing_mm
    xx, xy, xz, yx, yy, yz, zx, zy, zz = raw.place.direction.ravel().tolist()
    direction = (xx, xy, xz, yx, yy, yz, zx, zy, zz)
    return Volume(decode_raw(claim, raw), (d, h, w), raw.place.origin_mm, direction)


def _decode(path: Path, claim: Claim) -> Volume:
    """What SimpleITK makes of a checked file; BadFile where that is not what the header claims."""
    decoded = decode(path, claim.image_io)
    array = decoded.array
    size = (*decoded.size_px, 1, 1)[:4]
    if size != claim.size_px or decoded.components != claim.components:
        raise BadFile(f"decoded to a size of {size}, and the header claims {claim.size_px}")
    if array.dtype != claim.dtype:
        raise BadFile(f"decoded to {array.dtype}, and the header claims {claim.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise BadFile("holds voxels that are not finite once they are scaled")
    x, y, z, t = claim.size_px
    array = np.moveaxis(array, -1, 0).reshape(3, z, y, x) if claim.components == 3 else array.reshape(t, z, y, x)
    return _with_geometry(array, decoded, claim)


def _with_geometry(array: np.ndarray, decoded: Decoded, claim: Claim) -> Volume:
    """Adds SimpleITK's geometry, taken to three axes: a 2D image lies at z = 0, a fourth axis has no place."""
    num_axes = len(decoded.size_px)
    num_spatial = min(num_axes, 3)
    spacing, origin = np.ones(3), np.zeros(3)
    spacing[:num_spatial] = decoded.spacing[:num_spatial]
    origin[:num_spatial] = decoded.origin[:num_spatial]
    direction = np.eye(3)
    matrix = np.array(decoded.direction).reshape(num_axes, num_axes)
    direction[:num_spatial, :num_spatial] = matrix[:num_spatial, :num_spatial]
    check_orthogonal(direction, "decoded direction")
    if not np.isfinite(origin).all():
        raise BadFile("the origin is not finite")
    if claim.spacing_mm is not None and not np.allclose(spacing, claim.spacing_mm, rtol=SPACING_TOLERANCE, atol=0):
        raise BadFile(f"decoded to the spacing {tuple(spacing.tolist())}, and the header claims {claim.spacing_mm}")
    w, h, d = spacing.tolist()
    x, y, z = origin.tolist()
    xx, xy, xz, yx, yy, yz, zx, zy, zz = direction.ravel().tolist()
    return Volume(array, (d, h, w), (x, y, z), (xx, xy, xz, yx, yy, yz, zx, zy, zz))


def content_hash(array: np.ndarray) -> str:
    """BLAKE2b (128 bits, hexadecimal) of shape, type and values: equal for equal arrays, whatever their layout."""
    native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    told = hashlib.blake2b(f"{array.shape} {native.dtype.str} ".encode(), digest_size=16)
    told.update(native.data if native.size else b"")
    return told.hexdigest()


def value_hash(array: np.ndarray) -> str:
    """BLAKE2b (128 bits, hexadecimal) of shape and values: the same for an image saved with another voxel type.

    Values are taken as float64, which holds those of every type exactly, but for whole numbers beyond 2^53: an array
    with such is taken as 64-bit whole numbers.
    """
    kind: np.dtype[Any] = np.dtype("<f8")
    is_wide = array.dtype.kind in "iu" and array.dtype.itemsize == 8 and array.size > 0
    if is_wide and max(-int(array.min()), int(array.max())) > 2**53:
        kind = np.dtype("<u8" if int(array.max()) >= 2**63 else "<i8")
    told = hashlib.blake2b(f"{array.shape} {kind.str} ".encode(), digest_size=16)
    for part in array if array.ndim > 1 else [array]:  # no copy of the whole in 8 bytes a voxel
        values = np.ascontiguousarray(part, kind)
        told.update((values + 0 if kind.kind == "f" else values).data if values.size else b"")  # -0.0 is 0.0
    return told.hexdigest()
