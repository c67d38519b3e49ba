"""The only place that uses SimpleITK: files are decoded one at a time in a process, whatever number of threads asks.

SimpleITK may not be used by two threads at once. ITK keeps its globals in a map without a lock
(Modules/Core/Common/src/itkSingleton.cxx) and changes it when a class is used for the first time; two threads can leave
a map whose links form a circle, and the process then never ends, because a destructor walks the map at exit. Helgrind
also finds races where every format was read before, so a lock for the first use alone is not enough (`make races`).
What surrounds decoding (checks, hashes, normalising) still runs in parallel.

Code that uses SimpleITK itself and that dlx calls while volumes are read (a normaliser) must hold `DECODING` meanwhile.
"""

import importlib
import os
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlx.data.volumes.claim import BadFile

# Held whenever SimpleITK is imported, used, or gives its memory back. A process is forked only while nothing is being
# decoded: the child would otherwise inherit a half-changed SimpleITK, and a lock that no thread of it can release.
DECODING = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=DECODING.acquire, after_in_parent=DECODING.release, after_in_child=DECODING.release)


@dataclass(frozen=True)
class Decoded:
    """A decoded file, without any of SimpleITK's objects: these are freed while the lock is held.

    array: axes in reverse order of `size_px` (x, y, z, t), then the components if there are several.
    The rest is as SimpleITK gives it, one entry an axis of the file; `direction` row by row.
    """

    array: np.ndarray[Any, Any]
    size_px: tuple[int, ...]
    components: int
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]


def decode(path: Path, image_io: str) -> Decoded:
    """Decodes a file that was checked, with SimpleITK's reader of that name; BadFile, with its cause, if it cannot."""
    with DECODING:
        try:
            decoded = _decode(path, image_io)
        except BaseException as error:  # too little memory: its traceback would keep SimpleITK's objects
            traceback.clear_frames(error.__traceback__)
            raise
    if isinstance(decoded, str):
        raise BadFile(f"SimpleITK cannot decode it: {decoded}")
    return decoded


def _decode(path: Path, image_io: str) -> Decoded | str:
    """The decoded file, or why there is none. The cause is returned and not raised: the traceback of an exception
    would keep SimpleITK's objects after the lock is released.
    """
    sitk: Any = importlib.import_module("SimpleITK")  # here, as loading it takes long; untyped
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # it warns of every Analyze file
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
