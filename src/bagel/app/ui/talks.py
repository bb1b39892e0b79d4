"""Conversations of the page: what was said, what the page shows of it, and the contexts that are kept for the next
turn. A context that has gone is read again from what was said."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bagel.app.ui.texts import parted
from bagel.app.ui.work import Said
from bagel.images import open_image
from bagel.infer.conversation import Conversation
from bagel.infer.inputs import Text

Message = dict[str, Any]
"""As Gradio's chat shows it."""


@dataclass(frozen=True)
class Line:
    """A text, or the path of a kept picture. own: the model's."""

    text: str = ""
    picture: str = ""
    own: bool = False
    thought: bool = False
    """Shown and not kept in what was read."""

    def said(self) -> Said:
        return Said(open_image(self.picture) if self.picture else Text(self.text), self.own)

    def message(self, thought: str) -> Message:
        """thought: the word above one."""
        message: Message = {"role": "assistant" if self.own else "user"}
        text = parted(self.text)[0 if self.thought else 1] or "…" if self.own else self.text
        message["content"] = {"path": self.picture} if self.picture else text
        return {**message, "metadata": {"title": thought}} if self.thought else message


@dataclass(frozen=True)
class Talk:
    """A conversation so far. key: of its context on the shelf; before: as it was before its last turn."""

    lines: tuple[Line, ...] = ()
    key: object = field(default_factory=object)
    before: Talk | None = None

    @property
    def past(self) -> list[Line]:
        """What was read."""
        return [line for line in self.lines if not line.thought]

    @property
    def pictures(self) -> list[str]:
        return [line.picture for line in self.lines if line.picture]

    def messages(self, thought: str) -> list[Message]:
        return [line.message(thought) for line in self.lines]


def told(lines: Sequence[Line], name_of: Callable[[str], str]) -> list[dict[str, Any]]:
    """Lines as JSON, pictures by the names under which they are kept."""
    whose = [{"own": True} if line.own else {} for line in lines]
    what = [{"picture": name_of(line.picture)} if line.picture else {"text": line.text} for line in lines]
    return [{**own, **said} for own, said in zip(whose, what, strict=True)]


def lines_of(entries: Any, find: Callable[[Any], Path | None]) -> list[Line] | None:
    """The reverse of `told`, from a stranger's PNG maybe; None where anything is not as it should be, or a picture
    is not here."""
    found: list[Line] = []
    for entry in entries if isinstance(entries, list) else [None]:
        if not isinstance(entry, Mapping):
            return None
        text, path = entry.get("text", ""), find(entry.get("picture"))
        if not isinstance(text, str) or bool(text) == bool(path):
            return None
        found.append(Line(text, str(path) if path else "", own=entry.get("own") is True))
    return found


class Shelf:
    """Contexts by the key of their conversation. Those unused for longest go when all hold more than `most` tokens,
    and a visitor's when he leaves."""

    def __init__(self, most: Callable[[], int]) -> None:
        self._most = most
        self._kept: OrderedDict[object, tuple[str, Conversation]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, key: object, visitor: str, conversation: Conversation) -> None:
        with self._lock:
            self._kept[key] = visitor, conversation
            held = sum(kept.cond.length for _, kept in self._kept.values())
            while held > self._most() and len(self._kept) > 1:
                _, (_, oldest) = self._kept.popitem(last=False)
                held -= oldest.cond.length

    def take(self, key: object) -> Conversation | None:
        """The context of a conversation, which stays on the shelf."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][1]

    def drop(self, key: object) -> None:
        with self._lock:
            self._kept.pop(key, None)

    def leave(self, visitor: str) -> None:
        with self._lock:
            for key in [key for key, (whose, _) in self._kept.items() if whose == visitor]:
                del self._kept[key]
