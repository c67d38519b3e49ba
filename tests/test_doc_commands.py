"""Every command line of the documentation is run, page by page, or says in a mark above it why not (tests/pages.py).

A page's blocks are run in order by one shell, in an empty folder of their own, with this checkout's `dlx`.
"""

import re
from itertools import pairwise

import pytest
import typer

from dlx.cli.main import app
from dlx.settings.reference import all_settings
from page_runs import missing_lines, run_steps, steps_of
from pages import GENERATED, MARKS, PAGES, SHELL, blocks_of, dlx_lines, inline_code, text_of

PLACEHOLDERS = {"key", "KEY", "setting"}  # of `--set key=value`
NEEDED = "needs a mark: <!-- not run: REASON -->"


def blocks(page):
    return blocks_of(page, text_of(page))


def shell_blocks(page):
    return [block for block in blocks(page) if block.language in SHELL]


# what a page may contain


@pytest.mark.parametrize("page", PAGES)
def test_each_block_names_its_language(page):
    assert [block.place for block in blocks(page) if not block.language] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page not in GENERATED])
def test_commands_are_in_blocks_that_are_run(page):
    """A block of another language has no line that is a command."""
    command = re.compile(r"(\$ |(dlx|pip|make|python|tensorboard) )")
    others = [block for block in blocks(page) if block.language not in SHELL]
    assert [block.place for block in others if any(command.match(line) for line in block.lines)] == []


@pytest.mark.parametrize("page", PAGES)
def test_marks_are_spelled_as_the_tests_read_them(page):
    marked = [(block.place, mark) for block in blocks(page) for mark in block.marks]
    assert [(place, mark) for place, mark in marked if mark not in MARKS] == []
    assert [block.place for block in blocks(page) if not all(block.marks.values())] == []
    for_shell = {*MARKS} - {"saved as"}
    other = [block.place for block in blocks(page) if block.language not in SHELL and for_shell & {*block.marks}]
    assert other == []
    loose = [line for line in text_of(page).splitlines() if line.lstrip().startswith(tuple(f"<!-- {m}" for m in MARKS))]
    assert len(loose) == len(marked), "a mark stands directly above its block"


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_change_the_environment_are_marked(page):
    """`pip`, `make` and downloads are not for a test to run."""
    changing = re.compile(r"^(\$ )?(pip|make|git|docker|source|uv|conda|apt-get|curl|wget)\b")
    unmarked = [
        block.place
        for block in shell_blocks(page)
        if "not run" not in block.marks and any(changing.match(line) for line in block.lines)
    ]
    assert unmarked == [], NEEDED


# commands and options exist, whether the lines are run or not


def options_of(command):
    found = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return found | {"--help", "-h"}


COMMANDS = {name: options_of(command) for name, command in typer.main.get_command(app).commands.items()}
SETTINGS = {setting.key for setting in all_settings()}


def faults_of(words):
    """What is wrong with a command line: an unknown command, option or setting."""
    if not words or words[0].startswith("-") or not re.fullmatch(r"[a-z-]+", words[0]):
        return []
    if words[0] not in COMMANDS:
        return [f"no command {words[0]}"]
    options = [word.partition("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)]
    keys = [key.partition("=")[0] for option, key in pairwise(words) if option == "--set"]
    if words[0] == "count-params":
        keys = []
    return [
        *(f"dlx {words[0]}: no option {option}" for option in options if option not in COMMANDS[words[0]]),
        *(f"no setting {key}" for key in keys if key not in SETTINGS | PLACEHOLDERS),
    ]


@pytest.mark.parametrize("page", PAGES)
def test_commands_options_and_settings_in_blocks_exist(page):
    lines = [
        (block.place, words) for block in shell_blocks(page) for c in block.commands for words in dlx_lines(c.text)
    ]
    assert [(place, fault) for place, words in lines for fault in faults_of(words)] == []


OF_OTHER_TOOLS = {
    *("--version", "--logdir"),
    *("--host", "--nthreads", "--tls-ca-file", "--tls-cert", "--tls-key"),  # dask scheduler, dask worker
    *("--nproc-per-node", "--nnodes", "--rdzv-endpoint"),  # torchrun
    *("--sleep-s", "--workers"),  # python -m benchmarks.cluster_overhead
}


@pytest.mark.parametrize("page", [page for page in PAGES if page not in GENERATED])
def test_commands_options_and_settings_in_the_text_exist(page):
    """Inline code that begins with `dlx` or `--`; of the latter any command may have the option."""
    spans = inline_code(text_of(page))
    faults = [
        fault for span in spans if span.startswith("dlx ") for words in dlx_lines(span) for fault in faults_of(words)
    ]
    any_command = set().union(*COMMANDS.values())
    options = {
        option for span in spans if span.startswith("--") for option in re.findall(r"(?<!\S)--[a-z][a-z-]+", span)
    }
    assert faults == []
    assert sorted(options - any_command - OF_OTHER_TOOLS) == []


# running them

TRAINING_LONG = {"docs/first-study.md", "docs/studies.md", "docs/your-network.md"}  # up to half a minute each
RUN = [page for page in PAGES if page != "README.zh.md" and steps_of(blocks(page))]


def test_the_chinese_readme_has_the_commands_of_the_english_one():
    """So it needs no run of its own."""

    def commands(page):
        texts = [(sorted(block.marks), c.text) for block in shell_blocks(page) for c in block.commands]
        return [(marks, re.sub(r"[ \t]+(#.*)?$", "", text, flags=re.MULTILINE)) for marks, text in texts]

    assert commands("README.zh.md") == commands("README.md")


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.long] * (page in TRAINING_LONG)) for page in RUN]
)
def test_the_commands_of_a_page_run_and_print_what_it_shows(page, tmp_path, cache, warm_server):
    steps = steps_of(blocks(page))
    code, outputs = run_steps(steps, tmp_path, cache, warm_server)
    last = steps[len(outputs) - 1]
    assert code == 0, f"{last.place}: {last.text}\n{outputs[-1]}"
    for step, printed in zip(steps, outputs, strict=True):
        assert missing_lines(step.shown, printed) == [], f"{step.place}: {step.text}\n{printed}"
