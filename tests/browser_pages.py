"""Looks at HTML pages as readers do: in Chromium at 400 and 1280 px, light and dark, and printed.

    python tests/browser_pages.py [PAGE.html ...]

Without pages it makes some: of recorded studies, and of made ones with long labels, many variants, pictures, failures.
It fails where a page is wider than the window, text of a drawing is cut or lies over other text, something is
requested, or axe-core finds a violation. The screenshots and PDFs in build/pages are for a person to look at. It needs
Chromium, node and npm, which installs axe-core and puppeteer-core into build/pages; without them it says so and passes.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from dlx.records.archive import StudyRecords, read_study
from dlx.records.pictures import CasePicture, grey_png, indexed_png
from dlx.report.findings.summary import summarize_study
from dlx.report.page.html import make_html_page
from dlx.report.page.sections import page_content
from made_records import DROPOUT, made_study, with_classes

ROOT = Path(__file__).parent.parent
OUT = ROOT / "build/pages"
PACKAGES = ("axe-core@4.14.1", "puppeteer-core@24.43.1")
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
RECORDED = ("schedulers", "dropout-hippocampus", "strong-folds")
LABELS = ("y" * 200, "long label " * 18, "<script>alert('x')</script> & \u05d0\u05d1\u05d2 \u202egnp\u202c")


def made_studies() -> Iterator[tuple[str, StudyRecords]]:
    """Studies that are hard to show."""
    labels = {label: (0.9, 0.8 + 0.01 * number) for number, label in enumerate(LABELS)}
    yield "labels", pictured(made_study(labels, question=" ".join(LABELS)), num_classes=24)
    yield "variants", made_study({f"p={k / 50:g}": (0.9 - k / 99, 0.8 - k / 150) for k in range(40)}, seeds=[0, 1, 2])
    yield "classes", with_classes(pictured(made_study(seeds=[0, 1]), 3), {f"structure {k}": 0.5 for k in range(24)})
    yield "failures", made_study(diverged=[("p=0.1", 2)], collapsed=[("p=0", 1)], running={("p=0", 4): 3})
    yield "nothing", made_study(running={(label, seed): 0 for label in DROPOUT for seed in range(5)})
    yield "run", pictured(made_study({"unet2": (0.9, 0.8)}, control=None, axes=(), seeds=[0], epochs=1), 3)


def pictured(records: StudyRecords, num_classes: int) -> StudyRecords:
    """The same trials with pictures: a square one, a flat one of thick slices, and a narrow one."""
    shapes = {"hardest": ((160, 160), (1.0, 1.0)), "median": ((10, 160), (5.0, 1.0)), "best": ((150, 12), (0.5, 2.0))}
    shown = tuple(_picture(rank, *shape, num_classes) for rank, shape in shapes.items())
    return replace(records, trials=tuple(replace(trial, pictures=shown) for trial in records.trials))


def _picture(rank: str, shape: tuple[int, int], pixel_size: tuple[float, float], num_classes: int) -> CasePicture:
    rows, columns = np.indices(shape)
    greys = (127 + 100 * np.sin(columns / 7) * np.cos(rows / 9)).astype(np.uint8)
    truth = ((rows * num_classes // shape[0] + columns * 3 // shape[1]) % num_classes).astype(np.uint8)
    truth[: shape[0] // 6] = 255
    return CasePicture(
        case=f"case of rank {rank}",
        rank=rank,
        dice=0.5,
        axis="z",
        slice=3,
        num_slices=30,
        plane="axial",
        pixel_size=pixel_size,
        is_part=False,
        classes=("background", *(f"class {k}" for k in range(1, num_classes))),
        image=grey_png(greys),
        truth=indexed_png(truth),
        prediction=indexed_png(np.roll(truth, 3, 1)),
    )


def make_pages(folder: Path) -> list[Path]:
    """Writes the pages of recorded and of made studies."""
    recorded = ((stem, read_study(ROOT / f"experiments/{stem}.jsonl")) for stem in RECORDED)
    paths = []
    for stem, records in (*recorded, *made_studies()):
        paths.append(folder / f"{stem}.html")
        paths[-1].write_text(make_html_page(page_content(summarize_study(records), records)), encoding="utf-8")
    return paths


def main() -> int:
    """Exit code 0 without a fault, or where a program is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", type=Path, help="HTML files; by default some are made")
    pages = parser.parse_args().pages
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    missing = [name for name in ("node", "npm") if shutil.which(name) is None] + ["chromium"] * (chromium is None)
    if missing:
        print(f"skipped: no {' and no '.join(missing)} on this machine")
        return 0
    OUT.mkdir(parents=True, exist_ok=True)
    if not all((OUT / "node_modules" / name.partition("@")[0]).is_dir() for name in PACKAGES):
        (OUT / "package.json").write_text("{}")
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent", *PACKAGES], cwd=OUT, check=True)
    script = Path(__file__).with_suffix(".mjs")
    done = subprocess.run(["node", script, str(chromium), OUT, *(pages or make_pages(OUT))], check=False)
    print(f"screenshots and PDFs: {OUT}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
