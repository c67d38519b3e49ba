"""The commands of pages are read, run and compared as tests/pages.py and tests/page_runs.py say."""

import pytest

from page_runs import FAILED, Step, missing_lines, run_steps, save, steps_of, with_options
from pages import blocks_of, dlx_lines, inline_code

PAGE = """
<!-- run before: touch a -->
<!-- run with: --epochs 1 -->
```console
$ dlx train --data mine \\
>     --lr 1e-3  # a comment
epoch 1/2
$ A=1 dlx report runs | head -1 && dlx settings
```

   ```sh
   ls
     pwd
   ```

<!-- not run: a reason -->
```sh
rm -r runs
```

<!-- saved as: a/b.toml -->
```toml
c = "d e"
```

<!-- exits with: 2 -->
<!-- output: an example -->
```console
$ pwd
$ dlx report none
dlx: anything
```
"""


def test_the_blocks_of_a_page_have_their_marks_and_commands():
    first, second, third, saved, fourth = blocks_of("page.md", PAGE)
    assert first.marks == {"run before": "touch a", "run with": "--epochs 1"}
    assert [command.output for command in first.commands] == [("epoch 1/2",), ()]
    assert (second.language, second.place, second.commands[0].text) == ("sh", "page.md:11", "ls\n  pwd")
    assert third.marks == {"not run": "a reason"}
    assert (saved.language, saved.marks) == ("toml", {"saved as": "a/b.toml"})
    assert set(fourth.marks) == {"exits with", "output"}


def test_the_steps_of_a_page_follow_the_marks():
    first = "dlx train --data mine \\\n    --lr 1e-3 --epochs 1  # a comment"
    assert steps_of(blocks_of("page.md", PAGE)) == [
        Step("page.md:4", "touch a"),
        Step("page.md:4", first, 0, ("epoch 1/2",)),
        Step("page.md:4", "A=1 dlx report runs | head -1 && dlx settings"),
        Step("page.md:11", "ls\n  pwd"),
        Step("page.md:22", save("a/b.toml", ['c = "d e"'])),
        Step("page.md:28", "pwd"),
        Step("page.md:28", "dlx report none", 2),
    ]


def test_options_are_added_to_each_command_that_trains():
    given = "dlx train --x a#b  # c\nls\ndlx report a\ndlx run d"
    assert with_options(given, "--e 1") == "dlx train --x a#b --e 1  # c\nls\ndlx report a\ndlx run d --e 1"


def test_the_words_of_dlx_commands_are_found_in_a_line():
    (first, *_) = blocks_of("page.md", PAGE)
    assert [dlx_lines(command.text) for command in first.commands] == [
        [["train", "--data", "mine", "--lr", "1e-3"]],
        [["report", "runs"], ["settings"]],
    ]


def test_inline_code_is_found_where_a_line_breaks_in_it():
    assert inline_code("a `b` and `c\nd`\n```sh\n`e`\n```\n``f `` g") == ["b", "c d"]


def test_a_block_that_is_not_closed_is_refused():
    with pytest.raises(ValueError, match=r"page\.md:2"):
        blocks_of("page.md", "\n```sh\nls\n")


def test_output_is_compared_by_its_words():
    printed = "epoch  1/2  lr 0.002  0.5 s\nnote\n\n  GM   0.1  -0.2\n ────\n3 training subjects, 9 s on AMD EPYC\n"
    shown = ["epoch 10/20 lr 1e-3 11.5 s", "...", "GM 0.9 -", "1 training subjects, 1 s on a GPU"]
    assert missing_lines(shown, printed) == []
    assert missing_lines(["epoch 1/2 rate 0.002 0.5 s"], printed) == ["epoch 1/2 rate 0.002 0.5 s"]
    assert missing_lines(reversed(shown), printed) != []


@pytest.mark.long
def test_a_page_stops_at_the_first_command_that_fails(tmp_path, cache, warm_server):
    steps = [Step("page.md:1", text) for text in ("cd /", "pwd", "dlx report none", "pwd")]
    code, outputs = run_steps(steps, tmp_path, cache, warm_server)
    assert (code, outputs[:2], len(outputs)) == (FAILED, ["", "/\n"], 3)
    assert "none" in outputs[2]
    expected = Step("page.md:1", "dlx report none", 2)
    (tmp_path / "other").mkdir()
    assert run_steps([expected], tmp_path / "other", cache, warm_server)[0] == 0


def test_a_block_is_saved_as_it_is(tmp_path, cache, warm_server):
    lines = ("a  'b' $HOME", "", "%s\\n")
    assert run_steps([Step("page.md:1", save("c d/e.txt", lines))], tmp_path, cache, warm_server) == (0, [""])
    assert (tmp_path / "page/c d/e.txt").read_text() == "a  'b' $HOME\n\n%s\\n\n"
