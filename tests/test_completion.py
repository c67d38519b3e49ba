"""What bash, zsh and fish offer after TAB: the candidates, and real shells that insert them."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from dlx.cli.completion.answer import answer
from dlx.cli.completion.line import read_line
from dlx.cli.completion.parameters import COMPLETERS, RECIPES
from dlx.cli.completion.setting_values import setting_table
from dlx.cli.main import app
from dlx.settings.layers import recipe_names
from dlx.settings.registry import PARTS
from dlx.settings.spec import PART_KINDS
from dlx.study.scope import Scope
from dlx.system.errors import DlxError

SEPARATORS = " \t\n\"'><=;|&(:"  # what bash sets COMP_WORDBREAKS to


def offered(*words):
    """What follows the first line of an answer to zsh: each candidate with a `+` where a word goes on."""
    kind, *lines = answer(app, ["zsh", *words])
    rows = [line.split("\t") for line in lines]
    return [value + "+" * (end == "goes on") for value, end, _ in rows] if kind == "words" else kind


def inserted(line):
    return answer(app, ["bash", line, SEPARATORS])[1:]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A folder with three runs, of which one has a blank in its name, a study of two variants, and other files."""
    monkeypatch.chdir(tmp_path)
    for name in ("runs/a-unet2", "runs/b-unet2", "runs/c d"):
        (tmp_path / name).mkdir(parents=True)
        variants = [{"label": "p=0"}, {"label": "p=0.5"}]
        (tmp_path / name / "study.json").write_text(json.dumps({"variants": variants}))
    (tmp_path / "data").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("study.toml", "old.jsonl", "notes.txt"):
        (tmp_path / name).touch()
    return tmp_path


def test_commands_and_options_are_offered():
    assert offered("") == [one.name for one in app.registered_commands]
    assert offered("sw") == ["sweep-dropout"]
    assert offered("--v") == ["--version"]
    assert offered("train", "--dropout") == ["--dropout", "--dropout-kind", "--dropout-where"]
    assert offered("train", "--dropout", "0.1", "--dropout") == ["--dropout-kind", "--dropout-where"]
    assert offered("train", "--set", "model.width=8", "--se") == ["--set", "--seed", "--seeds"]
    assert offered("train", "-") == offered("train", "--")
    assert "-q" in offered("train", "-q")
    assert offered("sweep-dropout", "--resu") == []  # hidden there
    assert "--help" in offered("train", "--he")
    assert offered("no-such-command", "--") == []


def test_a_command_without_arguments_offers_its_options():
    assert offered("train", "")[:2] == ["--data", "--val"]
    assert offered("train", "x") == []


def test_parts_and_their_arguments_are_offered():
    assert offered("train", "--model", "unet-v") == ["unet-vgg11", "unet-vgg13", "unet-vgg16", "unet-vgg19"]
    assert offered("train", "--model", "unet2:wi") == ["unet2:width=+"]
    assert offered("train", "--model=unet2:wi") == ["--model=unet2:width=+"]
    assert "unet2:width=16,levels=+" in offered("train", "--model", "unet2:width=16,")
    assert "unet2:width=16,width=+" not in offered("train", "--model", "unet2:width=16,")
    assert "unet2:features=+" not in offered("train", "--model", "unet2:")  # of another network
    assert offered("train", "--model", "unet2:activation=") == ["unet2:activation=relu", "unet2:activation=leaky-relu"]
    assert offered("train", "--scheduler", "step:st") == ["step:step_size=+"]
    assert offered("train", "--scheduler", "multistep:milestones=[1,2],ga") == ["multistep:milestones=[1,2],gamma=+"]
    assert offered("train", "--loss", "dice+fo") == ["dice+focal"]
    assert offered("train", "--loss", "dice+focal:ga") == ["dice+focal:gamma=+"]
    assert offered("train", "--optimizer", "s") == ["sgd"]
    assert "resnet50" in offered("count-params", "unet2", "resnet")
    assert offered("count-params", "unet2", "--set", "wid") == ["width=+"]
    assert offered("count-params", "unet2", "--set", "up=") == ["up=nearest", "up=transposed"]


def test_settings_are_offered_a_section_at_a_time():
    assert {"data.+", "model=+", "model.+", "train.+"} <= set(offered("train", "--set", ""))
    assert offered("train", "--set", "model.wi") == ["model.width=+"]
    assert offered("train", "--set", "data.normalize=z") == ["data.normalize=zscore"]
    assert offered("train", "--set", "data.normalize=zscore:ov") == ["data.normalize=zscore:over=+"]
    assert offered("train", "--set", "data.crop=") == ["data.crop=true", "data.crop=false"]
    assert offered("train", "--set=split.fold=") == ["--set=split.fold=all", "--set=split.fold=none"]
    assert offered("train", "--set", "train.init_from=") == "files"
    assert offered("settings", "scheduler.st") == ["scheduler.step_size"]
    assert {"levels", "lr"} <= set(offered("settings", "l"))


def test_words_that_options_take_are_offered():
    assert offered("train", "--recipe", "") == ["notes", "quick", "strong"]
    assert offered("train", "--precision", "") == ["auto", "float32", "bf16"]
    assert offered("train", "--device", "cu") == ["cuda", "cuda:+"]
    assert offered("train", "--fold", "") == ["all"]
    assert offered("run", "x.toml", "--scope", "p") == ["patients", "procedure"]
    assert offered("sweep-dropout", "--kind", "") == ["dropout", "dropout2d", "dropout3d"]
    assert offered("make-phantom", "x", "--format", "") == ["analyze", "nifti"]
    assert offered("completion", "") == ["bash", "zsh", "fish"]
    assert offered("train", "--epochs", "") == []
    assert offered("train", "--data", "ph") == ["phantom"]
    assert offered("train", "--data", "phantom:si") == ["phantom:size=+"]
    assert offered("train", "--data", "da") == "folders"
    assert offered("train", "--cache-dir", "") == "folders"


def test_folders_of_runs_and_files_of_one_kind_are_offered(runs):
    assert offered("report", "") == ["data/+", "old.jsonl", "runs/a-unet2", "runs/b-unet2", "runs/c d"]
    assert offered("report", "runs/a-unet2", "runs/b") == ["runs/b-unet2"]
    assert offered("report", f"{runs}/runs/a") == [f"{runs}/runs/a-unet2"]
    assert offered("run", "s") == ["study.toml"]
    assert offered("train", "--config=s") == ["--config=study.toml"]
    assert offered("report", "~") == "folders"
    assert offered("report", "no/such/folder/") == []


def test_labels_of_a_study_are_offered_after_a_colon(runs):
    assert offered("predict", "-i", "x", "-m", "runs/a") == ["runs/a-unet2"]
    assert offered("predict", "--run", "runs/a-unet2:p=0.") == ["runs/a-unet2:p=0.5"]
    assert offered("train", "--resume", "runs/b") == ["runs/b-unet2"]
    assert offered("train", "--resume", "-q")[0] == "-q"
    (runs / "runs/a-unet2/study.json").write_text("[]")
    assert offered("predict", "-m", "runs/a-unet2:") == []


def test_bash_replaces_what_follows_its_last_separator(runs):
    assert inserted("dlx train --model unet2:wid") == ["width="]
    assert inserted("dlx train --model=unet2:wid") == ["width="]
    assert inserted("dlx train --scheduler step:step_size=3,ga") == ["3,gamma="]
    assert answer(app, ["bash", "dlx train --model unet2:wid", " "]) == ["words", "unet2:width="]
    assert inserted("CUDA_VISIBLE_DEVICES=1 dlx tr") == ["train "]
    assert inserted("dlx report runs/c") == ["runs/c\\ d "]
    assert inserted('dlx report "runs/c') == ["runs/c d"]
    assert inserted("dlx report runs/'c ") == ["c d"]
    assert inserted("dlx report runs/c\\ ") == ["runs/c\\ d "]


def test_words_of_a_line_are_read_as_bash_reads_them():
    assert read_line("""dlx a "b c" d\\ e 'f"g' "h\\"i" """, SEPARATORS).words == ("a", "b c", "d e", 'f"g', 'h"i')
    assert read_line("dlx a ''", SEPARATORS).words == ("a",)
    assert read_line("dlx '' a ", SEPARATORS).words == ("", "a")
    line = read_line('dlx "a":b', SEPARATORS)
    assert (line.text, line.quote, line.kept) == ("a:b", "", 2)


@pytest.mark.parametrize("args", [[], ["tcsh", "x"], ["bash", "dlx "], ["zsh"], ["bash", "", ""]])
def test_a_question_that_is_not_understood_has_no_candidates(args):
    assert answer(app, args) in ([], ["words", *[f"{one.name} " for one in app.registered_commands]])


def test_the_table_of_settings_is_that_of_the_program():
    table = setting_table()
    assert table.kinds == PART_KINDS
    for kind in PART_KINDS.values():
        assert list(table.parts[kind]) == list(PARTS[kind])
    assert sorted(path.stem for path in RECIPES.glob("*.toml")) == recipe_names()
    assert offered("run", "x.toml", "--scope", "") == [scope.value for scope in Scope]


def test_every_named_parameter_is_one_of_a_command():
    group = typer.main.get_command(app)
    of_commands = {f"{name}.{one.name}" for name, command in group.commands.items() for one in command.params}
    names = {name.partition(".")[2] for name in of_commands}
    assert [name for name in COMPLETERS if name not in of_commands | names] == []


def test_an_answer_takes_no_torch_and_little_time():
    code = "import sys; sys.argv = ['dlx', '__complete', 'zsh', 'train', '--set', 'model.'];"
    code += "from dlx.cli.entry import main; main(); print(*sys.modules, file=sys.stderr)"
    best = 9.0
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert "model.width=" in done.stdout
    assert not set(done.stderr.split()) & {"torch", "numpy", "pydantic", "rich", "dlx.settings.spec"}
    assert best < 0.3


def test_nothing_is_printed_on_an_error():
    code = "from dlx.cli.completion import answer\nanswer.complete = None\nanswer.print_answer(None, ['zsh', 'tr'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


@pytest.mark.parametrize(
    ("shell", "place"),
    [
        ("bash", ".local/share/bash-completion/completions/dlx"),
        ("zsh", ".zfunc/_dlx"),
        ("fish", ".config/fish/completions/dlx.fish"),
    ],
)
def test_the_script_is_printed_or_written_where_the_shell_looks_for_it(dlx, tmp_path, monkeypatch, shell, place):
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    printed = dlx("completion").stdout
    assert printed == dlx("completion", shell).stdout
    assert f"__complete {shell}" in printed
    assert str(tmp_path / place) in dlx("completion", "--install").stderr
    assert (tmp_path / place).read_text() == printed


def test_a_shell_that_is_not_known_is_asked_for(dlx, monkeypatch):
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    with pytest.raises(DlxError, match=r"which shell\? .* bash, zsh, fish"):
        dlx("completion")
    monkeypatch.setenv("HOME", "")
    with pytest.raises(DlxError, match="--install: there is no home folder"):
        dlx("completion", "zsh", "--install")


# how each shell is started without the user's own files, and how it shows its line after Ctrl-G
STARTS = {
    "bash": ["--norc", "--noprofile", "-i"],
    "zsh": ["-f", "-i"],
    "fish": ["-i"],
}
PREPARE = {
    "bash": """bind 'set enable-bracketed-paste off'; source ~/.local/share/bash-completion/completions/dlx
bind -x '"\\C-g": printf "\\nLINE<%s>\\n" "$READLINE_LINE"'""",
    "zsh": """unsetopt zle_bracketed_paste beep; fpath+=(~/.zfunc); autoload -Uz compinit; compinit -u
show() { print; print -r -- "LINE<$BUFFER>" }; zle -N show; bindkey '^G' show""",
    "fish": """set -g fish_autosuggestion_enabled 0; function fish_prompt; echo '$ '; end
function show; echo; echo LINE'<'(commandline)'>'; end; bind \\cg show; bind \\cu kill-whole-line""",
}
TYPED = {
    "dlx swe": "dlx sweep-dropout ",
    "dlx train --model unet2:wid": "dlx train --model unet2:width=",
    "dlx train --model=unet2:wid": "dlx train --model=unet2:width=",
    "dlx train --set data.normalize=zs": "dlx train --set data.normalize=zscore ",
    "dlx report runs/c": "dlx report runs/c\\ d ",
    "dlx train --cache-dir=dat": "dlx train --cache-dir=data/",
    "dlx train --epochs note": "dlx train --epochs note",
    "cd . && A=1 dlx train --rec": "cd . && A=1 dlx train --recipe ",
}


@pytest.mark.slow
@pytest.mark.parametrize("shell", STARTS)
def test_a_shell_inserts_what_completes_a_word(runs, dlx, monkeypatch, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    pexpect = pytest.importorskip("pexpect")
    (runs / "bin").mkdir()
    program = runs / "bin/dlx"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m dlx "$@"\n')
    program.chmod(0o755)
    own = {"HOME": str(runs), "PATH": f"{runs / 'bin'}:{os.environ['PATH']}", "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ENV", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    dlx("completion", shell, "--install")
    child = pexpect.spawn(shell, STARTS[shell], cwd=str(runs), encoding="utf-8", timeout=60, dimensions=(40, 200))
    try:
        for line in PREPARE[shell].splitlines():
            child.sendline(line)
        child.sendline("echo READY''1")
        child.expect("READY1")
        found = {}
        for typed in TYPED:
            child.send(f"{typed}\t\x07")
            child.expect(r"LINE<([^>]*)>")
            found[typed] = child.match[1]
            child.send("\x15")  # clears the line
    finally:
        child.close(force=True)
    assert found == TYPED


def test_the_scripts_are_where_the_package_says(dlx):
    folder = Path(RECIPES).parents[1] / "cli/completion"
    assert sorted(path.name for path in folder.glob("dlx.*")) == ["dlx.bash", "dlx.fish", "dlx.zsh"]
