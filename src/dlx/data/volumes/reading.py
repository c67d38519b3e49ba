"""Reads volumes and slices: checks a file with the module of its format, and only then has SimpleITK decode it.

A volume is an array with its geometry; voxels are hashed here, but never changed. `geometry.same_voxels` compares
two geometries, and `dlx.data.layouts` knows which files belong together.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlx.data.notes import HARMLESS
from dlx.data.volumes.decoder import Decoded, decode
from dlx.data.volumes.header import BadFile, Header, Note, Placement, check_orthogonal, three
from dlx.data.volumes.metaimage import check_metaimage
from dlx.data.volumes.nifti import check_nifti, check_pair, header_path
from dlx.data.volumes.nifti_voxels import decode_raw
from dlx.data.volumes.nrrd import check_nrrd
from dlx.data.volumes.opening import OpenedFile, open_regular, show_path
from dlx.data.volumes.png import check_png
from dlx.data.volumes.tiff import check_tiff
from dlx.settings.spec import Geometry
from dlx.system.errors import DataError

CHECKS: dict[str, Callable[[OpenedFile], Header]] = {
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
# Relative, of the spacing that SimpleITK reads against the header's. Text and float32 have errors near 1e-7 to 1e-5.
SPACING_TOLERANCE = 1e-4
PICTURES = ("PNGImageIO", "TIFFImageIO")


@dataclass(frozen=True)
class Volume:
    """Voxels and their placement.

    array: (C, D, H, W), finite, in the type of the file (float if its header scales the values).
    placement: of the array's x, y, z axes, in SimpleITK's convention (x to the left, y to the back, z upwards).
    notes: ambiguities of the header that were resolved; also: other placements that it gives for the same voxels.
    is_picture: PNG or TIFF, whose resolution, if any, is often that of a screen or printer.
    has_directions: whether the file gives the directions of the axes; without, those of the placement mean nothing.
    """

    array: np.ndarray
    placement: Placement
    notes: tuple[Note, ...] = ()
    also: tuple[Placement, ...] = ()
    is_picture: bool = False
    has_directions: bool = True

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(d, h, w), each above 0; d is 1 for a 2D image."""
        w, h, d = self.placement.spacing_mm
        return d, h, w


def read_volume(path: Path, *, allow_rgb: bool = False, allow_4d: bool = False, geometry: Geometry = "image") -> Volume:
    """Reads `.nii`, `.nii.gz`, `.hdr`/`.img` (NIfTI or Analyze 7.5), `.nrrd`, `.mha`, `.png`, `.tif` or `.tiff`.

    A 2D image has D = 1. An RGB image (PNG, TIFF) has C = 3 and needs `allow_rgb`; a fourth axis becomes C and needs
    `allow_4d`. `geometry="strict"` refuses a header that is ambiguous on where the voxels lie. Raises DataError with
    the line `path: cause` for any invalid file. The file must not change meanwhile: the check and the decoder each open
    it.
    """
    try:
        source, check = _recognize(Path(path))
        file = open_regular(source)
        with file.stream:
            header = check(file)
        if header.components == 3 and not allow_rgb:
            raise BadFile("contains RGB colours; expected one value per voxel")
        if header.size_px[3] > 1 and not allow_4d:
            raise BadFile(f"has 4 axes ({' x '.join(map(str, header.size_px))}); expected 3")
        differing = [note.detail for note in header.notes if note.kind not in HARMLESS]
        if geometry == "strict" and differing:
            raise BadFile(f"{differing[0]} (data.geometry=image reads it and reports what was used)")
        array, placement = _decode(source, header) if header.raw is None else decode_raw(header, header.raw)
        is_picture = header.image_io in PICTURES
        return Volume(array, placement, header.notes, header.also, is_picture, header.has_directions)
    except BadFile as bad:
        raise DataError(f"{show_path(Path(path))}: {bad}") from None


def _recognize(path: Path) -> tuple[Path, Callable[[OpenedFile], Header]]:
    """The file to open (the header of a pair) and the check of its format, from the end of the name."""
    for suffix, attached in DETACHED.items():
        if path.name.endswith((suffix, suffix.upper())):
            raise BadFile(
                f"a {suffix} file has its voxels in another file, which is not supported: save it as {attached}"
            )
    _, ending = split_ending(path.name)
    if ending is not None:
        return header_path(path), CHECKS[ending.lower()]
    raise BadFile(f"unknown file format: the name must end in {', '.join(CHECKS)}")


def split_ending(name: str) -> tuple[str, str | None]:
    """The name of a file without the ending of its format, and the ending as it is spelled; None for an unknown one."""
    for suffix in CHECKS:
        for spelled in (suffix, suffix.upper()):  # the NIfTI library accepts no mixed case
            if name.endswith(spelled):
                return name.removesuffix(spelled), spelled
    return name, None


def _decode(path: Path, header: Header) -> tuple[np.ndarray, Placement]:
    """Decodes a checked file with SimpleITK; BadFile if the result is not what the header claims."""
    decoded = decode(path, header.image_io)
    array = decoded.array
    size = (*decoded.size_px, 1, 1)[:4]
    if size != header.size_px or decoded.components != header.components:
        raise BadFile(f"decoded to a size of {size}, but the header claims {header.size_px}")
    if array.dtype != header.dtype:
        raise BadFile(f"decoded to {array.dtype}, but the header claims {header.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise BadFile("contains voxels that are not finite after scaling")
    x, y, z, t = header.size_px
    array = np.moveaxis(array, -1, 0).reshape(3, z, y, x) if header.components == 3 else array.reshape(t, z, y, x)
    return array, _placement(decoded, header)


def _placement(decoded: Decoded, header: Header) -> Placement:
    """SimpleITK's placement of three axes: a 2D image lies at z = 0, a fourth axis is ignored."""
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
    if not np.allclose(spacing, header.spacing_mm, rtol=SPACING_TOLERANCE, atol=0):
        raise BadFile(f"decoded to the spacing {tuple(spacing.tolist())}, but the header claims {header.spacing_mm}")
    return Placement(three(spacing), three(origin), direction)


def content_hash(array: np.ndarray) -> str:
    """BLAKE2b (128 bits, hexadecimal) of shape, type and values: equal for equal arrays in any memory layout."""
    native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    digest = hashlib.blake2b(f"{array.shape} {native.dtype.str} ".encode(), digest_size=16)
    digest.update(native.data if native.size else b"")
    return digest.hexdigest()


def value_hash(array: np.ndarray) -> str:
    """BLAKE2b (128 bits, hexadecimal) of shape and values: the same for an image saved with another voxel type.

    Values are converted to float64, which represents the values of all types exactly except whole numbers beyond 2^53;
    arrays with such values are converted to 64-bit integers.
    """
    kind: np.dtype[Any] = np.dtype("<f8")
    is_wide = array.dtype.kind in "iu" and array.dtype.itemsize == 8 and array.size > 0
    if is_wide and max(-int(array.min()), int(array.max())) > 2**53:
        kind = np.dtype("<u8" if int(array.max()) >= 2**63 else "<i8")
    digest = hashlib.blake2b(f"{array.shape} {kind.str} ".encode(), digest_size=16)
    for part in array if array.ndim > 1 else [array]:  # in parts, to avoid a copy of 8 bytes per voxel
        values = np.ascontiguousarray(part, kind)
        digest.update((values + 0 if kind.kind == "f" else values).data if values.size else b"")  # -0.0 is 0.0
    return digest.hexdigest()
