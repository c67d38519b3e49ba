"""Every setting that changes what a training step does: what tests of the step run over, with and without a GPU."""

import inspect

from dlx.settings import registry

STRONG_AUGMENTATION = {"flip": 0.5, "rotate_deg": 20, "scale": 0.2, "intensity": 0.1, "noise": 0.1}
DEEP = {"model": {"levels": 4, "deep_supervision": 2}}
CHANCES = dict.fromkeys(("blur", "contrast", "low_resolution", "gamma_inverted", "gamma"), 0.5)
LEAVING_OUT = [  # losses that can leave ignored voxels out
    name
    for name in sorted(registry.PARTS["loss"])
    if "valid" in inspect.signature(registry.load("loss", name).forward).parameters
]
SPARSE = {"data": {"source": "phantom:subjects=4,size=24,labelled_every=3"}}
NESTED = {"data": {"source": "phantom:subjects=4,size=24,regions=true"}}
VOLUMES = {"model": {"dims": 3}, "batch": {"patch_size_px": [16, 16, 16], "size": 2}}


def _model(name):
    takes = inspect.signature(registry.load("model", name)).parameters
    args = [f"{key}={value}" for key, value in {"width": 4, "levels": 2}.items() if key in takes]
    return {"model": f"{name}:{','.join(args)}"}


STEP_SETTINGS = {
    "2d": {},
    "3d": VOLUMES,
    "ct": {"data": {"normalize": "ct"}},
    "ct 3d": VOLUMES | {"data": {"normalize": "mixed:schemes=[ct,zscore]"}},
    "block": {"batch": {"kind": "block", "size": 4}},
    **{f"norm {norm}": {"model": {"norm": norm}} for norm in ("batch", "instance", "group", "none")},
    **{f"down {down}": {"model": {"down": down}} for down in ("max", "average", "conv")},
    "up transposed": {"model": {"up": "transposed"}},
    "up transposed, 3d": VOLUMES | {"model": {"dims": 3, "up": "transposed", "norm": "instance"}},
    "leaky relu": {"model": {"activation": "leaky-relu"}},
    "deep supervision": DEEP,
    "deep supervision, 3d": VOLUMES | {"model": {"dims": 3, "levels": 3, "deep_supervision": 1}},
    "deep supervision, odd sizes": DEEP | {"batch": {"patch_size_px": [15, 9]}},
    "deep supervision, probes and ema": DEEP | {"evaluate": {"probes": True}, "train": {"ema_decay": 0.9}},
    **{
        f"deep supervision, {name}": DEEP | {"loss": name, "dropout": {"p": 0.3}}
        for name in sorted(registry.PARTS["loss"])
    },
    "max width": {"model": {"max_width": 6}},
    **{kind: {"dropout": {"p": 0.3, "kind": kind}} for kind in ("dropout", "dropout2d")},
    "dropout3d": VOLUMES | {"dropout": {"p": 0.3, "kind": "dropout3d"}},
    **{f"augment {key}": {"augment": {key: value}} for key, value in STRONG_AUGMENTATION.items()},
    **{f"augment {key}": {"augment": {key: chance}} for key, chance in CHANCES.items()},
    "augment, chances": {"augment": CHANCES | {"flip": 0.5, "flip_axes": [0]}},
    "augment 3d, chances": VOLUMES | {"augment": CHANCES | {"flip": 0.5, "flip_axes": [0, 1]}},
    "augment": {"augment": STRONG_AUGMENTATION},
    "augment 3d": VOLUMES | {"augment": STRONG_AUGMENTATION},
    "augment block": {"batch": {"kind": "block", "size": 4}, "augment": STRONG_AUGMENTATION},
    **{f"optimizer {name}": {"optimizer": {"name": name}} for name in sorted(registry.PARTS["optimizer"])},
    "adam, decoupled decay": {"optimizer": {"name": "adam:decay=decoupled", "weight_decay": 0.1}},
    "no decay of norms": {"optimizer": {"weight_decay": 0.1, "decay_norms_and_biases": False}},
    "sgd without momentum": {"optimizer": {"name": "sgd:momentum=0"}},
    "rates by group": {"optimizer": {"group_lr": {"encoder": 2.0**-9}}},
    "clipping": {"optimizer": {"clip_grad_norm": 0.1}},
    **{f"loss {name}": {"loss": name} for name in sorted(registry.PARTS["loss"])},
    "lovasz, sorted": {"loss": "lovasz:bins=none"},
    "sum of losses": {"loss": "dice+ce+focal:gamma=2+lovasz"},
    **{f"ignored voxels, {name}": SPARSE | {"loss": name, "evaluate": {"soft_dice": True}} for name in LEAVING_OUT},
    "ignored voxels, dice of each sample": SPARSE | {"loss": "dice:batch=false"},
    "ignored voxels, deep supervision": SPARSE | DEEP,
    "ignored voxels, lovasz sorted": SPARSE | {"loss": "lovasz:bins=none"},
    "regions": NESTED | {"evaluate": {"soft_dice": True}},
    "regions, ignored voxels": {"data": {"source": "phantom:subjects=4,size=24,regions=true,labelled_every=3"}},
    "ema": {"train": {"ema_decay": 0.9}},
    "soft dice": {"evaluate": {"soft_dice": True}},
    "probes": {"evaluate": {"probes": True}, "dropout": {"p": 0.3}},
    **{f"model {name}": _model(name) for name in sorted(registry.PARTS["model"])},
}
