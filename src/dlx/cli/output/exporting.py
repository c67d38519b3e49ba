"""What `dlx export` prints: a spinner on stderr, and for each file what it is and how it was checked on stdout."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.text import Text

from dlx.cli.output.console import notes, output
from dlx.cli.output.prediction import print_notes
from dlx.settings.text import counted
from dlx.system.characters import visible

if TYPE_CHECKING:
    from dlx.exporting.export import ExportedFile

CHECKED_BY = {"onnx": "onnxruntime", "torchscript": "libtorch"}
UNITS = ("KiB", "MiB", "GiB")


@contextmanager
def working(text: str) -> Iterator[None]:
    """Shows a text with a spinner on stderr within the block, on a terminal only."""
    console = notes()
    if not console.is_terminal:
        yield
        return
    with console.status(Text(visible(text))):
        yield


def print_exported(exported: "ExportedFile") -> None:
    """Prints the file, its description and the outcome of the check."""
    compared = exported.on_images or exported.on_noise
    on = (
        f"on noise only, as {exported.images}; -i IMAGES compares labels"
        if exported.on_images is None
        else f"on {counted(exported.num_images, 'image')}: {exported.images}"
    )
    lines = [
        f"{exported.path} ({_spell_bytes(exported.num_bytes)}), with its preparation in {exported.description.name}",
        f"checked by {CHECKED_BY[exported.format]} {on}",
        f"  logits: at most {compared.difference:.1e} apart (accepted: {compared.tolerance:.1e})",
    ]
    if exported.on_images is not None:
        why = ", where two logits are equal but for rounding" if compared.num_differing else ""
        lines.append(f"  labels: {compared.num_differing:,} of {compared.num_voxels:,} voxels differ{why}")
    for line in lines:
        output().print(visible(line), soft_wrap=True)
    print_notes(unlike_predict(exported))


def unlike_predict(exported: "ExportedFile") -> list[str]:
    """A line if `dlx predict` labels some voxels differently than the file does, here or on other devices."""
    is_reduced = exported.predict_precision != "float32"
    if exported.on_images is not None and exported.num_unlike_predict:
        cause = (
            f"it computes in {exported.predict_precision}, in which the run was trained, and the file in float32"
            if is_reduced
            else "torch computes norms less exactly there"
        )
        number = f"{exported.num_unlike_predict:,} of these {exported.on_images.num_voxels:,} voxels"
        return [f"dlx predict on this CPU labels {number} differently: {cause} (docs/export.md)"]
    if exported.trial_precision != "float32":
        return [
            "dlx predict computes in bf16 on devices that have it, as the run was trained, and the file in float32: "
            "the labels of a few voxels can differ (docs/export.md)"
        ]
    return []


def _spell_bytes(number: int) -> str:
    amount, unit = number / 2**10, UNITS[0]
    for unit in UNITS:
        if amount < 1000 or unit == UNITS[-1]:
            break
        amount /= 2**10
    return f"{amount:.3g} {unit}"
