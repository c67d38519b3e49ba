"""The sentences on the network and on how it was trained."""

from collections.abc import Mapping, Sequence
from typing import Any

from dlx.records.schema import TrialRecord
from dlx.report.methods.words import (
    Citation,
    Sentence,
    cite,
    list_in,
    listed,
    number_in,
    number_of,
    setting,
    table_in,
    text_in,
)
from dlx.report.wording.content import Given

LOSSES: dict[str, tuple[str, tuple[str, ...]]] = {  # name -> words, what they cite
    "dice": ("the soft Dice loss", ("soft-dice",)),
    "ce": ("cross-entropy", ()),
    "focal": ("the focal loss", ("focal",)),
    "lovasz": ("the Lovász-softmax loss", ("lovasz",)),
}
OPTIMIZERS = {"adamw": "AdamW", "adam": "Adam", "sgd": "stochastic gradient descent"}
SCHEDULES: dict[str, tuple[str, tuple[str, ...]]] = {
    "constant": ("stayed constant", ()),
    "linear-tail": ("was constant and fell linearly to 0 at the end", ()),
    "exponential": ("fell by a constant factor after each epoch", ()),
    "step": ("fell by a constant factor after every so many epochs", ()),
    "multistep": ("fell by a constant factor at given epochs", ()),
    "cosine": ("fell along half a cosine", ("cosine",)),
    "poly": ("fell by a power of the remaining epochs", ("poly",)),
    "plateau": ("fell by a constant factor when validation Dice stood still", ()),
    "lambda": ("followed straight lines between given points", ()),
}
INITIAL = {"kaiming": "kaiming", "xavier": "xavier", "orthogonal": "orthogonal"}  # start of a name -> citation
NORMS = {"batch": "batch normalisation", "instance": "instance normalisation", "group": "group normalisation"}
AUGMENTATIONS = {  # setting -> words
    "flip": "flips",
    "rotate_deg": "rotations by up to {} degrees",
    "scale": "scaling by up to {}",
    "intensity": "changes of intensity by up to {}",
    "noise": "Gaussian noise of up to {}",
    "blur": "blurring",
    "contrast": "changes of contrast",
    "low_resolution": "simulated low resolution",
    "gamma": "gamma changes",
    "gamma_inverted": "gamma changes of the negative",
}


def network_sentences(record: TrialRecord, axes: Sequence[str]) -> tuple[Sentence, ...]:
    """The network, its size and its first weights."""
    settings = record.settings
    name, args = text_in(settings, "model", "name"), table_in(settings, "model", "args")
    if not name:
        return ()
    dims = len(list_in(settings, "batch", "patch_size_px")) or args.get("dims")
    what = "of volumes" if dims == 3 else "of slices"
    unet = cite("unet", "unet3d") if dims == 3 else cite("unet")
    network: Sentence
    if name.startswith(("unet-resnet", "unet-vgg")):
        backbone = name.removeprefix("unet-")
        network = (f"a U-Net {what}", *unet, f" whose encoder is {_backbone(backbone)}", *_cite_backbone(backbone))
    elif name in ("unet", "unet2"):
        network = (f"a U-Net {what}", *unet)
    elif name == "voxel":
        network = ("a classifier of single voxels",)
    else:
        network = ("the network ", Given(name))
    norm = text_in(args, "norm")
    with_norm: Sentence = (f" with {NORMS[norm]}", *cite(norm)) if norm in NORMS else ()
    deep: Sentence = (" and deep supervision", *cite("deep-supervision")) if args.get("deep_supervision") else ()
    shown = ", ".join(f"{key} {value}" for key, value in args.items() if isinstance(value, int | float | str))
    sentences: list[Sentence] = [
        (
            "The network was ",
            *network,
            *with_norm,
            *deep,
            f", of {record.parameters:,} parameters (",
            Given(f"{name}: {shown}" if shown else name),
            ").",
        )
    ]
    return (*sentences, *_initial_sentence(settings), *_dropout_sentence(settings, axes))


def _backbone(name: str) -> str:
    return name.replace("resnet", "ResNet-").replace("vgg", "VGG-")


def _cite_backbone(name: str) -> Sentence:
    return cite("resnet") if name.startswith("resnet") else cite("vgg")


def _initial_sentence(settings: Mapping[str, Any]) -> tuple[Sentence, ...]:
    init = text_in(settings, "init", "name")
    if setting(settings, "train", "init_from") is not None:
        return (("Its first weights were taken from a checkpoint, where they fit.",),)
    key = next((key for start, key in INITIAL.items() if init.startswith(start)), None)
    if key is None:
        return ()
    return (("Its first weights were drawn by ", Given(init), *cite(key), "."),)


def _dropout_sentence(settings: Mapping[str, Any], axes: Sequence[str]) -> tuple[Sentence, ...]:
    """Dropout, if the control has it or if the study varies it."""
    p, kind = number_in(settings, "dropout", "p"), text_in(settings, "dropout", "kind")
    has_own = bool(setting(settings, "dropout", "own_rates"))
    keys = ("dropout", "spatial-dropout") if kind in ("dropout2d", "dropout3d") else ("dropout",)
    if any(str(axis).startswith("dropout") for axis in axes):
        in_control: Sentence = (
            ("the control has the network's own rates",) if has_own else ("in the control p is ", Given(number_of(p)))
        )
        return (("Dropout", *cite("dropout"), " was varied; ", *in_control, "."),)
    if has_own:
        return (("Dropout in the network kept the network's own rates.",),)
    if not p:
        return ()
    where = {"every": "after every block", "decoder": "in the decoder", "bottleneck": "in the deepest level"}
    place = where.get(text_in(settings, "dropout", "where"), "")
    whole = " of whole channels" * (len(keys) > 1)
    return (
        (f"Dropout{whole}", *cite(*keys), " with p = ", Given(number_of(p)), f" was applied {place}".rstrip(), "."),
    )


def training_sentences(
    settings: Mapping[str, Any], axes: Sequence[str], schedules: Sequence[object]
) -> tuple[Sentence, ...]:
    """Batches, loss, optimizer, learning rate and augmentation. `schedules` are the names of the schedulers of all
    variants.
    """
    return (
        *_batch_sentences(settings),
        *_optimizer_sentences(settings),
        *_schedule_sentence(settings, axes, schedules),
        *_restart_sentence(settings),
        *_augment_sentence(settings),
        *_other_sentences(settings),
    )


def _batch_sentences(settings: Mapping[str, Any]) -> tuple[Sentence, ...]:
    batch, patch = table_in(settings, "batch"), list_in(settings, "batch", "patch_size_px")
    epochs, steps = (setting(settings, "train", key) for key in ("epochs", "steps_per_epoch"))
    if epochs is None or steps is None or not patch:
        return ()
    size = " x ".join(map(str, patch))
    if batch.get("kind") == "block":
        seen = f"a random cube of one training subject, taken as {batch.get('size')} slices of {size} pixels"
    else:
        seen = f"{batch.get('size')} random patches of {size} voxels of training subjects"
    fraction = number_in(batch, "foreground_fraction")
    centred = "a voxel of a class that was drawn first" if batch.get("foreground_by") == "class" else "a labelled voxel"
    share = f", of which {number_of(100 * fraction)} % were centred on {centred}" if fraction else ""
    return ((f"It was trained for {epochs} epochs of {steps} steps, each on {seen}{share}.",),)


def _optimizer_sentences(settings: Mapping[str, Any]) -> tuple[Sentence, ...]:
    terms = [text_in(term, "name") for term in list_in(settings, "loss")]
    optimizer, name = table_in(settings, "optimizer"), text_in(settings, "optimizer", "name", "name")
    if not terms or not name:
        return ()
    losses: list[str | Given | Citation] = []
    for term in terms:
        words, keys = LOSSES.get(term, ("", ()))
        losses += [*([" and "] if losses else []), words or Given(term), *cite(*keys)]
    args = table_in(settings, "optimizer", "name", "args")
    is_plain = name == "sgd" and not args.get("momentum")
    momentum = " with momentum" * (name == "sgd" and not is_plain)
    cited = () if is_plain else cite(name)
    by: Sentence = (f"{OPTIMIZERS[name]}{momentum}", *cited) if name in OPTIMIZERS else (Given(name),)
    shown = [("learning rate", optimizer.get("lr")), ("weight decay", optimizer.get("weight_decay")), *args.items()]
    values = listed([f"{key} {number_of(value)}" for key, value in shown if value is not None], len(shown))
    total = "the sum of " * (len(terms) > 1)
    return ((f"The loss was {total}", *losses, "; it was minimised by ", *by, " (", *values, ")."),)


def _schedule_sentence(
    settings: Mapping[str, Any], axes: Sequence[str], schedules: Sequence[object]
) -> tuple[Sentence, ...]:
    names = [name for name in dict.fromkeys(map(str, schedules)) if name in SCHEDULES]
    if len(names) > 1:
        keys = [key for name in names for key in SCHEDULES[name][1]]
        return (("Schedules of the learning rate were compared: ", *listed(names, len(names)), *cite(*keys), "."),)
    name = text_in(settings, "scheduler", "name")
    if name not in SCHEDULES or "scheduler" in axes:
        return ()
    said, cited = SCHEDULES[name]
    return ((f"The learning rate {said}", *cite(*cited), "."),)


def _restart_sentence(settings: Mapping[str, Any]) -> tuple[Sentence, ...]:
    """Of a trial that continues another, whose first epochs had the rates of a shorter schedule."""
    last, epochs = number_in(settings, "train", "continue_from", "epoch"), number_in(settings, "train", "epochs")
    if not last or not epochs:
        return ()
    return (
        (
            f"The first {number_of(last)} epochs were trained with a schedule of that length or shorter; from then on "
            f"the learning rate followed the schedule of {number_of(epochs)} epochs.",
        ),
    )


def _augment_sentence(settings: Mapping[str, Any]) -> tuple[Sentence, ...]:
    augment = table_in(settings, "augment")
    used = [said.format(number_of(augment[key])) for key, said in AUGMENTATIONS.items() if augment.get(key)]
    return ((f"Patches were augmented by random {', '.join(used)}.",),) if used else ()


def _other_sentences(settings: Mapping[str, Any]) -> tuple[Sentence, ...]:
    train, sentences = table_in(settings, "train"), list[Sentence]()
    if setting(settings, "data", "crop"):
        sentences.append(("Training patches were taken from the box around the labelled voxels.",))
    if rates := table_in(settings, "optimizer", "group_lr"):
        own = listed([f"{group} {number_of(rate)}" for group, rate in rates.items()], len(rates))
        sentences.append(("Groups of parameters had learning rates of their own (", *own, ")."))
    if setting(settings, "optimizer", "decay_norms_and_biases") is False:
        sentences.append(("Norms and biases had no weight decay.",))
    if clip := setting(settings, "optimizer", "clip_grad_norm"):
        sentences.append((f"Gradients were scaled down to a norm of {number_of(clip)}.",))
    if decay := train.get("ema_decay"):
        sentences.append(
            (f"The weights that were evaluated are an exponential moving average (decay {number_of(decay)}).",)
        )
    if patience := train.get("patience"):
        sentences.append((f"Training ended after {patience} epochs without a better validation Dice.",))
    return tuple(sentences)
