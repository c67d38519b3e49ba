"""PNG and TIFF, which have no spacing of the sample: distances in them are in pixels unless they have a resolution."""

from collections.abc import Iterable

from dlx.study.results import DistanceUnit

ENDINGS = (".png", ".tif", ".tiff")
TOLERANCE = 1e-3  # SimpleITK writes a spacing of 1 into a TIFF as 25.4 dots an inch, a fraction of whole numbers


def distance_unit(paths: Iterable[str], spacings_mm: Iterable[tuple[float, float, float]]) -> DistanceUnit:
    """`px` where all files are PNG or TIFF and none gives another spacing than 1, else `mm`."""
    names = [path.lower() for path in paths]
    if not names or not all(name.endswith(ENDINGS) for name in names):
        return "mm"
    is_one = all(abs(step - 1) <= TOLERANCE for spacing in spacings_mm for step in spacing)
    return "px" if is_one else "mm"
