"""Provenance of a result: versions of packages, and the commit of dlx."""

import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

import dlx

PACKAGES = ("dlx", "torch", "numpy", "scipy", "SimpleITK", "safetensors")


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect results; packages that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def commit() -> str | None:
    """The commit of the checkout that dlx runs from, with `+` if files were changed since; None if there is none."""
    root = Path(dlx.__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "src")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}+" if changed else head


def _git(root: Path, *args: str) -> str:
    command = ["git", "-C", str(root), *args]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
