"""Fuzzing `read_volume`: small sound files of every format, broken at random, must be refused or read as finite voxels.

    python tests/fuzz_volumes.py --seconds 60

runs batches in subprocesses, prints what came of them, and exits with 1 if one crashed, hung or broke the promise; the
file that did it is kept. `tests/test_volumes.py` uses the same samples and mutations for a few hundred files.
"""

import argparse
import gzip
import json
import random
import re
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813 - its usual name
from PIL import Image

from dlx.data.volumes.reading import read_volume
from dlx.system.errors import DataError

BATCH = 400
INTERESTING = (0, 1, 2, 3, 4, 5, 7, 8, 16, 32, 64, 99, 100, 127, 128, 254, 255)
WORDS = (b"-1", b"0", b"99", b"100000000", b"nan", b"inf", b"1e999", b"LOCAL", b"a.raw", b"True", b"gzip", b"raw", b"",
         b"(1,0,0)", b"none", b"\r", b"x" * 300, b"%n%s", b"\xff\xfe", b"../../x", b"MET_FLOAT", b"double")  # fmt: skip

Mutation = Callable[[bytes, random.Random], bytes]


def write_samples(folder: Path) -> dict[str, list[Path]]:
    """One small sound file (of a pair, both) of every kind that is read, by the kind's name."""
    rng = np.random.default_rng(0)
    voxels = rng.integers(0, 200, (4, 5, 6)).astype(np.int16)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((0.5, 0.75, 1.25))
    image.SetOrigin((3, -4, 5.5))
    real = sitk.Cast(image, sitk.sitkFloat32)
    samples: dict[str, list[Path]] = {}

    def write(kind: str, written: sitk.Image, name: str, compressed: bool = False) -> None:
        sitk.WriteImage(written, str(folder / name), useCompression=compressed)
        samples[kind] = [folder / name]

    write("nii", image, "a.nii")
    write("nii float", real, "f.nii")
    write("nii 4d", sitk.JoinSeries([image, image]), "t.nii")
    write("nii.gz", image, "a.nii.gz")
    write("nrrd", image, "a.nrrd")
    write("nrrd gzip", real, "z.nrrd", compressed=True)
    write("mha", image, "a.mha")
    write("mha zlib", real, "z.mha", compressed=True)
    swapped = nib.Nifti1Header(endianness=">")
    nib.save(nib.Nifti1Image(voxels.T.astype(">i2"), np.diag([0.5, 0.75, 1.25, 1]), swapped), folder / "b.nii")
    samples["nii big-endian"] = [folder / "b.nii"]
    for kind, name in ((nib.Nifti2Image, "2.nii"), (nib.Nifti2Image, "2.nii.gz"), (nib.Nifti2Pair, "2.hdr")):
        header = kind.header_class()
        header.set_data_dtype(np.int16)  # of fractions: nibabel then writes a slope and an offset
        nib.save(kind(voxels.T / 7, np.diag([-0.5, -0.75, 1.25, 1]), header), folder / name)
        samples[f"nifti-2 {name}"] = [folder / name] + [folder / "2.img"] * name.endswith("hdr")
    apart = nib.Nifti1Image(voxels.T, np.diag([-0.5, -0.75, 1.25, 1]))
    apart.set_qform(np.diag([-0.5, -0.75, 1.25, 1]), 1)
    apart.set_sform(np.diag([-1, -1, 1, 1]), 2)
    (folder / "o.nii").write_bytes(apart.to_bytes())  # read with a note
    samples["nii with two forms"] = [folder / "o.nii"]
    write("nifti pair", image, "a.hdr")
    samples["nifti pair"].append(folder / "a.img")
    nib.save(nib.AnalyzeImage(voxels.T, np.diag([0.5, 0.75, 1.25, 1])), folder / "y.img")
    samples["analyze"] = [folder / "y.hdr", folder / "y.img"]
    grey = rng.integers(0, 8, (20, 30)).astype(np.uint8)
    pictures = {"grey": grey, "grey 16": grey.astype(np.uint16) * 900, "rgb": np.stack([grey] * 3, -1)}
    for name, picture in pictures.items():
        write(f"png {name}", sitk.GetImageFromArray(picture, isVector=picture.ndim == 3), f"{name}.png")
        for method in ("raw", "tiff_lzw", "packbits", "tiff_adobe_deflate"):
            path = folder / f"{name} {method}.tif"
            Image.fromarray(picture).save(path, compression=method)
            samples[f"tif {name} {method}"] = [path]
    write("tif float", sitk.GetImageFromArray(grey.astype(np.float32)), "float.tif")
    return samples


# Kinds that numpy decodes and not SimpleITK: NIfTI-2, and headers that say two things.
BY_NUMPY = ("nifti-2 2.nii", "nifti-2 2.nii.gz", "nifti-2 2.hdr", "nii with two forms")


def mutate(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one to four things broken; heads are hit more often than voxels."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = rng.choice(MUTATIONS)(data, rng)
    return data


def _position(data: bytes, rng: random.Random) -> int:
    end = len(data) if rng.random() < 0.3 else min(len(data), 400)
    return rng.randrange(max(end, 1))


def _flip(data: bytes, rng: random.Random) -> bytes:
    at = _position(data, rng)
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :] if data else data


def _overwrite(data: bytes, rng: random.Random) -> bytes:
    at, count = _position(data, rng), rng.choice((1, 1, 2, 4, 8))
    return data[:at] + bytes(rng.choice(INTERESTING) for _ in range(count)) + data[at + count :]


def _number(data: bytes, rng: random.Random) -> bytes:
    """A whole number or float32, of either byte order, where a header's field could stand."""
    at = _position(data, rng) & ~1
    value = rng.choice((0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), -0.5, 3e38))
    packed = rng.choice(
        (
            struct.pack("<f", value),
            struct.pack("<h", rng.randrange(-9, 2000)),
            struct.pack(">i", rng.randrange(-9, 1 << 30)),
        )
    )
    return data[:at] + packed + data[at + len(packed) :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: _position(data, rng)]


def _insert(data: bytes, rng: random.Random) -> bytes:
    at = _position(data, rng)
    return data[:at] + rng.choice(WORDS) + data[at:]


def _delete(data: bytes, rng: random.Random) -> bytes:
    at = _position(data, rng)
    return data[:at] + data[at + rng.randrange(1, 20) :]


def _word(data: bytes, rng: random.Random) -> bytes:
    """Another word in place of one of the head's."""
    words = list(re.finditer(rb"[^\s=]+", data[:600]))
    if not words:
        return data
    found = rng.choice(words)
    return data[: found.start()] + rng.choice(WORDS) + data[found.end() :]


def _line(data: bytes, rng: random.Random) -> bytes:
    """One of the head's lines twice, gone, or somewhere else."""
    lines = data.split(b"\n", 14)
    at = rng.randrange(len(lines))
    taken = lines.pop(at) if rng.random() < 0.6 else lines[at]
    if rng.random() < 0.6:
        lines.insert(rng.randrange(len(lines) + 1), taken)
    return b"\n".join(lines)


MUTATIONS: tuple[Mutation, ...] = (_flip, _flip, _overwrite, _number, _cut, _insert, _delete, _word, _line)


def mutate_file(data: bytes, name: str, rng: random.Random) -> bytes:
    """Breaks a file, half the time beneath its checksums: inside the gzip stream, or with PNG's checksums mended."""
    if name.endswith(".gz") and rng.random() < 0.5:
        return gzip.compress(mutate(gzip.decompress(data), rng), 1, mtime=0)
    if name.endswith(".png") and rng.random() < 0.7:
        return _mend_png(mutate(data, rng))
    return mutate(data, rng)


def _mend_png(data: bytes) -> bytes:
    """The chunks as far as they go, each with the checksum that fits."""
    mended, at = data[:8], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if length > len(data):
            break
        chunk = data[at + 4 : at + 8 + length]
        mended += data[at : at + 4] + chunk + struct.pack(">I", zlib.crc32(chunk))
        at += 12 + length
    return mended + data[at:]


def read_verdict(path: Path) -> str:
    """'refused' or 'read'; AssertionError where the promise is broken: one line, finite, the same at every reading."""
    try:
        first = read_volume(path, allow_rgb=True, allow_4d=True)
    except DataError as error:
        message = str(error)
        assert message.startswith(f"{path}: "), message
        assert message.isprintable(), message
        return "refused"
    again = read_volume(path, allow_rgb=True, allow_4d=True)
    assert first.array.ndim == 4
    assert first.array.size > 0
    assert np.isfinite(first.array).all()
    spacing_mm, origin_mm, direction = first.placement
    assert np.isfinite([*spacing_mm, *origin_mm, *direction.ravel()]).all()
    assert min(spacing_mm) > 0
    assert np.array_equal(first.array, again.array), "two readings differ: memory that nobody wrote"
    return "read"


def run_batch(kind: str, seed: int, folder: Path) -> Counter[str]:
    """Breaks one kind's sample BATCH times; the file in hand lies in the folder, should this process die."""
    files = write_samples(folder)[kind]
    sound = {path: path.read_bytes() for path in files}
    rng = random.Random(f"{kind} {seed}")
    counts: Counter[str] = Counter()
    for _ in range(BATCH):
        hit = rng.choice(files)
        hit.write_bytes(mutate_file(sound[hit], hit.name, rng))
        counts[read_verdict(files[0])] += 1
        hit.write_bytes(sound[hit])
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzzes dlx's reading of volumes.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", help="one kind of file only")
    parser.add_argument("--batch", nargs=3, help=argparse.SUPPRESS)  # kind, seed, folder: what a subprocess runs
    options = parser.parse_args()
    if options.batch:
        kind, seed, folder = options.batch
        print(json.dumps(run_batch(kind, int(seed), Path(folder))))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        kinds = [options.kind] if options.kind else list(write_samples(Path(folder)))
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    end, seed, failures = time.monotonic() + options.seconds, options.seed, 0
    while time.monotonic() < end:
        for kind in kinds:
            failures += not _run_subprocess(kind, seed, counts[kind])
            if time.monotonic() >= end:
                break
        seed += 1
    for kind, count in counts.items():
        print(f"{kind:32}" + "".join(f"  {name} {number}" for name, number in sorted(count.items())))
    print(f"{failures} batches failed")
    return 1 if failures else 0


def _run_subprocess(kind: str, seed: int, counts: Counter[str]) -> bool:
    """One batch; False where it crashed, hung or broke the promise. Its folder is then kept and named."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    command = [sys.executable, __file__, "--batch", kind, str(seed), str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        status, output = done.returncode, done.stderr.strip()[-600:]
    except subprocess.TimeoutExpired:
        status, output = -1, "hung for 300 s"
    if status != 0:
        print(f"{kind}, seed {seed}: exit {status}, files in {folder}\n{output}", flush=True)
        counts["failed"] += 1
        return False
    counts.update(json.loads(done.stdout.splitlines()[-1]))
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    return True


if __name__ == "__main__":
    raise SystemExit(main())
