"""The network that `count-params` counts, as the user types it: a registered one, or their own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlx.system.errors import SettingError

if TYPE_CHECKING:
    from torch import nn

    from dlx.settings.own.code import OwnCode
    from dlx.settings.part import Part

Factory = Callable[[], "nn.Module"]


@dataclass(frozen=True)
class UsualInput:
    """The default input and number of classes for counting a network."""

    channels: int
    size_px: int
    classes: int


SEGMENTATION = UsualInput(2, 64, 4)  # T1 and T2, patches and classes of the notes
CLASSIFICATION = UsualInput(3, 224, 1000)  # ImageNet


def usual_input(text: str) -> UsualInput:
    """The default input: ImageNet's for registered classifiers, that of the notes for all other networks."""
    from dlx.settings import registry

    return CLASSIFICATION if text.partition(":")[0].strip() in registry.PARTS["classifier"] else SEGMENTATION


def usual_dims(text: str, settings: dict[str, Any]) -> tuple[int, ...]:
    """The dimensions of the images with which a network is tried, in order: those that a network of the user's own is
    told or has as a default (`spatial_dims`), else 2D and 3D.
    """
    from dlx.settings.own.arguments import signature_of
    from dlx.settings.own.code import target_of, vouch_for
    from dlx.settings.own.names import own_name
    from dlx.settings.part import Part

    part = Part.model_validate(text)
    own = own_name(part.name)
    told = None
    if own is not None:
        told = signature_of(target_of(vouch_for(own, part)[0])).told_dims(part.args | settings)
    return (2, 3) if told is None else (told,)


def find_model(
    text: str, settings: dict[str, Any], in_channels: int, num_classes: int, dims: int | None = None
) -> Factory:
    """A function that builds the network which `text` names, with the arguments given by --set.

    `unet2` and `unet2:width=32` are registered names; `my_net.py:Net` and `package.module:callable` are a class, a
    function that returns a network, or a network. Channels and classes are passed to it, and `dims` to a network that
    needs to be told. Raises SettingError for an unknown name, and if the network does not take the arguments.
    """
    from dlx.settings import registry
    from dlx.settings.binding import bind_arguments
    from dlx.settings.part import Part

    part = Part.model_validate(text)
    part = part.model_copy(update={"args": part.args | settings})
    if part.is_own:
        return _own_factory(part, in_channels, num_classes, dims)
    kind = "classifier" if part.name in registry.PARTS["classifier"] else "model"
    try:
        factory = registry.load(kind, part.name)
    except SettingError as error:
        own = "" if ";" in str(error) else ", or my_net.py:Net, package.module:callable for a network of your own"
        raise SettingError(f"{error}{own}") from None
    bound = bind_arguments(kind, part.name, factory, part.args)
    return lambda: factory(in_channels, num_classes, **bound)


def _own_factory(part: "Part", in_channels: int, num_classes: int, dims: int | None) -> Factory:
    from dlx.models.own.network import call
    from dlx.settings.own.arguments import Sizes, check_arguments, check_target, is_instance, split_geometry
    from dlx.settings.own.code import target_of, vouch_for
    from dlx.settings.own.names import own_name

    own = own_name(part.name)
    assert own is not None
    named, code = vouch_for(own, part)
    target = target_of(named)
    if is_instance(target):
        if part.args:
            raise SettingError(
                f"'{part.name}' is an instance, which takes no arguments: leave out {next(iter(part.args))}"
            )
        return lambda: target
    check_target(part.name, target)
    args, geometry = split_geometry(target, part.args)
    sizes = Sizes(in_channels, num_classes, geometry.get("dims") or dims)
    complete = check_arguments(part.name, target, args, sizes)
    return lambda: _called(part.name, code, lambda: call(part.name, target, complete))


def _called(name: str, code: "OwnCode", make: Factory) -> "nn.Module":
    """The network; SettingError, with the line of the user's code, if it cannot be built."""
    from dlx.settings.own.code import spell_cause

    try:
        return make()
    except SettingError:
        raise
    except Exception as error:
        raise SettingError(f"'{name}' could not be built: {spell_cause(error, code)}") from error
