"""The pages of the documentation, their fenced blocks, and the command lines in them.

A comment in the line above a block of commands says how a test runs it (tests/test_doc_commands.py):

    <!-- not run: REASON -->           it is not run
    <!-- run with: OPTIONS -->         with these options after each `dlx` command that trains
    <!-- run before: COMMANDS -->      these commands first, for what the reader of the page has and the test has not
    <!-- exits with: CODE -->          its last command ends with this exit code
    <!-- output: an example -->        the output shown is not compared with what is printed

and above a block of another language `<!-- saved as: PATH -->` that its reader saves it as this file.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
GENERATED = ("docs/cli.md",)  # by docs/make_cli_reference.py
PAGES = ["README.md", "README.zh.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]

SHELL = ("sh", "console")
MARKS = ("not run", "run with", "run before", "exits with", "output", "saved as")
FENCE = re.compile(r" {0,3}(`{3,}|~{3,}) *([\w+-]*)")
MARK = re.compile(r"\s*<!-- *([\w ]+?) *: *(.*?) *-->\s*")


@dataclass(frozen=True)
class CommandLine:
    """What is typed, perhaps in several lines, and the lines that are shown as its output (`console` blocks)."""

    text: str
    output: tuple[str, ...] = ()


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is that of its fence, from 1. `marks` are the comments above it: ("not run", "hours")."""

    page: str
    line: int
    language: str
    lines: tuple[str, ...]
    marks: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[CommandLine]:
        """The commands of a `console` block, each after `$ `; an `sh` block is a single one."""
        if self.language == "sh":
            return [CommandLine("\n".join(self.lines))]
        found: list[tuple[list[str], list[str]]] = []
        for line in self.lines:
            if line.startswith("$ "):
                found.append(([line[2:]], []))
            elif found and not found[-1][1] and found[-1][0][-1].endswith("\\"):
                found[-1][0].append(line.removeprefix("> "))
            elif found:
                found[-1][1].append(line)
            else:
                raise ValueError(f"{self.place}: a console block begins with '$ '")
        return [CommandLine("\n".join(typed), tuple(output)) for typed, output in found]


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks_of(page: str, text: str) -> list[Block]:
    """The fenced blocks of a page, in their order; ValueError for one that is not closed."""
    lines, found, number = text.splitlines(), [], 0
    while number < len(lines):
        opened = FENCE.match(lines[number])
        if not opened:
            number += 1
            continue
        fence, indent = opened[1], len(lines[number]) - len(lines[number].lstrip())
        ends = [end for end in range(number + 1, len(lines)) if lines[end].strip() == fence]
        if not ends:
            raise ValueError(f"{page}:{number + 1}: this block is not closed")
        inside = tuple(line[min(indent, len(line) - len(line.lstrip())) :] for line in lines[number + 1 : ends[0]])
        found.append(Block(page, number + 1, opened[2], inside, dict(marks_above(lines, number))))
        number = ends[0] + 1
    return found


def marks_above(lines: list[str], number: int) -> Iterator[tuple[str, str]]:
    """The marks in the comments directly above a line, each a line of its own."""
    while number > 0 and (found := MARK.fullmatch(lines[number - 1])):
        yield found[1], found[2]
        number -= 1


def without_blocks(text: str) -> str:
    """A page's text without its fenced blocks."""
    return re.sub(r"^ {0,3}(```|~~~).*?^ {0,3}\1", "", text, flags=re.DOTALL | re.MULTILINE)


def inline_code(text: str) -> list[str]:
    """The inline code of a page, with one blank where a line breaks within it."""
    spans = re.findall(r"(?<!`)`([^`]+)`(?!`)", without_blocks(text))
    return [" ".join(span.split()) for span in spans]


def dlx_lines(text: str) -> list[list[str]]:
    """The words of each `dlx` command in a text of shell commands, from the name of the command on."""
    found = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split, lexer.commenters = True, "#"
        commands: list[list[str]] = [[]]
        for word in lexer:
            if set(word) <= set("();<>|&"):
                commands.append([])
            else:
                commands[-1].append(word)
        found += [words[1:] for words in map(_without_variables, commands) if words[:1] == ["dlx"]]
    return found


def _without_variables(words: list[str]) -> list[str]:
    """A command's words without the variables that are set before it: `A=1 dlx train`."""
    while words and re.match(r"\w+=", words[0]):
        words = words[1:]
    return words
