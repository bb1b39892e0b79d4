"""The tasks, each a table from category to the function that drafts a sample of it (None: draw again)."""

from . import arrange, ask, draw, edit, frames, navigate, talk, think, turn
from .kit import Tasks

TASKS: dict[str, Tasks] = {
    "draw": draw.CATEGORIES,
    "ask": ask.CATEGORIES | talk.ANSWERS,
    "edit": edit.CATEGORIES | talk.EDITS,
    "reason": arrange.CATEGORIES,
    "frames": frames.CATEGORIES,
    "navigate": navigate.CATEGORIES,
    "turn": turn.CATEGORIES,
    "think": think.CATEGORIES,
}
