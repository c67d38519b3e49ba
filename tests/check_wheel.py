"""Builds the source distribution and the wheel, installs the wheel in a new environment and trains from it.

`make wheel` runs it; it takes some minutes and the package index, so no test does. `tests/test_packaging.py` has the
checks of the wheel's content that take neither.
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOT_IN_SDIST = {".ci", ".github"}  # folders of the repository
TINY = ["--data", "phantom:subjects=3,size=24", "--model", "unet2:width=4,levels=2", "--epochs", "1"]
TINY += ["--steps-per-epoch", "2", "--batch-size", "2", "--threads", "1", "--device", "cpu"]
# without the variables of this checkout, such as PYTHONPATH
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DLX_"))}
ONLY_WITH_EXTRAS = ("tensorboard", "mlflow", "onnx", "pandas", "pytest", "monai", "nibabel", "beartype")


def build(folder: Path) -> tuple[Path, Path]:
    """The source distribution and the wheel that is built from it."""
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], check=True, env=ENVIRONMENT)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def wrong_in_wheel(wheel: Path) -> list[str]:
    """Files of the package that the wheel lacks, and files in it that are none of the package."""
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = {path for path in (ROOT / "src/dlx").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    expected = {str(path.relative_to(ROOT / "src")) for path in package}
    return [f"not in the wheel: {name}" for name in sorted(expected - found)] + [
        f"not of the package: {name}" for name in sorted(found - expected)
    ]


def wrong_in_sdist(sdist: Path) -> list[str]:
    """Files of the repository that the source distribution lacks, and files in it that git does not know."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    expected = {name for name in listed.splitlines() if name.partition("/")[0] not in NOT_IN_SDIST}
    with tarfile.open(sdist) as archive:
        found = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    made = {name for name in found if name in ("PKG-INFO", "setup.cfg") or ".egg-info/" in name}
    extra = {name for name in found - made - expected if name.partition("/")[0] not in NOT_IN_SDIST}
    return [f"not in the source distribution: {name}" for name in sorted(expected - found)] + [
        f"not of the repository: {name}" for name in sorted(extra)
    ]


def install(wheel: Path, place: Path) -> Path:
    """A new environment with the wheel and the versions that dlx is tested with; gives its folder of programs."""
    venv.create(place, with_pip=True, symlinks=True)
    programs = place / "bin"
    constraints = ROOT / "constraints.txt"
    torch = next(line for line in constraints.read_text().splitlines() if line.startswith("torch=="))
    pip = [str(programs / "python"), "-m", "pip", "--disable-pip-version-check"]
    for words in (["install", "-q", torch], ["install", "-q", "-c", str(constraints), str(wheel)], ["check"]):
        subprocess.run([*pip, *words], check=True, env=ENVIRONMENT)
    return programs


def wrong_in_environment(programs: Path) -> list[str]:
    """Packages that only extras bring, and required ones that are not there."""
    listed = subprocess.run(
        [str(programs / "python"), "-m", "pip", "--disable-pip-version-check", "list", "--format=json"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    names = {entry["name"].lower().replace("_", "-") for entry in json.loads(listed.stdout)}
    print(f"{len(names)} packages: {', '.join(sorted(names))}")
    return [f"installed without being needed: {name}" for name in ONLY_WITH_EXTRAS if name in names]


def wrong_in_use(programs: Path, place: Path) -> list[str]:
    """Commands that fail where only the wheel is there, in an empty folder."""
    environment = ENVIRONMENT | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(place / "cache")}
    code = (
        "import dlx, pathlib; print(dlx.__file__); "
        "dlx.train(data='phantom:subjects=3,size=24', model='unet2:width=4,levels=2', epochs=1, steps_per_epoch=2, "
        "batch_size=2, device='cpu', threads=1, out='api')"
    )
    commands = [
        [str(programs / "dlx"), "--version"],
        [str(programs / "dlx"), "train", *TINY, "--out", "run"],
        [str(programs / "dlx"), "train", *TINY, "--recipe", "strong", "--out", "strong"],
        [str(programs / "dlx"), "sweep-dropout", "--p", "0.5", "--seeds", "2", *TINY, "--out", "sweep"],
        [str(programs / "dlx"), "report", "sweep"],
        [str(programs / "dlx"), "train", "--resume", "run", "--epochs", "2"],
        [str(programs / "dlx"), "completion", "bash"],
        [str(programs / "dlx"), "__complete", "zsh", "train", "--set", "model."],
        [str(programs / "dlx"), "settings", "model"],
        [str(programs / "python"), "-m", "dlx", "count-params", "unet2"],
        [str(programs / "python"), "-c", code],
    ]
    wrong = []
    for command in commands:
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
        print(f"exit code {done.returncode}: {' '.join(command[:3])} ...", flush=True)
        if done.returncode:
            wrong.append(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    location = subprocess.run(
        [str(programs / "python"), "-c", "import dlx; print(dlx.__file__)"],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return wrong if str(programs.parent) in location else [*wrong, f"dlx was imported from {location}"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Builds and checks the distributions of dlx.")
    parser.add_argument("--out", type=Path, help="Keep the distributions in this folder.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wheel-") as folder:
        place = Path(folder)
        sdist, wheel = build(place / "dist")
        wrong = [*wrong_in_wheel(wheel), *wrong_in_sdist(sdist)]
        version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
        wrong += [] if f"-{version}-" in wheel.name else [f"{wheel.name}: not of version {version}"]
        programs = install(wheel, place / "venv")
        (place / "empty").mkdir()
        wrong += [*wrong_in_environment(programs), *wrong_in_use(programs, place / "empty")]
        if args.out is not None:
            args.out.mkdir(exist_ok=True)
            for path in (sdist, wheel):
                (args.out / path.name).write_bytes(path.read_bytes())
                print(f"{args.out / path.name}: {path.stat().st_size / 2**20:.1f} MiB")
    print("\n".join(wrong) or "the wheel holds the package, installs with what it needs, and trains")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
