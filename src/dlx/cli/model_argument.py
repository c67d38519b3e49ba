"""Builds the network that the user names: a registered one, or their own as `package.module:callable`.

Only `count-params` accepts the second form: it comes from the command line, never from a file.
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


def find_model(text: str, settings: dict[str, Any], in_channels: int, num_classes: int) -> Factory:
    """A function that builds the network which `text` names, with the arguments given by --set.

    `unet2` and `unet2:width=32` are registered names; `package.module:callable` is a class, a function that returns
    a network, or a network; modules in the current directory are found too. Channels and classes are passed to
    registered networks, and to others that have no default for `in_channels` or `num_classes`.
    Raises SettingError for an unknown name, and if the network does not take the arguments.
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
    """The network that the factory builds; SettingError if that fails or the result is no torch.nn.Module."""
    from torch import nn

    try:
        with importing_from_working_folder():  # the user's own files may import others when they are called
            model = factory()
    except SettingError:
        raise
    except (Exception, SystemExit) as error:
        raise SettingError(f"'{text}' could not be built: {_one_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise SettingError(f"'{text}' returned an object of type {type(model).__name__}; expected a torch.nn.Module")
    return model


def _own_factory(text: str, module: str, attribute: str, settings: dict[str, Any], sizes: dict[str, int]) -> Factory:
    from torch import nn

    found = _import_attribute(text, module, attribute)
    if isinstance(found, nn.Module):
        if settings:
            raise SettingError(
                f"'{text}' is an instance, which takes no arguments: leave out --set {next(iter(settings))}"
            )
        return lambda: found
    if not callable(found):
        kind = type(found).__name__
        raise SettingError(f"'{text}' is of type {kind}; expected a torch.nn.Module or a function that returns one")
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
    """A hint if an installed module was found instead of a file in the working folder that has the same name."""
    name = module.partition(".")[0]
    own = next((path for path in (Path(f"{name}.py"), Path(name)) if path.exists()), None)
    place = getattr(sys.modules.get(name), "__file__", None)
    if own is None or (place is not None and Path.cwd() in Path(place).parents):
        return None
    return f"the module of this name in {place or 'Python itself'} was imported: rename your own {own}"


def _bind(text: str, factory: Callable[..., Any], settings: dict[str, Any], sizes: dict[str, int]) -> dict[str, Any]:
    """The arguments of the call: the settings, and channels and classes if the function requires them."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # some callables written in C have no signature
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
