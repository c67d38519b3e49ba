"""Networks of a user's own in files, and trials that train them."""

from pathlib import Path

from dlx.data.dataset import open_dataset
from dlx.settings.layers import make_spec, merge
from dlx.settings.own.named import with_own_code
from dlx.trial.build import make_job
from dlx.trial.resolve import resolve
from small import DATASETS, SETTINGS, make_store

NETS = '''
import os
import threading

import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self, in_channels, num_classes, width=4, dropout=0.2):
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.coarse = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Conv2d(2 * width, num_classes, 1)

    def forward(self, image):
        fine = self.fine(image)
        return self.head(self.dropout(torch.cat([fine, self.up(self.coarse(fine))], 1)))


class Plain(nn.Module):
    def __init__(self, in_channels, num_classes, width=4):
        super().__init__()
        self.conv, self.head = nn.Conv2d(in_channels, width, 3, padding=1), nn.Conv2d(width, num_classes, 1)

    def forward(self, image):
        return self.head(F.relu(self.conv(image)))


class Volumes(Plain):
    def __init__(self, in_chans, classes, drop_rate=0.0):
        nn.Module.__init__(self)
        self.conv, self.head = nn.Conv3d(in_chans, 4, 3, padding=1), nn.Conv3d(4, classes, 1)
        self.drop = nn.Dropout3d(drop_rate) if drop_rate else nn.Identity()

    def forward(self, image):
        return self.head(self.drop(F.relu(self.conv(image))))


class Told(nn.Module):
    def __init__(self, spatial_dims, in_channels, out_channels, num_features=4):
        super().__init__()
        conv = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        self.layers = nn.Sequential(conv(in_channels, num_features, 1), conv(num_features, out_channels, 1))

    def forward(self, image):
        return self.layers(image)


class AnyDims(nn.Module):
    def __init__(self, n_channels, n_classes):
        super().__init__()
        self.linear = nn.Linear(n_channels, n_classes)

    def forward(self, image):
        return self.linear(image.movedim(1, -1)).movedim(-1, 1)


class Strided(Plain):
    """Takes sizes that are multiples of `step`."""

    def __init__(self, in_channels, num_classes, step):
        super().__init__(in_channels, num_classes)
        self.step = step

    def forward(self, image):
        logits = super().forward(image)
        return logits + F.interpolate(F.avg_pool2d(logits, self.step), scale_factor=float(self.step))


class Functional(Plain):
    def forward(self, image):
        return super().forward(F.dropout(image, 0.3, self.training))


class AlwaysDrops(Plain):
    def forward(self, image):
        return super().forward(F.dropout(image, 0.3))


class Alpha(Plain):
    def __init__(self, in_channels, num_classes):
        super().__init__(in_channels, num_classes)
        self.alpha = nn.AlphaDropout(0.1)

    def forward(self, image):
        return super().forward(self.alpha(image))


class Kinds(Plain):
    def __init__(self, in_channels, num_classes):
        super().__init__(in_channels, num_classes)
        self.one = nn.Dropout(0.1)
        self.list = nn.ModuleList([nn.Dropout1d(0.2), nn.Dropout2d(0.3), self.one])

    def forward(self, image):
        for module in self.list:
            image = module(image.flatten(2)).view_as(image) if module is self.list[0] else module(image)
        return super().forward(image)


class Softmax(Plain):
    def forward(self, image):
        return super().forward(image).softmax(1)


class Several(Plain):
    def forward(self, image):
        logits = super().forward(image)
        return [logits, logits[:, :, ::2, ::2]]


class Table(Plain):
    def forward(self, image):
        return {"out": super().forward(image)}


class OneChannel(Plain):
    def forward(self, image):
        return super().forward(image)[:, :1]


class Cropped(Plain):
    def forward(self, image):
        return super().forward(image)[:, :, 2:-2, 2:-2]


class Text(Plain):
    def forward(self, image):
        return "logits"


class Integers(Plain):
    def forward(self, image):
        return super().forward(image).long()


class Doubles(Plain):
    def forward(self, image):
        return super().forward(image).double()


class Detached(Plain):
    def forward(self, image):
        return super().forward(image).detach()


class Exits(Plain):
    def forward(self, image):
        raise SystemExit(0)


class EndsItsWorker(Plain):
    def forward(self, image):
        if threading.current_thread() is not threading.main_thread():  # as on a worker of a cluster
            os._exit(9)
        return super().forward(image)


class ExitsAtOnce(Plain):
    def __init__(self, in_channels, num_classes):
        raise SystemExit(0)


class OneSize(nn.Module):
    def __init__(self, in_channels, num_classes, img_size):
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1, 1, img_size, img_size))
        self.head = nn.Conv2d(in_channels, num_classes, 1)

    def forward(self, image):
        return self.head(image + self.place)


class Views(Plain):
    def forward(self, image):
        features = F.relu(self.conv(image))
        b, c, h, w = features.shape
        return self.head(features.view(b, c * h, w).view(b, c, h, w))


class Values(Plain):
    def __init__(self, in_channels, num_classes):
        super().__init__(in_channels, int(torch.tensor(float(num_classes)).item()))

    def forward(self, image):
        return super().forward(image) if image.sum() < 1e9 else image


class Lazy(Plain):
    def __init__(self, num_classes):
        nn.Module.__init__(self)
        self.conv, self.head = nn.LazyConv2d(4, 3, padding=1), nn.LazyConv2d(num_classes, 1)


class OnlyOf16(Plain):
    def forward(self, image):
        assert image.shape[2:] == (16, 16), "16 x 16 only"
        return super().forward(image)


class NoWeights(nn.Module):
    def forward(self, image):
        return torch.cat([image, image], 1)


class FailsAtOnce(Plain):
    def __init__(self, in_channels, num_classes):
        super().__init__(in_channels, num_classes)
        raise RuntimeError("no luck at once")


class FailsInTraining(Plain):
    """Not on the images of zeros with which a network is tried."""

    def forward(self, image):
        if self.training and not image.is_meta and image.any():
            raise RuntimeError("no luck in training")
        return super().forward(image)


class Prints(Plain):
    def forward(self, image):
        print("a word")
        return super().forward(image)


def make(num_classes, in_channels):
    return Plain(in_channels, num_classes)


def kwargs(**kwargs):
    return Plain(**({"in_channels": 1, "num_classes": 2} | kwargs))


made = Plain(2, 4)
number = 3
'''


def line_of(text: str, source: str = NETS) -> int:
    """The number, from 1, of the line that contains a text."""
    (line,) = (number for number, line in enumerate(source.splitlines(), 1) if text in line)
    return line


def own_spec(name: str, *changes: dict):
    """The settings of a small trial of `nets.py:NAME` in the working folder, or of MONAI's, as the user has named."""
    model = name if name.startswith("monai.") else f"nets.py:{name}"
    spec = make_spec(merge(SETTINGS, {"batch": {"patch_size_px": None}}, {"model": model}, *changes))
    return with_own_code(spec, [spec.model.name])


def own_resolved(name: str, *changes: dict):
    spec = own_spec(name, *changes)
    key = spec.data.model_dump_json()
    if key not in DATASETS:
        DATASETS[key] = open_dataset(spec.data, cache_dir=None)
    return resolve(spec, DATASETS[key])


def own_job(name: str, *changes: dict, seed: int = 0):
    resolved = own_resolved(name, *changes)
    return make_job(resolved, make_store(resolved), seed)


def write_nets(folder: Path, text: str = NETS) -> Path:
    path = folder / "nets.py"
    path.write_text(text, encoding="utf-8")
    return path
