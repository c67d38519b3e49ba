"""Fits a network of the user's own to the data, and checks it at the sizes at which it will run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from dlx.data.batches.sampler import slice_sizes
from dlx.data.cases import Dataset
from dlx.data.splits.split import Split
from dlx.models.layers.blocks import Dims
from dlx.models.layers.dropout import dropout_modules
from dlx.models.own.behaviour import Behaviour, behaviour_of, wrong_output
from dlx.models.own.geometry import MIN_SIZES, Geometry, find_geometries
from dlx.models.own.network import OwnNetwork, build, other_dropouts, set_memory_format, spell
from dlx.settings.own.arguments import Sizes, signature_of
from dlx.settings.own.code import printing_to_stderr, spell_cause, target_of, vouched_code
from dlx.settings.part import CodeSpec, Part
from dlx.settings.spec import DropoutSpec, Spec
from dlx.settings.text import counted
from dlx.system.errors import SettingError
from dlx.trial.factories import outputs_of

MAX_PLACES = 3  # places in a remark


def fit_own_network(spec: Spec, dataset: Dataset, fitting: tuple[Dims, str]) -> tuple[Part, list[str]]:
    """The part with its geometry, and a remark if the data chose 2D or 3D. `fitting` is what suits the data and why.

    The data choose where the network is told the dimensions (`spatial_dims`) and they are not given, or where it takes
    both. SettingError if the network cannot be built, or does not map (B, C, *S) to (B, K, *S).
    """
    part, remarks = spec.model, []
    assert part.code is not None
    signature = signature_of(target_of(part))
    told, untold = part.code.dims or signature.told_dims(part.args), signature.untold_dims(part.args)
    asked: tuple[Dims, ...] = (2, 3)
    if told is not None:
        asked = (told,)
    elif untold is not None:
        asked = (fitting[0],)
        remarks = [f"model.{untold}: {fitting[0]} ({fitting[1]})"]
    found = examine(part, dataset, asked)
    chosen = found[0]
    if len(found) > 1:
        chosen = next(one for one in found if one.geometry.dims == fitting[0])
        remarks = [f"model.dims=auto: {fitting[0]} ({fitting[1]})"]
    known = {
        "dims": chosen.geometry.dims,
        "stride": chosen.geometry.stride,
        "is_channels_last": chosen.behaviour is None or chosen.behaviour.is_channels_last,
    }
    return part.model_copy(update={"code": part.code.model_copy(update=known)}), remarks


@dataclass(frozen=True)
class Examined:
    """A network of the user's own with one number of dimensions; its behaviour is None if it does not run on a CPU."""

    geometry: Geometry
    behaviour: Behaviour | None


def examine(part: Part, dataset: Dataset, dims: tuple[Dims, ...]) -> tuple[Examined, ...]:
    """What forward passes show of a bound part, for each of `dims` with which it works; SettingError if none does."""
    return _examined(part.model_dump_json(), len(dataset.channels), outputs_of(dataset).num_outputs, dims)


@cache
def _examined(part_json: str, in_channels: int, num_outputs: int, dims: tuple[Dims, ...]) -> tuple[Examined, ...]:
    part = Part.model_validate_json(part_json)
    assert part.code is not None
    code = vouched_code(part)
    with printing_to_stderr():
        try:
            found = find_geometries(
                lambda sizes: build(part, sizes),
                Sizes(in_channels, num_outputs),
                dims=dims,
                stride=part.code.stride,
                spell_error=lambda error: spell_cause(error, code),
            )
        except SettingError as error:
            channels, outputs = counted(in_channels, "channel"), counted(num_outputs, "output")
            raise SettingError(
                f"model '{part.name}' (data of {channels}, {outputs}): {error}{_hint_at_sizes(part)}"
            ) from None
    plain = part.model_copy(update={"code": CodeSpec(digest=code.digest, version=code.version)}).model_dump_json()
    return tuple(Examined(one, _behaviour(plain, one, in_channels, num_outputs)) for one in found)


def _hint_at_sizes(part: Part) -> str:
    """What to set if channels or outputs are passed as no argument of the network, as with `**kwargs`, or if it may be
    made for images of one size.
    """
    assert part.code is not None
    signature, hints = signature_of(target_of(part)), []
    if lacking := signature.lacking(part.args):
        hints.append(f"it has no argument of a usual name for {' and '.join(lacking)}, which are not passed")
    if part.code.stride is None and (size := signature.image_size) is not None:
        hints.append(f"if it takes images of the size of its argument '{size}' alone: --set model.stride=SIZE")
    return "".join(f"; {hint}" for hint in hints)


@cache
def _behaviour(part_json: str, geometry: Geometry, in_channels: int, num_outputs: int) -> Behaviour | None:
    part = Part.model_validate_json(part_json)

    def make(is_channels_last: bool) -> OwnNetwork:
        network = build(part, Sizes(in_channels, num_outputs, geometry.dims))
        made = OwnNetwork(network, dims=geometry.dims, stride=geometry.stride, is_channels_last=is_channels_last)
        set_memory_format(made)
        return made

    size = geometry.fitting_size(MIN_SIZES["cpu"][geometry.dims])
    image = (2, in_channels, *[size] * geometry.dims)
    code = vouched_code(part)
    with printing_to_stderr():
        return behaviour_of(make, image, [file.path for file in code.files] or [code.place])


@contextmanager
def naming_own_code(part: Part) -> Iterator[None]:
    """Turns what the code of a network of the user's own raises into a SettingError that names the line."""
    try:
        with printing_to_stderr():
            yield
    except SettingError:
        raise
    except Exception as error:
        if not part.is_own:
            raise
        cause = spell_cause(error, vouched_code(part))
        raise SettingError(f"model '{part.name}' could not be built: {cause}") from error


def check_own_network(spec: Spec, model: OwnNetwork, dataset: Dataset, split: Split) -> tuple[DropoutSpec, list[str]]:
    """The settings of dropout, without `own_rates` where that changes nothing, and remarks on the network.

    `model` is on the meta device and the spec has its patches. SettingError if the network fails on a training batch or
    on what is evaluated, gives no gradient, draws random numbers in evaluation, or has no dropout that the asked rate
    could set.
    """
    part, dropout = spec.model, spec.dropout
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise SettingError(f"model '{part.name}' has no parameters to train")
    examined = examine(part, dataset, (model.dims,))[0]
    behaviour = examined.behaviour or Behaviour()
    if not behaviour.has_gradient:
        raise SettingError(
            f"model '{part.name}' returns logits that depend on no parameter (detached, or computed in "
            "torch.no_grad()), so nothing would be trained"
        )
    if behaviour.random_in_evaluation:
        raise SettingError(
            f"model '{part.name}' draws random numbers in evaluation mode ({_some(behaviour.random_in_evaluation)}), "
            "so that its predictions differ from one call to the next: functional dropout needs training=self.training"
        )
    if examined.geometry.runs_on_meta:
        _check_sizes(spec, model, dataset, split)
    _check_dropout(spec, model, behaviour)
    remarks = _remarks(spec, behaviour)
    active = [module for module in dropout_modules(model) if module.is_active]
    if dropout.own_rates and active:
        rates = ", ".join(f"{rate:g}" for rate in sorted({module.rate for module in active}))
        remarks.append(f"dropout: the network's own rates ({counted(len(active), 'module')}, p={rates})")
    elif dropout.own_rates:
        dropout = dropout.model_copy(update={"own_rates": False})
    return dropout, remarks


def _check_sizes(spec: Spec, model: OwnNetwork, dataset: Dataset, split: Split) -> None:
    """SettingError if the network fails on a training batch or on what is evaluated; it runs on the meta device."""
    code = vouched_code(spec.model)
    for what, is_training, shape in _shapes(spec, model, dataset, split):
        try:
            with printing_to_stderr():
                wrong = wrong_output(model, shape, outputs_of(dataset).num_outputs, is_training=is_training)
        except Exception as error:
            raise SettingError(
                f"model '{spec.model.name}' fails on {what} of {spell(shape)}: {spell_cause(error, code)}; a larger "
                "batch.patch_size_px, or a larger model.stride, to which images are padded, may fit"
            ) from error
        if wrong is not None:
            raise SettingError(f"model '{spec.model.name}'{' in training' if is_training else ''}: {wrong}")


def _shapes(spec: Spec, model: OwnNetwork, dataset: Dataset, split: Split) -> list[tuple[str, bool, tuple[int, ...]]]:
    """What the network will get: a name, whether it is training, and the shape (B, C, *S)."""
    patch, channels = spec.batch.fitted_patch_size_px, len(dataset.channels)
    found = [("a training batch", True, (spec.batch.fitted_size, channels, *_padded(patch, model.stride)))]
    sizes = [patch]
    if model.dims == 2:  # evaluation takes whole slices
        shapes = [case.mask.shape for case in dataset.cases_of([*split.train, *split.val])]
        slices = {_padded(size, model.stride) for size in slice_sizes(shapes, spec.batch.fitted_slice_axis)}
        sizes = [min(slices), max(slices)]
    what = "a window" if model.dims == 3 else "a slice"
    return found + [(what, False, (1, channels, *_padded(size, model.stride))) for size in dict.fromkeys(sizes)]


def _padded(size: Sequence[int], stride: int) -> tuple[int, ...]:
    return tuple(-(-one // stride) * stride for one in size)


def _check_dropout(spec: Spec, model: OwnNetwork, behaviour: Behaviour) -> None:
    """SettingError if the asked rate would change nothing, or leave dropout beside it that it cannot set."""
    name, dropout = spec.model.name, spec.dropout
    if dropout.own_rates:
        return
    others = {place: module for place, module in other_dropouts(model.network).items() if dropout.p > 0 or module.p}
    if others:
        place, module = next(iter(others.items()))
        raise SettingError(
            f"model '{name}': dropout.p cannot set its {type(module).__name__} ('{place}'): use nn.Dropout, Dropout1d, "
            "Dropout2d or Dropout3d, or leave the rate to the network (dropout.own_rates=true)"
        )
    if dropout.p == 0:
        return
    modules = dropout_modules(model)
    if not modules:
        raise SettingError(
            f"model '{name}' has no dropout module, so dropout.p={dropout.p:g} would change nothing: "
            f"{_how_to_get_dropout(spec.model, behaviour)}"
        )
    if dropout.where != "every":
        raise SettingError(f"dropout.where '{dropout.where}': the dropout modules of '{name}' are where it has them")
    kinds = {module.kind for module in modules}
    if dropout.kind != "dropout" and kinds != {dropout.kind}:
        raise SettingError(
            f"dropout.kind '{dropout.kind}': the dropout modules of '{name}' are of the kind {', '.join(sorted(kinds))}"
        )


def _how_to_get_dropout(part: Part, behaviour: Behaviour) -> str:
    argument = signature_of(target_of(part)).dropout
    if argument is not None:
        return f"its argument '{argument}' may make some: --set model.{argument}=0.1 (any rate: dropout.p replaces it)"
    if behaviour.random:
        return f"it draws random numbers itself ({_some(behaviour.random)}): use nn.Dropout modules for that"
    return "add nn.Dropout modules to it"


def _remarks(spec: Spec, behaviour: Behaviour) -> list[str]:
    """Warnings about what is legal but probably a mistake."""
    whose, remarks = f"model '{spec.model.name}'", []
    if behaviour.random and not spec.dropout.own_rates:
        remarks.append(
            f"{whose} draws random numbers outside its dropout modules ({_some(behaviour.random)}): dropout.p does not "
            "change them"
        )
    if behaviour.ending is not None:
        remarks.append(f"{whose} ends in {behaviour.ending}, but losses expect logits: leave it out")
    if spec.evaluate.probes:
        remarks.append(f"evaluate.probes: which modules of {whose} are levels is not known: only dropout is measured")
    if behaviour.num_tensors > 1:
        remarks.append(
            f"{whose} returns {behaviour.num_tensors} tensors: only the first is trained and measured, without deep "
            "supervision"
        )
    return remarks


def _some(places: Sequence[str]) -> str:
    return ", ".join(places[:MAX_PLACES]) + (
        f" and {len(places) - MAX_PLACES} more" if len(places) > MAX_PLACES else ""
    )
