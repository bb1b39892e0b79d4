"""Line charts as SVG: a few kilobytes of text, sharp at any size, and no plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

INKS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")
"""Okabe and Ito's colours, which most eyes tell apart."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 340, 58, 130, 30, 44


class Line(NamedTuple):
    name: str
    xs: Sequence[float]
    ys: Sequence[float]


def chart(
    title: str, x_name: str, y_name: str, lines: Sequence[Line], y_range: tuple[float, float] | None = None
) -> str:
    """An SVG picture. y_range: all values between, if not given. Raises ValueError where there is nothing to draw."""
    points = [(x, y) for line in lines for x, y in zip(line.xs, line.ys, strict=True)]
    if not points:
        raise ValueError(f"the chart {title!r} has no points.")
    xs, ys = [x for x, _ in points], [y for _, y in points]
    across = _Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    low, high = y_range or (min(ys), max(ys))
    up = _Axis(low, high, HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 18, title, size=13),
        *_grid(across, up),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, x_name, "middle"),
        _text(14, (TOP + HEIGHT - BOTTOM) / 2, y_name, "middle", turned=True),
    ]
    for number, line in enumerate(lines):
        ink = INKS[number % len(INKS)]
        path = " ".join(f"{across.at(x):.1f},{up.at(y):.1f}" for x, y in zip(line.xs, line.ys, strict=True))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{ink}" stroke-width="1.8"/>')
        if len(line.xs) <= 40:
            parts += [_dot(across.at(x), up.at(y), ink) for x, y in zip(line.xs, line.ys, strict=True)]
        y = TOP + 12 + 18 * number
        parts.append(f'<line x1="{WIDTH - RIGHT + 12}" x2="{WIDTH - RIGHT + 30}" y1="{y}" y2="{y}" stroke="{ink}" '
                     'stroke-width="2.5"/>')  # fmt: skip
        parts.append(_text(WIDTH - RIGHT + 36, y + 4, line.name))
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Axis:
    """Values to pixels, and round numbers between."""

    def __init__(self, low: float, high: float, start: float, stop: float) -> None:
        self.low, self.high = (low, high) if high > low else (low - 0.5, high + 0.5)
        self.start, self.stop = start, stop

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        rough = (self.high - self.low) / count
        unit = 10 ** math.floor(math.log10(rough))
        step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= rough)
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _grid(across: _Axis, up: _Axis) -> list[str]:
    parts = []
    for value in up.ticks():
        y = up.at(value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e4e4"/>')
        parts.append(_text(LEFT - 6, y + 4, _short(value), "end"))
    for value in across.ticks():
        x = across.at(value)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#f0f0f0"/>')
        parts.append(_text(x, HEIGHT - BOTTOM + 15, _short(value), "middle"))
    return parts


def _short(value: float) -> str:
    return f"{round(value, 6):g}"


def _dot(x: float, y: float, ink: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{ink}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 11, turned: bool = False) -> str:
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"{turn}>{escape(text)}</text>'
