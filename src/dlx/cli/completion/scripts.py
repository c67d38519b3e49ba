"""The scripts, one for each shell, that ask `answer.py` while a command line is typed."""

from pathlib import Path


def script(shell: str) -> str:
    """The script that makes a shell complete the command lines of dlx."""
    return Path(__file__).with_name(f"dlx.{shell}").read_text(encoding="utf-8")
