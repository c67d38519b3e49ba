"""`dlx count-params`: the number of parameters and FLOPs of a network, and the modules it uses more than once."""

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlx.system.errors import SettingError

if TYPE_CHECKING:
    from dlx.cli.model_argument import Factory
    from dlx.models.inspection.count import ModelCount


def count_params(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="unet2, unet2:width=32, unet-resnet34, resnet50 ..., or your own: my_net.py:Net, package.module:Net.",
        ),
    ],
    input_: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="C,H,W",
            help="Shape of one input: C,H,W or C,D,H,W.",
            show_default="2,64,64; for a classifier 3,224,224",
        ),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=1, help="Number of classes.", show_default="4; for a classifier 1000")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An argument of the network, e.g. width=32; repeatable."),
    ] = None,
    depth: Annotated[int, typer.Option(min=0, help="How many levels of modules to show.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list and nothing else.")] = False,
) -> None:
    """Count a network's parameters and find the modules that one forward pass uses more than once.

    The network is run to find blocks called twice and weights that modules share. `unet` has six such blocks.
    For a ResNet, a VGG and U-Nets built on them, the weighted layers of each stage are counted too.
    """
    from dlx.cli.output.console import note, print_json
    from dlx.settings.layers import parse_assignment

    shape = parse_shape(input_) if input_ is not None else None
    # `dlx train` takes an argument of the network as model.width
    settings = {key.removeprefix("model."): value for key, value in map(parse_assignment, set_ or [])}
    with contextlib.redirect_stdout(sys.stderr):  # modules of the user may print; stdout is for the result
        counted = [(text, *count_one(text, shape, classes, settings)) for text in models]
    if as_json:
        print_json([as_entry(*one) for one in counted])
        for text, _, counts in counted:
            for remark in counts.remarks:
                note(f"note     {text}: {remark}")
        return
    from dlx.cli.output.count_tables import print_counts

    print_counts(counted, depth)


def count_one(
    text: str, shape: tuple[int, ...] | None, num_classes: int | None, settings: dict[str, Any]
) -> "tuple[tuple[int, ...], ModelCount]":
    """The shape of the input, and the counts; SettingError if the network cannot be built or run."""
    import torch

    from dlx.cli.model_argument import find_model, usual_dims, usual_input

    usual = usual_input(text)
    channels, classes = shape[0] if shape else usual.channels, num_classes or usual.classes
    causes = []
    for dims in usual_dims(text, settings) if shape is None else (len(shape) - 1,):
        factory = find_model(text, settings, channels, classes, dims)
        used = shape or (channels, *[usual.size_px] * dims)
        # Some networks read values of tensors while they are built or run; meta tensors have none.
        for device in ("meta", "cpu"):
            try:
                with torch.device(device):
                    return _build_and_count(text, factory, used, is_usual=shape is None)
            except SettingError as error:
                cause = error
        causes.append(cause)
    raise causes[0]


def _build_and_count(
    text: str, factory: "Factory", shape: tuple[int, ...], *, is_usual: bool
) -> "tuple[tuple[int, ...], ModelCount]":
    from dlx.models.inspection.count import count

    model = factory()
    dims = getattr(model, "dims", None)
    used = (shape[0], *[shape[1]] * dims) if is_usual and isinstance(dims, int) else shape
    try:
        return used, count(model, used)
    except SettingError as error:
        raise SettingError(f"'{text}': {error}; give another shape with --input") from error


def parse_shape(text: str) -> tuple[int, ...]:
    """`2,64,64` as (2, 64, 64); SettingError for anything but whole numbers above zero."""
    from dlx.settings.text import whole_numbers

    shape = whole_numbers(text)
    if shape is None or min(shape) == 0:
        raise SettingError(f"--input {text}: expected channels and sizes, as in 2,64,64")
    return shape


def as_entry(text: str, shape: tuple[int, ...], counts: "ModelCount") -> dict[str, Any]:
    """A network's counts for JSON."""
    return {
        "model": text,
        "parameters": counts.parameters,
        "trainable": counts.trainable,
        "parts": counts.parts,
        "weighted_layers": counts.layers,
        "parameters_if_unshared": counts.parameters_if_unshared,
        "shared": [{"module": use.module, "calls": use.calls, "parameters": use.parameters} for use in counts.shared],
        "flops": counts.flops,
        "forward_backward_flops": counts.forward_backward_flops,
        "input": list(shape),
    }
