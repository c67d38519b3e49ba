"""The geometry of a network of the user's own: how many dimensions its images have, and what their sizes must be
multiples of, found by forward passes.

They run on the meta device, where nothing is computed; a network that fails there (its code reads values) runs on the
CPU, on small images.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dlx.models.layers.blocks import Dims
from dlx.models.network import evaluation_mode
from dlx.models.own.network import error_of_exit, first_tensor, spell
from dlx.settings.own.arguments import Sizes
from dlx.system.errors import SettingError

# Strides in the order in which they are tried: the smallest of a family that works is the right one, because sizes of
# `stride * n` and `stride * (n + 1)` both work only if what the network needs divides the stride.
STRIDES = (1, 2, 4, 8, 16, 32, 64, 128, 3, 6, 12, 24, 48, 5, 10, 20, 40, 7, 14, 28, 56, 9, 18, 36)
# The least size of an image: deep networks refuse or degenerate on smaller ones. On the CPU, time limits it.
MIN_SIZES = {"meta": {2: 64, 3: 64}, "cpu": {2: 48, 3: 24}}
MAX_CPU_VOXELS = 160**3
ROUND_SIZES = {"meta": 128, "cpu": 64}  # on which most networks work: what fails there is shown
OUTPUT = "its output"  # how a cause begins that is about an output


@dataclass(frozen=True)
class Geometry:
    """Dimensions and stride of a network, a size that it takes, and whether it runs on the meta device."""

    dims: Dims
    stride: int
    size: int
    runs_on_meta: bool

    def fitting_size(self, least: int) -> int:
        """A size that the network takes, near `least` if it takes all multiples of its stride."""
        return min(self.size, self.stride * max(2, -(-least // self.stride)))


@dataclass
class Search:
    """The attempts on one device: what was found, and why the network fails where nothing was."""

    device: str
    sizes: Sizes
    spell_error: Callable[[Exception], str]
    found: list[Geometry] = field(default_factory=list)
    causes: dict[int, str] = field(default_factory=dict)  # by dimensions


def find_geometries(
    make: Callable[[Sizes], nn.Module],
    sizes: Sizes,
    *,
    dims: Sequence[Dims],
    stride: int | None = None,
    spell_error: Callable[[Exception], str] = str,
) -> list[Geometry]:
    """The geometry for each of `dims` with which the network works; SettingError, which says what failed, if none does.

    `make` builds the network for these sizes. With a `stride` only that is tried.
    """
    for device in ("meta", "cpu"):
        search = Search(device, sizes, spell_error)
        with torch.device(device), torch.random.fork_rng(devices=[]):
            for one in dims:
                _search(search, make, one, stride)
        if search.found:
            return search.found
    # of the CPU, where a fault of the meta device does not hide the network's own
    telling = {one: cause for one, cause in search.causes.items() if OUTPUT in cause} or search.causes
    if len({cause.partition(": ")[2] or cause for cause in telling.values()}) == 1:
        raise SettingError(next(iter(telling.values())))
    raise SettingError("; ".join(f"as {one}D: {cause}" for one, cause in telling.items()))


def _search(search: Search, make: Callable[[Sizes], nn.Module], dims: Dims, stride: int | None) -> None:
    try:
        network = make(Sizes(search.sizes.in_channels, search.sizes.num_outputs, dims))
    except SettingError as error:
        search.causes[dims] = str(error)
        return
    except Exception as error:  # noqa: BLE001 - the user's code
        search.causes[dims] = f"it could not be built: {search.spell_error(error)}"
        return
    _size_lazy_layers(network, search.sizes, dims)
    for one in STRIDES if stride is None else (stride,):
        size = _size_that_fits(network, search, dims, one, is_given=stride is not None)
        if size is not None:
            search.found.append(Geometry(dims, one, size, search.device == "meta"))
            return
    round_size = ROUND_SIZES[search.device] if stride is None else 2 * stride
    search.causes[dims] = _why_unfit(network, search, dims, round_size) or "no stride fits"


def _size_that_fits(network: nn.Module, search: Search, dims: Dims, stride: int, *, is_given: bool) -> int | None:
    """A size that the network takes, if it takes multiples of the stride; None if it does not.

    Two that follow one another have to fit. Of a given stride one has to: the network may take no other.
    """
    least = max(2, -(-MIN_SIZES[search.device][dims] // stride))

    def fits(multiple: int) -> bool:
        return _why_unfit(network, search, dims, multiple * stride) is None

    if not is_given:
        return least * stride if fits(least) and fits(least + 1) else None
    return next((multiple * stride for multiple in dict.fromkeys((least, 1, 2, 3)) if fits(multiple)), None)


def _why_unfit(network: nn.Module, search: Search, dims: Dims, size: int) -> str | None:
    """Why images of this size on all axes fail; None if they do not."""
    shape = spell([*_batch(search.sizes), *[size] * dims])
    if search.device == "cpu" and size**dims > MAX_CPU_VOXELS:
        return f"images of {shape} are too large to try"
    try:
        return _why_wrong(network, search.sizes, [size] * dims)
    except Exception as error:  # noqa: BLE001 - the user's code
        return f"it fails on an image of {shape}: {search.spell_error(error)}"


def _size_lazy_layers(network: nn.Module, sizes: Sizes, dims: Dims) -> None:
    """Gives layers without sizes those of the first image that the network takes."""
    for stride in STRIDES:
        if not any(map(is_lazy, network.parameters())):
            return
        with suppress(Exception):
            _why_wrong(network, sizes, [stride * -(-MIN_SIZES["cpu"][dims] // stride)] * dims)


def _why_wrong(network: nn.Module, sizes: Sizes, size: Sequence[int]) -> str | None:
    """Why the output for an image of this size is not what is expected; None if it is."""
    image = torch.zeros(*_batch(sizes), *size)
    with evaluation_mode(network), torch.no_grad():
        try:
            output = first_tensor(network(image))
        except SystemExit as end:
            raise error_of_exit(end) from end
    return why_wrong_shape(output, image.shape, sizes.num_outputs)


def why_wrong_shape(output: Tensor, image: Sequence[int], num_outputs: int) -> str | None:
    """`its output for an image of 3x2x64x64 is 3x1x64x64; expected 3x4x64x64`; None if the shape is right."""
    expected = (image[0], num_outputs, *image[2:])
    if tuple(output.shape) == expected:
        return None
    return f"{OUTPUT} for an image of {spell(image)} is {spell(output.shape)}; expected {spell(expected)}"


def _batch(sizes: Sizes) -> tuple[int, int]:
    """Batch and channels of the images that are tried. The batch is of another size than channels and outputs, because
    torch's 3D layers take (C, D, H, W) for (B, C, H, W) where that fits.
    """
    taken = {sizes.in_channels, sizes.num_outputs}
    return next(size for size in (2, 3, 4) if size not in taken), sizes.in_channels
