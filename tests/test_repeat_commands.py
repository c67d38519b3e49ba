"""The commands that are printed and recorded do again what was done."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from dlx.cli.options import TrainOptions, takes_options
from dlx.cli.repeat_commands import repeat_command, resume_command, train_command
from dlx.cli.settings_from_options import seeds_from, settings_from
from dlx.settings.binding import bind_parts
from dlx.settings.layers import make_spec, with_absolute_paths
from dlx.system.files import read_json
from dlx.system.shell import shell_command
from small import SMALL_ARGS


def options_of(words):
    """What a command line of `dlx train` asks for."""
    app, found = typer.Typer(), []

    @app.command()
    @takes_options(TrainOptions)
    def train(options: TrainOptions) -> None:
        found.append(options)

    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, result.output
    return found[0]


def asked_by(words):
    options = options_of(words)
    return make_spec(settings_from(options)), seeds_from(options)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--recipe", "notes"],
        ["--recipe", "notes", "--epochs", "3", "--val", "a,b"],
        SMALL_ARGS,
        ["--data", '/a,b=c/it\'s [1]/"d" $HOME', "--fold", "1", "--folds", "3", "--seeds", "3"],
        ["--data", "/d", "--set", "data.source.layout=nnunet", "--seed", "4"],
        ["--data", "phantom"],
        ["--data", "phantom:size=[48,64,32]", "--seeds", "0,3,7"],
        ["--model", "unet", "--loss", "lovasz+focal:gamma=1,class_weights=[0.1,0.4]"],
        ["--model", "unet-resnet34", "--optimizer", "sgd:nesterov=false", "--lr", "1e-05"],
        ["--model", "unet2:width=64,norm=none", "--scheduler", "multistep:milestones=[3,5]"],
        ["--scheduler", "lambda:points=[[0,1],[1,0]]", "--set", 'optimizer.group_lr={"encoder":1e-4}'],
        ["--set", 'split.val=["a,b","c"]', "--set", "data.normalize=none", "--set", "batch.patch_size_px=[16,16]"],
        ["--set", "evaluate.probes=true", "--set", "train.init_from=/a b/1", "--set", "augment.flip=0.5"],
        ["--ema", "0.99", "--patience", "2", "--clip-grad-norm", "1", "--dropout", "0.5", "--threads", "1"],
    ],
    ids=lambda words: " ".join(words)[:40] or "defaults",
)
def test_a_command_made_of_recorded_settings_asks_for_the_same(words, tmp_path):
    spec, seeds = asked_by(words)
    spec = with_absolute_paths(spec)  # as it is recorded
    command = train_command(json.loads(spec.model_dump_json()), seeds, tmp_path / "my runs")
    dlx, train, *again = shlex.split(command)
    assert (dlx, train) == ("dlx", "train")
    repeated, same_seeds = asked_by(again)
    assert bind_parts(repeated) == bind_parts(spec)
    assert same_seeds == seeds
    assert options_of(again).out == tmp_path / "my runs"


def test_after_resume_the_printed_and_recorded_command_repeats_the_run(dlx, tmp_path):
    dlx("train", *SMALL_ARGS, "--epochs", "2", "--lr", "0.02", "--seed", "3", "--out", "r")
    (result,) = Path("r").glob("trials/*/result.json")
    trial = read_json(result)["trial"]
    result.unlink()
    shown = dlx("train", "--resume", "--out", "r").stderr
    printed = next(line for line in shown.splitlines() if line.startswith("repeat with:")).partition(":")[2].strip()
    assert read_json(Path("r/study.json"))["command"] == printed.removesuffix(" --fresh")
    words = shlex.split(printed)
    plan = json.loads(dlx(*words[1:-1], "--dry-run", "--json").stdout)
    assert [entry["id"] for entry in plan["trials"]] == [trial]


def test_flags_are_taken_out_of_a_command_and_nothing_else_is():
    command = shell_command(["dlx", "train", "--resume", "--out", "a --fresh b", "--data", "it's", "--fresh"])
    words = ["dlx", "train", "--out", "a --fresh b", "--data", "it's", "--fresh"]
    assert shlex.split(repeat_command(command)) == words
    assert shlex.split(resume_command(command)) == ["dlx", "train", "--resume", *words[2:-1]]


def test_a_shell_reads_a_command_as_the_words_it_was_made_of():
    words = [
        "plain",
        "a b",
        "it's",
        'a"b',
        "$HOME",
        "new\nline",
        "tab\t'\\",
        "caf\udce9",
        "über",
        "",
        "-x=~/[1]",
        "!`#",
    ]
    command = shell_command(words)
    assert command.isprintable()
    read = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True).stdout
    assert read == b"".join(word.encode("utf-8", "surrogateescape") + b"\0" for word in words)


def test_a_study_of_the_python_interface_is_resumed_and_repeated_by_its_call():
    command = "dlx.run('dropout')"
    assert resume_command(command) == f"the same call in Python ({command})"
    assert repeat_command(command) == f"the same call in Python, with fresh=True ({command})"
