"""A network as the user names it: a registered name, or `package.module:callable` for one of their own.

Only `count-params` takes the second form: it is what the user typed, and never comes from a file.
"""

import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlx.system.errors import SettingError, nearest
from dlx.system.safe_path import importing_from_working_folder

if TYPE_CHECKING:
    from torch import nn

Factory = Callable[[], "nn.Module"]


@dataclass(frozen=True)
class UsualInput:
    """What a network is counted with where nothing else is asked for."""

    channels: int
    size_px: int
    classes: int


SEGMENTED = UsualInput(2, 64, 4)  # the notes' T1 and T2, their patches and classes
CLASSIFIED = UsualInput(3, 224, 1000)  # ImageNet's


def usual_input(text: str) -> UsualInput:
    """The usual input of a registered network, and the notes' one of the user's own."""
    from dlx.settings import registry

    return CLASSIFIED if text.partition(":")[0].strip() in registry.PARTS["classifier"] else SEGMENTED


def find_model(text: str, settings: dict[str, Any], in_channels: int, num_classes: int) -> Factory:
    """A function that builds the network which `text` names, with the settings that were given with --set.

    `unet2` and `unet2:width=32` are registered names; `package.module:callable` is a class, a function that returns
    a network, or a network, found from the current directory too. Channels and classes are given to registered
    networks, and to others that have no default for `in_channels` or `num_classes`.
    Raises SettingError where there is no such name, or where it does not take the settings.
    """
    module, colon, rest = text.partition(":")
    if colon and "=" not in rest:
        return _own_factory(text, module, rest, settings, {"in_channels": in_channels, "num_classes": num_classes})
    from dlx.settings import registry
    from dlx.settings.binding import bind_arguments
    from dlx.settings.text import parse_part

    part = parse_part(text)
    name, args = part["name"], part["args"] | settings
    kind = "classifier" if name in registry.PARTS["classifier"] else "model"
    try:
        factory = registry.load(kind, name)
    except SettingError as error:
        raise SettingError(f"{error}, or package.module:callable for a network of your own") from None
    bound = bind_arguments(kind, name, factory, args)
    return lambda: factory(in_channels, num_classes, **bound)


def build_model(text: str, factory: Factory) -> "nn.Module":
    """What the factory builds; SettingError if that fails or is no torch.nn.Module."""
    from torch import nn

    try:
        with importing_from_working_folder():  # the user's own files may import others when they are called
            model = factory()
    except SettingError:
        raise
    except (Exception, SystemExit) as error:
        raise SettingError(f"'{text}' could not be built: {_one_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise SettingError(f"'{text}' gave something of type {type(model).__name__}, not a torch.nn.Module")
    return model


def _own_factory(text: str, module: str, attribute: str, settings: dict[str, Any], sizes: dict[str, int]) -> Factory:
    from torch import nn

    found = _import_attribute(text, module, attribute)
    if isinstance(found, nn.Module):
        if settings:
            raise SettingError(f"'{text}' is a network already: --set {next(iter(settings))} comes too late")
        return lambda: found
    if not callable(found):
        kind = type(found).__name__
        raise SettingError(f"'{text}' is of type {kind}, and neither a torch.nn.Module nor a function that gives one")
    args = _bind(text, found, settings, sizes)
    return lambda: found(**args)


def _import_attribute(text: str, module: str, attribute: str) -> Any:
    if module.endswith(".py") or not all(step.isidentifier() for step in f"{module}.{attribute}".split(".")):
        raise SettingError(f"'{text}': expected package.module:callable, as in my_networks:SmallUNet")
    try:
        with importing_from_working_folder():
            found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise SettingError(f"'{text}': importing '{module}' failed: {_one_line(error)}") from error
    for step in attribute.split("."):
        if not hasattr(found, step):
            public = [name for name in dir(found) if callable(getattr(found, name, None)) and not name.startswith("_")]
            shadowed = _shadowed(module)
            raise SettingError(f"'{text}': there is no '{step}' in '{module}': {shadowed or _nearest_of(step, public)}")
        found = getattr(found, step)
    return found


def _shadowed(module: str) -> str | None:
    """What to do where a file of the working folder has the name of an installed module, which was found instead."""
    name = module.partition(".")[0]
    own = next((path for path in (Path(f"{name}.py"), Path(name)) if path.exists()), None)
    place = getattr(sys.modules.get(name), "__file__", None)
    if own is None or (place is not None and Path.cwd() in Path(place).parents):
        return None
    return f"this is the module of that name in {place or 'Python itself'}: rename your own {own}"


def _bind(text: str, factory: Callable[..., Any], settings: dict[str, Any], sizes: dict[str, int]) -> dict[str, Any]:
    """The arguments to call with: the settings, and channels and classes where they are asked for."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # some callables written in C tell no signature
        return settings
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    named = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    for key in settings:
        if key not in named and not takes_any:
            raise SettingError(f"'{text}' has no argument '{key}': {_nearest_of(key, named)}")
    needed = [name for name, parameter in named.items() if parameter.default is parameter.empty]
    args = {name: sizes[name] for name in needed if name in sizes} | settings
    missing = [name for name in needed if name not in args]
    if missing:
        raise SettingError(f"'{text}' needs {' and '.join(missing)}: give --set {missing[0]}=VALUE")
    return args


def _nearest_of(name: str, known: Any) -> str:
    return nearest(name, known) if known else "(there are none)"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
