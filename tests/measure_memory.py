"""The most memory that evaluating and scoring one large case takes, in a process of its own.

    python tests/measure_memory.py --size 512 512 600 --classes 24 --width 16 --limit-gib 6 [--resampled]

makes the case (x, y, z; boxes of each class, noise), evaluates it with an untrained U-Net (2D or 3D) at the default
settings, and scores surfaces of its mask moved by a voxel, as an untrained network's are those of noise. With
--resampled the network sees half as many voxels along each axis, and the case is measured on all of them. Exits with 1
above the limit. Some minutes at that size.
"""

import argparse
import sys
import time
from dataclasses import replace

import numpy as np
import torch

from dlx.data.cases import Case, Dataset, Original
from dlx.engine.evaluate import Measured
from dlx.engine.score import score_set
from dlx.settings.layers import make_spec
from dlx.system import memory
from dlx.trial.build import make_job
from dlx.trial.resolve import resolve
from small import make_store


def make_case(name: str, shape: tuple[int, int, int], num_classes: int) -> Case:
    """A case with a box of each class; made a plane at a time."""
    rng = np.random.default_rng(0)
    mask = np.zeros(shape, np.uint8)
    for k in range(1, num_classes):
        size = [max(1, axis // 8) for axis in shape]
        low = [int(rng.integers(0, axis - part + 1)) for axis, part in zip(shape, size, strict=True)]
        mask[tuple(slice(at, at + part) for at, part in zip(low, size, strict=True))] = k
    image = np.empty((*shape, 1), np.float16)
    for at, plane in enumerate(mask):
        image[at, ..., 0] = plane + rng.standard_normal(plane.shape, np.float32)
    return Case(name, image, mask, (1.5, 0.8, 0.8), np.zeros(1, np.float32), content_hash=name, value_hash=name)


def make_resampled(name: str, shape: tuple[int, int, int], num_classes: int) -> Case:
    """A case of half as many voxels along each axis, with the mask of `shape` as it was before resampling."""
    original = make_case(name, shape, num_classes)
    image, mask = (np.ascontiguousarray(array[::2, ::2, ::2]) for array in (original.image, original.mask))
    return replace(
        original, image=image, mask=mask, spacing_mm=(3.0, 1.6, 1.6), original=Original(original.mask, (1.5, 0.8, 0.8))
    )


def measure(
    shape: tuple[int, int, int],
    num_classes: int,
    width: int,
    dims: int,
    threads: int | None,
    *,
    is_resampled: bool = False,
) -> dict[str, float]:
    """GiB at the peak of evaluating and of scoring, and the seconds of both."""
    spec = make_spec(
        {
            "split": {"val": ["large"]},
            "model": {"name": "unet2", "width": width, "dims": dims},
            "compute": {"device": "cpu", "threads": threads},
        }
    )
    make = make_resampled if is_resampled else make_case
    cases = (make("large", shape, num_classes), make_case("small", (8, 64, 64), num_classes))
    classes = tuple(f"class {k}" for k in range(num_classes))
    data = Dataset("made", "made", ("image",), classes, cases, fingerprint="made", normalize="percentile")
    resolved = resolve(spec, data)
    job = make_job(resolved, make_store(resolved), seed=0)
    torch.set_num_threads(job.compute.threads)
    found: dict[str, float] = {"batch": resolved.spec.evaluate.batch_size}
    if not memory.reset_peak():
        raise SystemExit("this system does not tell a process's peak of memory")
    started = time.perf_counter()
    measured = job.evaluator.measure(job.model, job.val_cases, keep_predictions=True)
    found |= {"evaluating": _gib(memory.peak_bytes()), "evaluating_s": time.perf_counter() - started}
    (case,) = job.val_cases
    moved = job.evaluator.store.measured_mask(case).roll(1, 2).clone()
    memory.reset_peak()
    started = time.perf_counter()
    score_set(job, job.val_cases, Measured(measured.counts, None, (moved,)), 1.0)
    return found | {"scoring": _gib(memory.peak_bytes()), "scoring_s": time.perf_counter() - started}


def _gib(count: int | None) -> float:
    assert count is not None
    return count / 2**30


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures the memory of evaluating one large case.")
    parser.add_argument("--size", type=int, nargs=3, default=(512, 512, 600), help="x, y, z")
    parser.add_argument("--classes", type=int, default=24)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--dims", type=int, choices=(2, 3), default=2, help="of the network")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--resampled", action="store_true", help="of half as many voxels along each axis")
    parser.add_argument("--limit-gib", type=float, default=6.0)
    options = parser.parse_args()
    x, y, z = options.size
    found = measure(
        (z, y, x),
        options.classes,
        options.width,
        options.dims,
        options.threads,
        is_resampled=options.resampled,
    )
    what = "slices" if options.dims == 2 else "windows"
    print(
        f"{x} x {y} x {z}{' (resampled)' * options.resampled} with {options.classes} classes, width {options.width}, "
        f"{found['batch']:.0f} {what} at once: "
        f"evaluating takes {found['evaluating']:.2f} GiB and {found['evaluating_s']:.0f} s, "
        f"scoring surfaces {found['scoring']:.2f} GiB and {found['scoring_s']:.0f} s"
    )
    return 1 if max(found["evaluating"], found["scoring"]) > options.limit_gib else 0


if __name__ == "__main__":
    sys.exit(main())
