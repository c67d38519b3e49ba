"""`dlx completion`: the script that makes a shell complete command lines of dlx."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from dlx.system.errors import SettingError

Shell = Literal["bash", "zsh", "fish"]
SHELLS: tuple[Shell, ...] = ("bash", "zsh", "fish")


def completion(
    shell: Annotated[
        Shell | None, typer.Argument(metavar="bash|zsh|fish", help="The shell.", show_default="that of $SHELL")
    ] = None,
    install: Annotated[
        bool, typer.Option("--install", help="Write the script where the shell looks for it; change no other file.")
    ] = False,
) -> None:
    """Print the script that completes dlx commands in a shell: options, models, settings, runs.

    Put `source <(dlx completion bash)` into ~/.bashrc; for zsh the same into
    ~/.zshrc, below compinit; `dlx completion fish | source` into config.fish.
    With --install shells start faster: the script is written to a file.
    """
    from dlx.cli.completion.scripts import script
    from dlx.cli.output.console import note
    from dlx.system.files import write_atomically

    chosen = shell or shell_of_user()
    if not install:
        typer.echo(script(chosen), nl=False)
        return
    path = place_of(chosen)
    write_atomically(path, script(chosen).encode())
    note(f"written:      {path}")
    note(after_installing(chosen, path))


def shell_of_user() -> Shell:
    """The shell in $SHELL; SettingError if it is none of those that are supported."""
    name = Path(os.environ.get("SHELL", "")).name
    found = next((one for one in SHELLS if one == name), None)
    if found is None:
        raise SettingError(f"which shell? $SHELL is {name!r}; name one of {', '.join(SHELLS)}")
    return found


def place_of(shell: Shell) -> Path:
    """The file from which a shell loads completions of one user. SettingError without a home folder."""
    from dlx.system.files import home_folder

    home = home_folder()
    if home is None:
        raise SettingError("--install: there is no home folder (HOME is not set); leave it out to print the script")
    if shell == "zsh":
        return home / ".zfunc/_dlx"
    variable, usual = ("XDG_DATA_HOME", ".local/share") if shell == "bash" else ("XDG_CONFIG_HOME", ".config")
    base = Path(os.environ.get(variable) or home / usual)
    return base / ("bash-completion/completions/dlx" if shell == "bash" else "fish/completions/dlx.fish")


def after_installing(shell: Shell, path: Path) -> str:
    """What is left for the user to do."""
    if shell == "fish":
        return "new shells complete dlx"
    if shell == "zsh":
        return (
            "new shells complete dlx if ~/.zshrc has these lines:\n"
            "  fpath+=(~/.zfunc)\n  autoload -Uz compinit && compinit"
        )
    return (
        "new shells complete dlx if the package bash-completion is installed (as on most systems); else add to "
        f"~/.bashrc:\n  source {path}"
    )
