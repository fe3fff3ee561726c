"""Draws curves of CPU against the number of calls as an SVG, both axes logarithmic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

Point = tuple[float, float]

_WIDTH: Final = 860
_HEIGHT: Final = 460
_LEFT: Final = 70
_RIGHT: Final = 560  # the names of the curves come after it
_TOP: Final = 50
_BOTTOM: Final = 410
_OURS: Final = "#c8102e"
_OTHERS: Final = ("#1b1b1b", "#555555", "#1f5fa8", "#2f8f5b", "#8a5bb0", "#b8860b", "#3a9aa8", "#a05a2c")
_LABEL_APART: Final = 15  # pixels between the labels at the curves' ends


def draw(curves: Mapping[str, Sequence[Point]]) -> str:
    """A picture of the curves; the first one, ours, stands out."""
    points = [point for curve in curves.values() for point in curve]
    across = _Axis([x for x, _ in points], _LEFT, _RIGHT)
    up = _Axis([y for _, y in points], _BOTTOM, _TOP)
    parts = [_frame(), *_grid(across, up)]
    ends = _spread({name: up.place(curve[-1][1]) for name, curve in curves.items()})
    for number, (name, curve) in enumerate(curves.items()):
        colour, width = (_OURS, 3.5) if number == 0 else (_OTHERS[(number - 1) % len(_OTHERS)], 1.6)
        parts += _curve(name, [(across.place(x), up.place(y)) for x, y in curve], ends[name], colour, width)
    return "\n".join([*parts, "</svg>", ""])


class _Axis:
    """A logarithmic scale that covers all values."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        self.low, self.high = min(values) / 1.15, max(values) * 1.15
        self._start, self._length = start, end - start

    def place(self, value: float) -> float:
        """Where a value is drawn."""
        return self._start + self._length * math.log(value / self.low) / math.log(self.high / self.low)

    def marks(self) -> list[float]:
        """1, 2, 5, 10 ... as far as they lie on it."""
        all_marks = (step * 10.0**power for power in range(-1, 5) for step in (1, 2, 5))
        return [mark for mark in all_marks if self.low <= mark <= self.high]


def _frame() -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12">\n<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>\n'
        f'<text x="{_LEFT}" y="26" font-size="15">CPU of one core for each 20 ms frame, microseconds</text>\n'
        f'<text x="{_RIGHT}" y="{_BOTTOM + 38}" text-anchor="end">two-track calls at once, in real time</text>'
    )


def _grid(across: _Axis, up: _Axis) -> list[str]:
    lines = []
    for mark in up.marks():
        y = up.place(mark)
        lines.append(f'<path d="M{_LEFT} {y:.1f}H{_RIGHT}" stroke="#ddd"/>')
        lines.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{mark:g}</text>')
    for mark in across.marks():
        x = across.place(mark)
        lines.append(f'<path d="M{x:.1f} {_TOP}V{_BOTTOM}" stroke="#ddd"/>')
        lines.append(f'<text x="{x:.1f}" y="{_BOTTOM + 18}" text-anchor="middle">{mark:g}</text>')
    return lines


def _curve(name: str, points: Sequence[Point], label_y: float, colour: str, width: float) -> list[str]:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    x, y = points[-1]
    return [
        f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{width + 1}" fill="{colour}"/>' for x, y in points),
        f'<path d="M{x + 6:.1f} {y:.1f}L{_RIGHT + 4} {label_y:.1f}" stroke="{colour}" stroke-width="0.5"/>',
        f'<text x="{_RIGHT + 8}" y="{label_y + 4:.1f}" fill="{colour}">{escape(name)}</text>',
    ]


def _spread(wanted: Mapping[str, float]) -> dict[str, float]:
    """Heights of the labels, near the wanted ones and none upon another."""
    placed: dict[str, float] = {}
    above = -math.inf
    for name, y in sorted(wanted.items(), key=lambda each: each[1]):
        above = placed[name] = max(y, above + _LABEL_APART)
    overflow = max(0.0, above - _BOTTOM)
    return {name: y - overflow for name, y in placed.items()}
