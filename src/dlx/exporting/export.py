"""Exports the trained networks of a run to files for other programs: `export`, which `dlx export` calls."""

import json
import mmap
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from dlx.data.layouts.listing import name_some
from dlx.exporting.check import FileCheck, FileComparison
from dlx.exporting.images import images_of_run, named_images
from dlx.exporting.onnx_file import DEFAULT_OPSET, check_opset, check_packages, load_onnx, onnx_bytes
from dlx.exporting.plain import made_up_images, plain_network
from dlx.exporting.preparation import FORMAT_KEY, describe_preparation, file_sha256
from dlx.exporting.torchscript_file import load_torchscript, torchscript_bytes
from dlx.prediction.predict import listed
from dlx.prediction.runs import TrialCheckpoint, Which, find_runs
from dlx.prediction.trained_network import load_network
from dlx.system.errors import DataError, SettingError
from dlx.system.files import expand_home, naming, read_json, replacing

FileFormat = Literal["onnx", "torchscript"]
ENDINGS: dict[FileFormat, str] = {"onnx": ".onnx", "torchscript": ".pt"}
Named = str | Path


@dataclass(frozen=True)
class ExportedFile:
    """A file that was written and checked, and its description beside it.

    `on_noise` is the comparison on made-up images of several sizes; `on_images` that on real ones, of which `images`
    says what they are. Without real images, `on_images` is None, and `images` says why. `num_unlike_predict` of the
    real voxels have another label than `dlx predict` gives them on this machine's CPU: it computes in
    `predict_precision` there, and in float32 some norms are less exact (`norms`). `trial_precision` is that in which
    the run was trained.
    """

    name: str
    format: FileFormat
    path: Path
    description: Path
    num_bytes: int
    on_noise: FileComparison
    on_images: FileComparison | None
    num_images: int
    images: str
    num_unlike_predict: int
    predict_precision: str
    trial_precision: str


def export(
    run: Named,
    out: Named | None = None,
    *,
    format: FileFormat = "onnx",  # noqa: A002 - as the option
    checkpoint: Which | None = None,
    model: str | Sequence[str] = (),
    opset: int = DEFAULT_OPSET,
    images: Named | Sequence[Named] = (),
    overwrite: bool = False,
) -> list[ExportedFile]:
    """Writes each trained network of a run to a file, with a description of the preparation in it and beside it.

    `run`, `checkpoint` and `model` are as for `dlx.predict`; a run of several seeds or folds gives a file for each.
    `out` is a file, or a folder in which files are named after the trials; by default files lie beside the checkpoints.
    Each file is checked before it gets its name: on made-up images, and on `images` or, without any, on some of the
    run's data.

    Raises SettingError or DataError if the run or the images cannot be used or if a file would be replaced that is no
    export; DlxError if packages are missing, or if a file does not give what the network gives.
    """
    plan = plan_exports(
        run, out, format=format, checkpoint=checkpoint, model=model, opset=opset, images=images, overwrite=overwrite
    )
    return [plan.export(one) for one in plan.checkpoints]


@dataclass(frozen=True)
class ExportPlan:
    """The networks to export, and where to; `remarks` are lines for the user."""

    paths: dict[TrialCheckpoint, Path]
    format: FileFormat
    opset: int
    own: tuple[str, ...]  # the code of networks of the user's own, as it was named
    images: tuple[Named, ...]
    remarks: tuple[str, ...]

    @property
    def checkpoints(self) -> list[TrialCheckpoint]:
        """The networks in the order in which they were found."""
        return [*self.paths]

    def export(self, checkpoint: TrialCheckpoint) -> ExportedFile:
        """Exports one of the networks."""
        path = self.paths[checkpoint]
        _check_writable(path.parent)
        trained = load_network(checkpoint.path, checkpoint.name, self.own)
        described = describe_preparation(trained, checkpoint.path)
        channels = len(trained.dataset.channels)
        plain = plain_network(trained.network, channels)
        content = self._content(plain, made_up_images(plain, channels), json.dumps(described, allow_nan=False))
        file = (load_onnx if self.format == "onnx" else load_torchscript)(content)
        checked = FileCheck(trained, plain, file)
        on_noise = checked.on_noise()
        real = named_images(self.images, trained) if self.images else images_of_run(checkpoint.path, trained)
        real, found = checked.on_images(real, is_required=bool(self.images))
        _write(path, content, described)
        return ExportedFile(
            name=checkpoint.name,
            format=self.format,
            path=path,
            description=path.with_suffix(".json"),
            num_bytes=len(content),
            on_noise=on_noise,
            on_images=found[0] if found else None,
            num_unlike_predict=found[-1].num_differing if found else 0,
            predict_precision=checked.predicting.precision,
            trial_precision=trained.spec.compute.precision,
            num_images=len(real.images),
            images=real.what,
        )

    def _content(self, plain: nn.Module, example: Tensor, description: str) -> bytes:
        if self.format == "onnx":
            return onnx_bytes(plain, example, description, self.opset)
        return torchscript_bytes(plain, example, description)


def plan_exports(
    run: Named,
    out: Named | None = None,
    *,
    format: FileFormat = "onnx",  # noqa: A002 - as the option
    checkpoint: Which | None = None,
    model: str | Sequence[str] = (),
    opset: int = DEFAULT_OPSET,
    images: Named | Sequence[Named] = (),
    overwrite: bool = False,
) -> ExportPlan:
    """Finds the networks and where their files go, and checks what can be checked before the first one is loaded."""
    if format not in ENDINGS:
        raise SettingError(f"--format {format}: expected {' or '.join(ENDINGS)}")
    if format == "onnx":
        check_opset(opset)
        check_packages()
    found = find_runs(listed("run", run), checkpoint)
    target = None if out is None else Path(expand_home(str(out)))
    paths = _paths(found.checkpoints, target, ENDINGS[format], is_folder=str(out).endswith("/"))
    if not overwrite:
        for one, path in zip(found.checkpoints, paths, strict=True):
            _check_replaceable(path)
            _check_shared_description(path, one.path)
    named, own = tuple(listed("images", images)), tuple(map(str, listed("model", model)))
    return ExportPlan(dict(zip(found.checkpoints, paths, strict=True)), format, opset, own, named, found.remarks)


def _paths(
    checkpoints: Sequence[TrialCheckpoint], out: Path | None, ending: str, *, is_folder: bool
) -> tuple[Path, ...]:
    """Where the file of each network goes."""
    if out is None:
        return tuple(one.path.with_suffix(ending) for one in checkpoints)
    if is_folder or out.is_dir() or not out.suffix:
        return tuple(out / f"{_name_of(one.path)}{ending}" for one in checkpoints)
    if out.suffix != ending:
        raise SettingError(f"-o {out}: expected a file that ends in {ending}, or a folder")
    if len(checkpoints) > 1:
        names = name_some([one.name for one in checkpoints], 10)
        raise SettingError(
            f"-o {out}: is one file for {len(checkpoints)} networks ({names}): name a folder, or one trial"
        )
    return (out,)


def _name_of(checkpoint: Path) -> str:
    """The name of a file in a folder: that of the trial's folder."""
    trial = checkpoint.resolve().parent.name
    return trial if checkpoint.stem == "last" else f"{trial}-{checkpoint.stem}"


def _check_replaceable(path: Path) -> None:
    """SettingError if a file is there that an export did not write."""
    description = path.with_suffix(".json")
    if not path.exists() and not description.exists():
        return
    is_own = _described(description) is not None
    if not is_own or (path.exists() and not _has_description(path)):
        there = description if description.exists() and not is_own else path
        raise SettingError(f"{there}: is there, and no export of dlx: --overwrite replaces it, another -o keeps it")


def _check_shared_description(path: Path, checkpoint: Path) -> None:
    """SettingError if the description beside a file is also that of a file of another format and another network."""
    described = _described(path.with_suffix(".json"))
    others = [other for ending in ENDINGS.values() if (other := path.with_suffix(ending)) != path and other.exists()]
    if described is None or not others:
        return
    trial = described.get("trial")
    known = trial.get("checkpoint_sha256") if isinstance(trial, dict) else None
    if known != file_sha256(checkpoint):
        name = path.with_suffix(".json").name
        raise SettingError(
            f"{path}: {name} describes {others[0].name} too, which is of another network: give another -o, or replace "
            f"the description with --overwrite and export {others[0].name} again"
        )


def _described(description: Path) -> dict[str, Any] | None:
    """What an export wrote beside its file; None if the file is missing or another."""
    try:
        known = read_json(description)
    except DataError:
        return None
    return known if isinstance(known, dict) and FORMAT_KEY in known else None


def _has_description(path: Path) -> bool:
    """Whether a file contains a description, which both formats store uncompressed."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with naming(path), path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(f'"{FORMAT_KEY}"'.encode()) >= 0


def _check_writable(folder: Path) -> None:
    """Creates the folder. SettingError if a file is in its place, OSError if nothing can be written into it: before a
    network is exported in vain.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise SettingError(f"-o {folder}: {existing} is a file, not a folder")
    folder.mkdir(parents=True, exist_ok=True)
    with naming(folder), tempfile.TemporaryFile(dir=folder):
        pass


def _write(path: Path, content: bytes, described: dict[str, Any]) -> None:
    """Writes a file and its description; neither gets its name unless both are on disk."""
    with replacing(path.with_suffix(".json")) as description, replacing(path) as file:
        description.write((json.dumps(described, indent=1, allow_nan=False) + "\n").encode())
        file.write(content)
