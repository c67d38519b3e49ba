"""`dlx make-phantom`: writes phantom subjects to a folder in the layout of iSeg-2017."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dlx.system.errors import SettingError
from dlx.system.shell import shell_command


def make_phantom(
    folder: Annotated[Path, typer.Argument(help="Folder to write; created if missing.")],
    subjects: Annotated[int, typer.Option(help="Number of subjects.")] = 10,
    size: Annotated[
        str, typer.Option(help="Voxels along x,y,z, e.g. 144,192,256; one number for a cube.")
    ] = "64,64,64",
    seed: Annotated[int, typer.Option(help="Seed; the same seed gives the same files, byte for byte.")] = 0,
    format: Annotated[  # noqa: A002 (the option's name)
        Literal["analyze", "nifti"],
        typer.Option(help="Format of the .hdr/.img pairs: analyze, as in iSeg-2017, or nifti, with orientation."),
    ] = "analyze",
    force: Annotated[bool, typer.Option("--force", help="Overwrite a phantom in this folder.")] = False,
) -> None:
    """Write a data set of infant-brain-like phantoms (T1, T2, labels) as an iSeg-2017 folder."""
    from rich.progress import track

    from dlx.cli.output.console import notes, output
    from dlx.data.layouts.iseg import write_iseg_folder
    from dlx.data.phantom.case import MAX_SEED, MAX_SUBJECTS, phantom
    from dlx.settings.text import counted
    from dlx.system.characters import visible

    size_px = _parse_size(size)
    if not 1 <= subjects <= MAX_SUBJECTS:
        raise SettingError(f"--subjects {subjects}: expected 1 to {MAX_SUBJECTS}")
    if not 0 <= seed <= MAX_SEED:
        raise SettingError(f"--seed {seed}: expected 0 to {MAX_SEED}")
    source = phantom(subjects=subjects, size=size_px, seed=seed)
    drawn = ((case_id, *source.case(index)) for index, case_id in enumerate(source.case_ids))
    console = notes()
    progress = track(
        drawn,
        description="Drawing",
        total=subjects,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    write_iseg_folder(folder, progress, spacing_mm=source.spacing_mm, format=format, force=force)
    extent = " x ".join(str(number) for number in size_px)
    written = f"{folder}: {counted(subjects, 'subject')} of {extent} voxels (T1, T2, labels), seed {seed}, {format}"
    output().print(visible(written), soft_wrap=True)
    output().print(shell_command(["dlx", "train", "--data", str(folder)]), soft_wrap=True)


def _parse_size(text: str) -> tuple[int, int, int]:
    """`64` or `144,192,256` as (x, y, z); SettingError for anything else."""
    from dlx.data.phantom.case import MAX_SIZE_PX, MIN_SIZE_PX
    from dlx.settings.text import whole_numbers

    numbers = whole_numbers(text)
    if numbers is None or len(numbers) not in (1, 3):
        raise SettingError(f"--size {text!r}: expected one or three whole numbers, as in 64 or 144,192,256")
    if not all(MIN_SIZE_PX <= number <= MAX_SIZE_PX for number in numbers):
        raise SettingError(f"--size {text!r}: expected numbers from {MIN_SIZE_PX} to {MAX_SIZE_PX}")
    x, y, z = numbers if len(numbers) == 3 else numbers * 3
    return x, y, z
