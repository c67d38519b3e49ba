"""The arguments of networks of the user's own: checked by name against the signature, completed by the data's sizes."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from dlx.settings.own.code import OwnCode, target_of, vouched_code
from dlx.settings.part import CodeSpec, Part
from dlx.system.errors import SettingError, nearest

# How networks call the number of channels, of classes and of dimensions, the most telling name first: a network that
# has `out_channels` beside `num_classes` means its features by it.
IN_CHANNELS = ("in_channels", "input_channels", "in_chans", "n_channels", "in_ch", "input_nc", "channels_in")
NUM_CLASSES = (
    "num_classes", "n_classes", "nclasses", "classes", "num_class", "n_class",
    "out_channels", "output_channels", "out_chans", "out_ch", "output_nc", "channels_out",
)  # fmt: skip
DIMS = ("spatial_dims",)
IMAGE_SIZE = ("img_size", "image_size", "input_size", "roi_size")  # of networks that take images of one size
GEOMETRY = ("dims", "stride")  # settings of any network that has no such arguments
DROPOUT_WORDS = ("drop",)


@dataclass(frozen=True)
class Sizes:
    """What the data say: channels, outputs, and dimensions if a network is told them."""

    in_channels: int
    num_outputs: int
    dims: int | None = None


@dataclass(frozen=True)
class Signature:
    """The parameters of a callable that can be given by name; all names if it has `**kwargs` or no signature."""

    named: Mapping[str, inspect.Parameter]
    takes_any: bool

    @property
    def required(self) -> list[str]:
        return [name for name, parameter in self.named.items() if parameter.default is parameter.empty]

    def takes(self, name: str) -> bool:
        return name in self.named

    def sizes(self, args: Mapping[str, Any], sizes: Sizes) -> dict[str, int]:
        """The arguments that channels, outputs and dimensions are passed as: one name each, if none is given.

        Dimensions only where the callable has no default for them.
        """
        added = {}
        for names, value in ((IN_CHANNELS, sizes.in_channels), (NUM_CLASSES, sizes.num_outputs)):
            taken = [name for name in names if name in self.named]
            if taken and not any(name in args for name in taken):
                added[taken[0]] = value
        if (name := self.untold_dims(args)) is not None and sizes.dims is not None:
            added[name] = sizes.dims
        return added

    def untold_dims(self, args: Mapping[str, Any]) -> str | None:
        """The argument for dimensions that the callable needs and that is not given; None if there is none."""
        return next((name for name in DIMS if name in self.required and name not in args), None)

    def told_dims(self, args: Mapping[str, Any]) -> Literal[2, 3] | None:
        """The dimensions that the callable is told, or has as a default; None if it has no such argument."""
        told = [args.get(name, self.named[name].default) for name in DIMS if name in self.named]
        return 2 if told and told[0] == 2 else 3 if told and told[0] == 3 else None

    def lacking(self, args: Mapping[str, Any]) -> list[str]:
        """Which of channels and outputs are passed by no name and not given."""
        names = {"channels": IN_CHANNELS, "outputs": NUM_CLASSES}
        return [what for what, some in names.items() if not any(name in self.named or name in args for name in some)]

    @property
    def image_size(self) -> str | None:
        """The argument that is the size of the images; None if there is none."""
        return next((name for name in IMAGE_SIZE if name in self.named), None)

    @property
    def dropout(self) -> str | None:
        """The argument that most likely is a dropout rate."""
        return next((name for name in self.named if any(word in name.lower() for word in DROPOUT_WORDS)), None)


def signature_of(target: Any) -> Signature:
    """The signature of a callable; some that are written in C have none."""
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return Signature({}, takes_any=True)
    named = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    return Signature(named, any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()))


def is_instance(target: Any) -> bool:
    """Whether the name stands for a network that is made already, which takes no arguments."""
    return hasattr(target, "forward") and not isinstance(target, type)


def check_target(name: str, target: Any) -> None:
    """SettingError for what makes no network."""
    if not callable(target):
        kind = type(target).__name__
        raise SettingError(f"'{name}' is of type {kind}; expected a torch.nn.Module or a function that returns one")


def check_arguments(name: str, target: Any, args: Mapping[str, Any], sizes: Sizes) -> dict[str, Any]:
    """The arguments of the call; SettingError for one that the callable does not have, or one that is missing."""
    signature = signature_of(target)
    for key in args:
        if not signature.takes(key) and not signature.takes_any:
            known = nearest(key, signature.named) if signature.named else "(there are none)"
            raise SettingError(f"'{name}' has no argument '{key}': {known}")
    complete = {**signature.sizes(args, sizes), **args}
    missing = [key for key in signature.required if key not in complete]
    if missing:
        raise SettingError(f"'{name}' needs {' and '.join(missing)}: give --set model.{missing[0]}=VALUE")
    return complete


def bind_own(part: Part) -> Part:
    """The part with its arguments checked by name, and `dims` and `stride`, unless they are arguments of the network,
    moved into its `code`. Defaults are not filled in: the digest says which they are.
    """
    code, target = vouched_code(part), target_of(part)
    check_target(part.name, target)
    if is_instance(target):
        raise SettingError(
            f"model '{part.name}' is an instance: name a class or a function, so that each seed draws its own weights"
        )
    args, geometry = split_geometry(target, part.args)
    check_arguments(part.name, target, args, Sizes(1, 1, dims=2))
    return Part(name=part.name, args=args, code=_with_geometry(part, code, geometry))


def split_geometry(target: Any, args: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of the callable, and `dims` and `stride` where the callable has no such arguments."""
    signature = signature_of(target)
    geometry = {key: args[key] for key in GEOMETRY if key in args and not signature.takes(key)}
    return {key: value for key, value in args.items() if key not in geometry}, geometry


def _with_geometry(part: Part, code: OwnCode, geometry: Mapping[str, Any]) -> CodeSpec:
    before = part.code.model_dump() if part.code is not None else {}
    given = {key: value for key, value in geometry.items() if value not in (None, "auto")}
    known = before | given | {"digest": code.digest, "version": code.version}
    try:
        return CodeSpec.model_validate(known)
    except ValidationError:
        raise SettingError(
            f"model '{part.name}': expected dims 2 or 3 and a stride from 1 to 1024 (got "
            f"{', '.join(f'{key}={value}' for key, value in given.items())})"
        ) from None
