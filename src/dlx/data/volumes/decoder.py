"""The only module that uses SimpleITK: decodes one file at a time in a process, for any number of threads.

SimpleITK must not be used by two threads at once. ITK keeps its globals in a map without a lock
(Modules/Core/Common/src/itkSingleton.cxx) and changes it when a class is used for the first time. Two threads can leave
a map with circular links; the process then never ends, because a destructor walks the map at exit. Helgrind also finds
races after every format has been read once, so a lock for the first use alone is not enough (`make races`). The work
around decoding (checks, hashes, normalising) still runs in parallel.

Other code that uses SimpleITK and that dlx calls while volumes are read (a normaliser) must hold `DECODING`.
"""

import importlib
import os
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlx.data.volumes.header import BadFile

# Held while SimpleITK is imported or used, or frees its memory. A process can fork only while nothing is being decoded:
# otherwise the child would inherit SimpleITK amid a change, and a lock that none of its threads can release.
DECODING = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=DECODING.acquire, after_in_parent=DECODING.release, after_in_child=DECODING.release)


@dataclass(frozen=True)
class Decoded:
    """A decoded file. It holds no SimpleITK object, as these must be freed while the lock is held.

    array: axes in reverse order of `size_px` (x, y, z, t), then the components if there are several.
    The other fields are SimpleITK's, with one entry per axis of the file; `direction` is row by row.
    """

    array: np.ndarray[Any, Any]
    size_px: tuple[int, ...]
    components: int
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]


def decode(path: Path, image_io: str) -> Decoded:
    """Decodes a checked file with the SimpleITK reader `image_io`; BadFile, with SimpleITK's cause, if that fails."""
    with DECODING:
        try:
            decoded = _decode(path, image_io)
        except BaseException as error:  # e.g. MemoryError: its traceback would keep SimpleITK's objects alive
            traceback.clear_frames(error.__traceback__)
            raise
    if isinstance(decoded, str):
        raise BadFile(f"SimpleITK cannot decode it: {decoded}")
    return decoded


def _decode(path: Path, image_io: str) -> Decoded | str:
    """The decoded file, or the cause of a failure. The cause is returned, not raised: the traceback of an exception
    would keep SimpleITK's objects alive after the lock is released.
    """
    sitk: Any = importlib.import_module("SimpleITK")  # imported here because loading it is slow; it has no types
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # it warns about every Analyze file
    reader = sitk.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(str(path))
    try:
        image = reader.Execute()
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no cause given"]
        return lines[-1].rpartition("ERROR: ")[2][:200]
    return Decoded(
        array=sitk.GetArrayFromImage(image),
        size_px=image.GetSize(),
        components=image.GetNumberOfComponentsPerPixel(),
        spacing=image.GetSpacing(),
        origin=image.GetOrigin(),
        direction=image.GetDirection(),
    )
