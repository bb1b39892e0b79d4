"""Contact sheets take whatever a model writes."""

from __future__ import annotations

import numpy as np
import pytest

from bagel.eval.exercises import Plan, judged
from bagel.eval.sheet import Shown, page
from bagel.world.sheet import printable, wrapped

HOSTILE = ["\x08-1", "a\rb", "\x00", "x\x1fy\x85z", "\u200e\u202e\u2028", "\ud800", "理\x08想"]


@pytest.mark.parametrize("text", HOSTILE)
def test_lines_hold_only_what_a_font_draws(text):
    assert all(line.isprintable() for line in wrapped(text, 100))
    assert len(printable(text)) == len(text)


def test_lines_are_one_line_each():
    assert wrapped("two\nlines", 100) == ["two lines"]
    assert wrapped("两\n行", 100) == ["两 行"]


def test_what_is_printable_stays():
    assert printable("two lines,\nthe second 红色") == "two lines,\nthe second 红色"
    assert printable("a\tb\u3000c") == "a b c"


def test_a_page_of_a_failure():
    (exercise,) = Plan(tasks=("think/riddle",), count=1).exercises()
    plain, hostile = (judged(exercise, [text], text) for text in ("yes", "\x08yes\r\x00"))
    assert not hostile.ok
    assert np.any(np.asarray(page(Shown(exercise, [], hostile))) != np.asarray(page(Shown(exercise, [], plain))))
