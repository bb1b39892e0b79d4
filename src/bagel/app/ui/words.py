"""Which text stands where on the page, so that the switch of the language can change them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from bagel.app.ui.texts import say

Wording = str | Callable[[str], Any]
"""A key of `TEXTS`, or a function of the language."""


class Words:
    def __init__(self, language: str = "en") -> None:
        self.language = language
        self._spots: list[tuple[Any, dict[str, Wording]]] = []

    def __call__(self, make: Callable[..., Any], *, wording: dict[str, Wording], **settings: Any) -> Any:
        """Makes a component whose properties in `wording` follow the language."""
        component = make(**self._said(wording, self.language), **settings)
        self._spots.append((component, wording))
        return component

    @property
    def components(self) -> list[Any]:
        return [component for component, _ in self._spots]

    def in_language(self, language: str) -> list[Any]:
        """An update for each component."""
        return [gr.update(**self._said(wording, language)) for _, wording in self._spots]

    @staticmethod
    def _said(wording: dict[str, Wording], language: str) -> dict[str, Any]:
        return {name: say(w, language) if isinstance(w, str) else w(language) for name, w in wording.items()}
