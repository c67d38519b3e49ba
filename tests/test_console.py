"""What is printed: letter by letter, in any encoding, at any width, into any pipe."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from rich.text import Text

import dlx
from dlx.cli.output.console import output
from dlx.cli.output.outcome import print_summary_after
from dlx.records.archive import write_archive
from dlx.report.findings.summary import summarize_study
from dlx.report.page.markdown import code_block, escape, link_target
from dlx.report.page.page import make_page
from dlx.report.page.sections import page_content
from dlx.report.terminal.grid import Column, Grid, Line, Row, Trimmed
from dlx.report.terminal.study_table import study_table
from dlx.report.terminal.tables import as_text
from dlx.system.characters import encodable, visible
from dlx.system.errors import DataError
from dlx.system.files import write_json
from made_records import dropout_sweep, made_study, with_classes

NAMES = ["kidney [left]", "[/]", "[red]x", ":smile:", "a|b", "$x$", "*b*", "x\ny"]
NAMES += ["\x1b[31mz", "größe", "_u", "<b>&amp;"]
ROOT = Path(dlx.__file__).parent


def printed(shown, width=200, encoding="utf-8", monkeypatch=None):
    """What standard output gets."""
    monkeypatch.setenv("COLUMNS", str(width))
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, write_through=True))
    output().show(shown)
    return raw.getvalue().decode(encoding)


@pytest.fixture
def shown_as(monkeypatch):
    return lambda shown, width=200, encoding="utf-8": printed(shown, width, encoding, monkeypatch)


# a pipe is no terminal


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_a_variable_that_asks_for_colour_colours_a_pipe_and_makes_no_terminal_of_it(variable, monkeypatch, shown_as):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert shown_as(Text("bold", style="bold")) == "bold\n"
    monkeypatch.setenv(variable, "1")
    assert shown_as(Text("bold", style="bold")) == "\x1b[1mbold\x1b[0m\n"
    assert not output().is_terminal
    assert not output().is_interactive


# nothing is markup


def test_only_one_module_makes_consoles_and_none_reads_markup():
    makes = re.compile(r"(?<!\w)Console\(|= PlainConsole\(|return PlainConsole\(|import print\b|markup\(|rich\.markup")
    found = {str(p.relative_to(ROOT)) for p in ROOT.rglob("*.py") if makes.search(p.read_text(encoding="utf-8"))}
    assert found == {"cli/output/console.py", "report/terminal/tables.py"}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_in_a_text_letter_by_letter(name):
    assert as_text([Line(name)], 200) == visible(name) + "\n"


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_printed_letter_by_letter_and_controls_no_terminal(name, shown_as):
    text = shown_as(name)
    assert text == name.replace("\x1b", "\\x1b") + "\n"
    text = shown_as(Trimmed((Grid((Column("class"), Column(name)), (Row((name, "1")),), title=name),)))
    assert text.count(visible(name)) == 3
    assert "\x1b" not in text


@pytest.mark.parametrize("name", NAMES)
def test_a_studys_table_and_page_hold_any_label_whole(name, shown_as):
    records = made_study({"control": (0.9, 0.8), name: (0.9, 0.8)}, axis="odd", question=name, diverged=[(name, 1)])
    records = with_classes(records, {name: 0.8, "other": 0.7})
    summary = summarize_study(records)
    assert shown_as(study_table(summary, per_class=True)).count(visible(name)) >= 5
    page = make_page(page_content(summary, records), f"{name}.svg")
    blocks = re.findall(r"(?:^\|.*\n)+", page, flags=re.MULTILINE)
    assert blocks
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    assert "\x1b" not in page


def test_a_figure_shows_any_label_letter_by_letter(tmp_path):
    from dlx.report.figures.study import draw_study

    labels = {"control": (0.9, 0.8), **dict.fromkeys(NAMES, (0.9, 0.8))}
    draw_study(summarize_study(made_study(labels, axis="odd", seeds=[0, 1])), tmp_path / "f.svg", tmp_path / "f.png")
    svg = (tmp_path / "f.svg").read_text(encoding="utf-8")
    for name in NAMES:
        assert visible(name).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in svg


def test_the_classes_of_a_file_are_printed_letter_by_letter_by_train(dlx, tmp_path):
    names = [*NAMES[:6], "mean"]
    write_nnunet(tmp_path / "data", names)
    shown = dlx(
        *("train", "--data", "data", "--model", "unet2:width=4,levels=2", "--set", "batch.patch_size_px=[16,16]"),
        *("--epochs", "1", "--steps-per-epoch", "1", "--batch-size", "2", "--threads", "1", "--device", "cpu"),
    )
    for name in names:
        assert re.search(rf"^ *{re.escape(name)} +[-0-9]", shown.stdout, flags=re.MULTILINE), name
    assert "T1 [mprage]" in shown.stderr
    assert "mean of all" in shown.stdout


def write_nnunet(folder, names):
    """Three cases with these classes, a block of voxels each."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for case in ("a [1]", "b", "c"):
        mask = np.zeros((16, 16, 16), dtype=np.uint8)
        for k in range(1, len(names) + 1):
            mask[:, 2 * k - 2 : 2 * k] = k
        image = rng.normal(size=mask.shape).astype(np.float32)
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(image), folder / "imagesTr" / f"{case}_0000.nii.gz")
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(mask), folder / "labelsTr" / f"{case}.nii.gz")
    labels = {"background": 0} | {name: k for k, name in enumerate(names, 1)}
    write_json(
        folder / "dataset.json",
        {"channel_names": {"0": "T1 [mprage]"}, "labels": labels, "numTraining": 3, "file_ending": ".nii.gz"},
    )


# markdown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kidney [left]", r"kidney \[left\]"),
        (":smile:", ":<!-- -->smile:"),
        ("a & b &lt;", r"a \& b \&lt;"),
        ("# a", r"\# a"),
        ("- a", r"\- a"),
        ("1. a", r"1\. a"),
        ("-0.1", "-0.1"),
        ("a: b", "a: b"),
        ("a\nb", "a b"),
    ],
)
def test_markdown_shows_text_letter_by_letter(text, expected):
    assert escape(text) == expected


def test_a_command_with_backticks_stays_in_its_block():
    assert code_block("dlx --out '```'", "sh") == ["````sh", "dlx --out '```'", "````"]


def test_a_link_reaches_a_file_of_any_name():
    assert link_target("my study (1).svg") == "my%20study%20%281%29.svg"


# encodings


@pytest.mark.parametrize(
    ("text", "expected"), [("0.8 ± 0.1", "0.8 +- 0.1"), ("a → b…", "a -> b..."), ("größe", "gr\\xf6\\xdfe"), ("x", "x")]
)
def test_what_ascii_lacks_is_spelled_out(text, expected):
    assert encodable(text, "ascii") == expected
    assert encodable(text, "utf-8") == text


@pytest.mark.parametrize(
    ("text", "expected"), [("caf\udce9 → é", "caf\\xe9 → é"), ("\ud800", "\\ud800"), ("\ud83d\ude00", "\\ud83d\\ude00")]
)
def test_what_utf_8_lacks_is_spelled_out_for_records(text, expected):
    assert encodable(text) == expected


def test_a_latin_terminal_keeps_what_it_has():
    assert encodable("größe ± →", "latin-1") == "größe ± ->"


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_table_in_ascii_holds_the_same_and_its_columns_stand_below_each_other(width, shown_as):
    summary = summarize_study(dropout_sweep())
    text = shown_as(study_table(summary), width, "ascii")
    assert "+-" in text
    assert "?" not in text.replace(summary.header.question, "").replace("Dice?", "")
    if width == 200:
        title, *rows = [line for line in text.splitlines() if "+- 0." in line or "train Dice" in line]
        end = title.index("train Dice") + len("train Dice")
        assert rows
        assert all(re.search(r"\d$", row[:end]) for row in rows)


# a report that cannot be written


@pytest.mark.parametrize("error", [OSError, DataError, KeyboardInterrupt])
def test_the_table_is_printed_even_if_its_report_cannot_be_written(error, capsys):
    records = made_study()
    with pytest.raises(error), print_summary_after(summarize_study(records), records, as_json=False):
        raise error
    assert "val Dice" in capsys.readouterr().out


# widths


@pytest.mark.parametrize("width", [20, 40, 60, 68, 76, 80, 200])
def test_every_variant_is_named_and_every_number_whole_at_any_width(width, shown_as):
    summary = summarize_study(dropout_sweep())
    text = shown_as(study_table(summary), width)
    assert "…" not in text
    words = set(text.split())
    for variant in summary.variants:
        spread = variant.estimates["val_dice"]
        assert {variant.label, f"{spread.mean:.3f}", f"{spread.sd:.3f}"} <= words
        if variant.comparison is not None:
            assert f"{variant.comparison.difference:+.3f}" in words
    if width >= 40:
        assert max(map(len, text.splitlines())) <= width


def test_a_study_without_an_ended_trial_is_shown_without_tables(shown_as):
    finals = {"p=0": (0.9, 0.8), "p=0.1": (0.9, 0.8)}
    running = {(label, 0): 2 for label in finals}
    text = shown_as(study_table(summarize_study(made_study(finals, seeds=[0], running=running))))
    assert "0 of 2 trials" in text
    assert "val Dice" not in text


def test_a_list_stands_where_the_columns_do_not_fit(shown_as):
    columns = (Column("variant"), Column("train Dice", is_number=True), Column("val Dice", is_number=True))
    grid = Trimmed((Grid(columns, (Row(("p=0.1", "0.900", "0.800")),)),))
    assert shown_as(grid, 40).split("\n")[3] == "  p=0.1          0.900      0.800"
    assert shown_as(grid, 28) == "\n  p=0.1   train Dice 0.900\n    val Dice    0.800\n\n"
    total = Trimmed((Grid(columns, (Row(("total", "", "0.800")),)),))
    assert shown_as(total, 28) == "\n  total   val Dice 0.800\n\n"  # nothing of a cell that is empty


@pytest.mark.parametrize("columns", ["0", "-5", "abc", "", "100000000"])
def test_an_invalid_width_is_ignored(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    console = output()
    assert 80 <= console.width <= 1000
    console.print("all of it")
    assert capsys.readouterr().out == "all of it\n"


def test_a_text_of_rich_is_taken_too(shown_as):
    assert shown_as(Text("[b]")) == "[b]\n"


# processes


def run(*args, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} | options.pop("env", {})
    options = {"check": False} | options
    return subprocess.run([sys.executable, "-m", "dlx", *args], env=environment, **options)


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "made.jsonl"
    write_archive(path, with_classes(made_study(), {"größe [a]": 0.8, "b": 0.7}))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "env", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_a_report_on_an_ascii_output_is_printed_and_written(archive, env):
    done = run("report", str(archive), "--per-class", env=env, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"+- 0." in done.stdout
    assert b"gr\\xf6\\xdfe [a]" in done.stdout
    assert archive.with_suffix(".md").exists()


@pytest.mark.slow
@pytest.mark.parametrize("columns", ["0", "abc"])
def test_help_is_printed_whatever_columns_says(columns):
    done = run("report", "--help", env={"COLUMNS": columns}, capture_output=True, check=True)
    assert b"--per-class" in done.stdout


@pytest.mark.slow
def test_a_closed_pipe_loses_no_report_and_gives_no_traceback(archive):
    read, write = os.pipe()
    os.close(read)
    done = run("report", str(archive), stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.stderr == b""
    assert done.returncode == 141
    assert archive.with_suffix(".md").exists()
    assert archive.with_suffix(".svg").exists()


@pytest.mark.slow
def test_a_run_goes_on_if_the_reader_of_its_progress_leaves(tmp_path):
    read, write = os.pipe()
    os.close(read)
    args = ["--data", "phantom:subjects=3,size=24", "--model", "unet2:width=4,levels=2", "--steps-per-epoch", "1"]
    args += ["--epochs", "2", "--batch-size", "2", "--threads", "1", "--device", "cpu", "--out", "out"]
    done = run(
        "train", *args, stderr=write, stdout=subprocess.PIPE, cwd=tmp_path, env={"XDG_CACHE_HOME": str(tmp_path)}
    )
    os.close(write)
    assert done.returncode == 0
    assert b"val Dice" in done.stdout
    assert list((tmp_path / "out").glob("trials/*/result.json"))


@pytest.mark.slow
def test_what_goes_to_a_file_is_as_wide_beside_any_terminal(archive):
    pty = pytest.importorskip("pty")
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    outputs = []
    for columns in (30, 150):
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
        env = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
        command = [sys.executable, "-m", "dlx", "report", str(archive)]
        outputs.append(
            subprocess.run(command, env=env, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, check=True).stdout
        )
    os.close(theirs)
    os.close(ours)
    assert outputs[0] == outputs[1]
