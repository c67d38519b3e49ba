"""Whether a file in a folder of the user's is one that dlx wrote and may replace or remove."""

from pathlib import Path

from dlx.system.errors import DataError
from dlx.system.files import read_json


def is_own_json(path: Path) -> bool:
    """Whether a JSON document says that dlx wrote it; False for any other file, and for one that cannot be read."""
    try:
        found = read_json(path)
    except DataError:
        return False
    return isinstance(found, dict) and str(found.get("written_by", "")).startswith("dlx ")
