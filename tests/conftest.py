"""Shapes of models, losses and metrics are checked while the tests run; one thread, so that results repeat."""

import os
import re
import signal
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; two threads crawl beside any other busy process

import pytest
from jaxtyping import install_import_hook

import watchdog

install_import_hook(
    [
        "dlx.models",
        "dlx.training.losses",
        "dlx.scoring.overlap",
        "dlx.engine",
        "dlx.data.batches.voxels",
        "dlx.data.batches.sampler",
    ],
    "beartype.beartype",
)

# of these, resnet18 (basic blocks), resnet50 (bottlenecks) and vgg11 have the same kinds of blocks
DEEPER = re.compile(r"resnet34|vgg(13|16)")
DEEPEST = re.compile(r"resnet(101|152)|vgg19")
HIPPOCAMPUS = Path(__file__).parents[1] / "../shared/data/Task04_Hippocampus"


def pytest_configure() -> None:
    watchdog.register()
    # a shell ignores Ctrl-C for what it runs in the background, and what tests start would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # a worker of pytest-xdist stays until the last test of the others is over
        watchdog.tell_end()


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def warm_server(tmp_path_factory):
    """The socket of a server that forks `dlx` processes."""
    from page_runs import serving

    with serving(tmp_path_factory.mktemp("warm")) as path:
        yield path


@pytest.fixture
def dlx(tmp_path, monkeypatch, cache):
    """Runs a command line in an empty folder; gives the result, with a user's error as it is raised.

    `dlx.last_output()` is what the last command printed, also where it raised.
    """
    from typer.testing import CliRunner

    from dlx.cli.main import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLX_CACHE_DIR", str(cache))

    outputs = []

    def call(*args, expect=0):
        result = CliRunner().invoke(app, list(args))
        outputs.append(result.output)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == expect, result.output
        return result

    call.last_output = lambda: outputs[-1]
    return call


@pytest.fixture
def without_figures(monkeypatch):
    """The files of figures are there, but nothing is drawn: that takes half of a small study's time."""
    from dlx.report.figures import levels, progress, study

    def leave_files(_records, *paths):
        for path in paths:
            path.write_bytes(b"not drawn")

    for module, name in (
        (study, "draw_study"),
        (levels, "draw_levels"),
        (progress, "draw_progress"),
        (progress, "draw_trial_progress"),
    ):
        monkeypatch.setattr(module, name, leave_files)


@pytest.fixture(scope="session")
def hippocampus() -> Path:
    """The real data set, where it lies beside the project; the test is skipped, by name, where it does not."""
    if not HIPPOCAMPUS.is_dir():
        pytest.skip("needs ../shared/data/Task04_Hippocampus")
    return HIPPOCAMPUS.resolve()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests over the deeper backbones as slow, over the deepest as long, and skips those marked `gpu` if torch
    sees no CUDA device.
    """
    for item in items:
        parameters = getattr(item, "callspec", None)
        if parameters is not None and DEEPEST.search(parameters.id):
            item.add_marker(pytest.mark.long)
        elif parameters is not None and DEEPER.search(parameters.id):
            item.add_marker(pytest.mark.slow)
    if not any(item.get_closest_marker("gpu") for item in items):
        return
    import torch

    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
