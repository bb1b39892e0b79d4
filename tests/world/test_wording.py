"""Held-out wording: sentences that training never says, of words that it uses."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from bagel.world.wording.grammar import FRAMES, PLAIN, TABLES, frames, in_frame, is_command
from bagel.world.wording.reading import groups

from .wordings import choices, fixed, said

WORDED = [(language, key) for language, table in TABLES.items() for key in table if table[key][1]]
# Chinese words of one sign. Longer ones must occur in training as they are.
SHORT = set(
    "的了吗吧我你它谁几这那一个张幅种帧度每都就再先也不要是在有从向往跟和与比以让把将请给用画看说放加改涂成来去走移留做算少图角前后上里"
)


def unknown(language: str, text: str, known: Iterable[str]) -> list[str]:
    """The words of `text`, fixed text of a template, that none of the `known` ones has. A Chinese run is cut in pieces
    that they contain; pieces are two signs long or more, or short words."""
    runs = {run for template in known for chosen in choices(template) for run in fixed(chosen)}
    own = [run for chosen in choices(text) for run in fixed(chosen)]
    if language == "en":
        return [word for word in own if word not in runs]
    return [run for run in own if not can_be_cut(run, "\n".join(runs))]


def can_be_cut(run: str, runs: str) -> bool:
    reached = {0}
    for end in range(1, len(run) + 1):
        pieces = (run[start:end] for start in reached)
        if any(piece in runs and (len(piece) > 1 or piece in SHORT or piece.isascii()) for piece in pieces):
            reached.add(end)
    return len(run) in reached


def kinds(sentence: str) -> str:
    """The slots of a sentence by kind: things are named in the same ways whatever the slot is called."""
    sentence = re.sub(r"\{(colour|background)\}", "COLOUR", sentence)
    return re.sub(r"\{(?:things?|a|b|new|others?|source)\}", "THING", sentence).lower()


@pytest.mark.parametrize(("language", "key"), WORDED)
def test_a_new_sentence_is_made_of_words_that_training_uses_for_its_key(language, key):
    train, reserved = TABLES[language][key]
    for template in reserved:
        assert not unknown(language, template, [*train, *FRAMES[language][0]]), template


@pytest.mark.parametrize("language", TABLES)
def test_a_reserved_frame_is_made_of_words_of_the_others(language):
    shared, reserved = FRAMES[language]
    assert not set(shared) & set(reserved)
    for frame in reserved:
        assert not unknown(language, frame, shared), frame


@pytest.mark.parametrize("language", TABLES)
def test_training_says_no_reserved_sentence_of_any_key(language):
    usual = {kinds(sentence) for key in TABLES[language] for sentence in said(language, key, False)}
    for key in TABLES[language]:
        train = {kinds(sentence) for sentence in said(language, key, False)}
        new = {kinds(sentence) for sentence in said(language, key, True)}
        assert not new & train, key
        plain = [in_frame(text, PLAIN[language]) if is_command(text) else text for text in TABLES[language][key][1]]
        reserved = {kinds(sentence) for text in plain for sentence in choices(text)}
        assert not reserved & usual, key


@pytest.mark.parametrize(("language", "key"), WORDED)
def test_a_key_is_worded_in_many_ways(language, key):
    train, reserved = TABLES[language][key]
    assert len(train) >= 4
    assert 2 <= len(reserved) <= 4
    assert len(set(said(language, key, False))) >= 8


@pytest.mark.parametrize(("language", "key"), WORDED)
def test_a_key_does_without_some_frames_in_training(language, key):
    usual, unused = frames(language, key, False), frames(language, key, True)
    shared, reserved = FRAMES[language]
    assert set(usual) | set(unused) == {*shared, *reserved}
    assert not set(usual) & set(unused)
    assert len(usual) == 6


@pytest.mark.parametrize(("language", "circle", "red"), [("en", "the circle", "red"), ("zh", "圆形", "红色")])
def test_no_fixed_word_is_read_as_a_look_or_a_count_of_a_thing(language, circle, red):
    for key in TABLES[language]:
        for sentence in said(language, key, False) + said(language, key, True):
            text = re.sub(r"\{\w+\}", circle, re.sub(r"\{(colour|background)\}", red, sentence))
            assert set(groups(text)) <= {(1, "", "circle")}, sentence


def test_unknown_words_are_found():
    assert unknown("en", "get rid of {thing}!", ["remove {thing}", "get {thing} out of"]) == ["rid"]
    assert unknown("zh", "不要{thing}了。", ["不要有{thing}。"]) == ["了"]
    assert not unknown("zh", "不要{thing}了。", ["不要有{thing}。", "{thing}不要了。"])
    assert unknown("zh", "位置{thing}", ["位{thing}置"]) == ["位置"]
