"""The unit of distances: mm, or pixels for PNG and TIFF files without a resolution."""

from collections.abc import Iterable

from dlx.study.results import DistanceUnit

ENDINGS = (".png", ".tif", ".tiff")
TOLERANCE = 1e-3  # SimpleITK stores a spacing of 1 in a TIFF as 25.4 dots per inch, a rounded fraction


def distance_unit(paths: Iterable[str], spacings_mm: Iterable[tuple[float, float, float]]) -> DistanceUnit:
    """`px` if all files are PNG or TIFF and all spacings are 1, else `mm`."""
    names = [path.lower() for path in paths]
    if not names or not all(name.endswith(ENDINGS) for name in names):
        return "mm"
    is_one = all(abs(step - 1) <= TOLERANCE for spacing in spacings_mm for step in spacing)
    return "px" if is_one else "mm"
