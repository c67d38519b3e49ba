"""Where prepared data are kept between runs."""

import os
from pathlib import Path

from dlx.system.files import home_folder


def default_cache_dir() -> Path | None:
    """`$DLX_CACHE_DIR`, `$XDG_CACHE_HOME/dlx` or `~/.cache/dlx`; None if none of the folders is known."""
    own, caches, home = os.environ.get("DLX_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME"), home_folder()
    if own:
        return Path(own)
    if caches:
        return Path(caches) / "dlx"
    return None if home is None else home / ".cache" / "dlx"
