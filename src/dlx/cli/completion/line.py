"""A command line of bash up to the cursor: its words without quotes, and how the unfinished one is replaced.

bash hands over the line as typed. It replaces only what follows the last separator within the unfinished word: of
`unet2:wid` it replaces `wid`, if the colon is among its separators (COMP_WORDBREAKS).
"""

import re
from dataclasses import dataclass

PLAIN = re.compile(r"[\w@%+=:,./^~-]")  # what needs no backslash outside quotes
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


@dataclass(frozen=True)
class UnfinishedLine:
    """The finished words, the unfinished one, the quote that is open in it (or none), and how many of its characters
    bash keeps.
    """

    words: tuple[str, ...]
    text: str
    quote: str
    kept: int

    def replacement(self, value: str, *, ends: bool) -> str:
        """What bash has to insert for a completion, quoted, and a blank after it; bash itself closes an open quote."""
        rest = value[self.kept :]
        if self.quote == "'":
            return rest.replace("'", "'\\''")
        if self.quote == '"':
            return re.sub(r'(["\\$`])', r"\\\1", rest)
        quoted = "".join(one if PLAIN.match(one) else f"\\{one}" for one in rest)
        return f"{quoted} " if ends else quoted


def read_line(line: str, separators: str) -> UnfinishedLine:
    """Splits the line at blanks outside quotes; the last word, which may be empty, is the unfinished one.

    Assignments before the program (`CUDA_VISIBLE_DEVICES=1 dlx ...`) and the program itself are left out.
    """
    words: list[str] = []
    text, quote, kept, is_word, position = "", "", 0, False, 0
    before_quote = 0
    while position < len(line):
        letter = line[position]
        position += 1
        if quote:
            if letter == quote:
                quote, kept = "", before_quote
            elif letter == "\\" and quote == '"' and line[position : position + 1] in ('"', "\\", "$", "`"):
                text, position = text + line[position], position + 1
            else:
                text += letter
        elif letter in "'\"":
            quote, before_quote, kept, is_word = letter, kept, len(text), True
        elif letter == "\\":
            text, position, is_word = text + line[position : position + 1], position + 1, True
        elif letter.isspace():
            words += [text] if is_word else []
            text, kept, is_word = "", 0, False
        else:
            text, is_word = text + letter, True
            if letter in separators:
                kept = len(text)
    while words and ASSIGNMENT.match(words[0]):
        del words[0]
    return UnfinishedLine(tuple(words[1:]), text, quote, kept)
