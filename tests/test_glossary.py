"""docs/glossary.md: each word has its meaning, its code and a page."""

import re

import pytest

from pages import text_of

ENTRIES = re.split(r"^- ", text_of("docs/glossary.md"), flags=re.MULTILINE)[1:]
WORDS = [re.match(r"\*\*(.+?)\*\*", entry)[1] for entry in ENTRIES]
ASKED = """backbone, neck, head, embedding, encoder, decoder, skip connection, patch, slice, epoch, step, seed, fold,
variant, control, Dice, HD95, surface Dice, logits, EMA, test-time augmentation (TTA), deep supervision,
learning-rate schedule, weight decay, dropout"""


def test_words_are_in_order_and_none_is_there_twice():
    assert sorted(WORDS, key=str.lower) == WORDS
    assert len({word.lower() for word in WORDS}) == len(WORDS)


def test_the_words_of_a_network_and_of_a_study_are_there():
    assert set(re.split(r",\s", ASKED)) - set(WORDS) == set()


@pytest.mark.parametrize("entry", ENTRIES, ids=WORDS)
def test_an_entry_has_a_meaning_its_code_and_a_page(entry):
    """That the files exist is tested with all links, in test_docs.py."""
    meaning = re.sub(r"\[[^\]]*\]\([^)]*\)|\*\*.+?\*\*|\s", "", entry)
    assert len(meaning) > 20
    paths = re.findall(r"\[([^\]]*)\]\(\.\./src/dlx/([^)]*)\)", entry)
    assert len(paths) == 1
    assert all(shown == path for shown, path in paths)
    assert len(re.findall(r"\]\((?!\.\.)[\w-]+\.md", entry)) == 1
