"""A small picture of a table as inline SVG: memorized against utility."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from unmemorize.leaderboard.board import Table
from unmemorize.results.record import BASE
from unmemorize.untrusted import html

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 680, 360, 64, 46, 14, 140
_TICKS: Final = 5
_LINE: Final = 13


class _Point(NamedTuple):
    x: float
    y: float
    method: str
    kind: str
    title: str


class _Scale(NamedTuple):
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round numbers within the scale."""
        rough = (self.high - self.low) / _TICKS
        size = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * size for factor in (1, 2, 5, 10) if factor * size >= rough)
        return [step * count for count in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def to_svg(table: Table) -> str:
    """Return the picture, or nothing where fewer than two rows have both numbers.

    Memorized (after) runs to the right, utility (after) upwards; where lower utility is better the axis is
    turned, so that the upper left corner is always the best.
    """
    rows = table.rows.drop_nulls(["memorized_after", "utility_after"]).to_dicts()
    if len(rows) < 2:
        return ""
    across = _scale([row["memorized_after"] for row in rows], _LEFT, _WIDTH - _RIGHT)
    up = _scale([row["utility_after"] for row in rows], _HEIGHT - _BOTTOM, _TOP)
    if rows[0]["utility_direction"] == "lower":
        up = _Scale(up.low, up.high, up.end, up.start)
    points = [_point(row, across, up) for row in rows]
    parts = [*_axes(table, across, up), *map(_mark, points), *_labels(points)]
    label = f"memorized against utility on {table.title}"
    head = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html(label)}">'
    return "\n".join([head, *parts, "</svg>"])


def _scale(values: list[float], start: float, end: float) -> _Scale:
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or max(abs(high), 1.0) * 0.05
    top = 100.0 if high <= 100.0 < high + room else high + room
    return _Scale(max(low - room, 0.0), top, start, end)


def _point(row: dict[str, object], across: _Scale, up: _Scale) -> _Point:
    memorized, utility = float(str(row["memorized_after"])), float(str(row["utility_after"]))
    kind = "base" if row["method"] == BASE else "front" if row["frontier"] else "plain"
    title = f"{row['method']}: memorized {memorized:.1f} %, utility {utility:.2f}"
    return _Point(across(memorized), up(utility), str(row["method"]), kind, title)


def _mark(point: _Point) -> str:
    title = f"<title>{html(point.title)}</title>"
    if point.kind == "base":
        corner = f'x="{point.x - 4.5:.1f}" y="{point.y - 4.5:.1f}"'
        return f'<rect class="base" {corner} width="9" height="9">{title}</rect>'
    return f'<circle class="{point.kind}" cx="{point.x:.1f}" cy="{point.y:.1f}" r="5">{title}</circle>'


def _labels(points: list[_Point]) -> list[str]:
    """Write each method's name right of its mark, moved down where it would lie on another name."""
    placed: list[tuple[float, float, float]] = []
    labels = []
    for point in sorted(points, key=lambda point: point.y):
        x, y, width = point.x + 9, point.y + 4, 7.0 * len(point.method)
        while any(abs(y - v) < _LINE and x < u + w and u < x + width for u, v, w in placed):
            y += 1
        placed.append((x, y, width))
        labels.append(f'<text x="{x:.1f}" y="{y:.1f}">{html(point.method)}</text>')
    return labels


def _axes(table: Table, across: _Scale, up: _Scale) -> list[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = [f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>']
    for value in across.ticks():
        x = across(value)
        parts.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{bottom}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>')
    for value in up.ticks():
        y = up(value)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    middle = (_LEFT + right) / 2
    parts.append(f'<text class="name" x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">memorized after, %</text>')
    turn = f"rotate(-90 14 {(_TOP + bottom) / 2})"
    where = f'x="14" y="{(_TOP + bottom) / 2}" transform="{turn}"'
    return [*parts, f'<text class="name" {where} text-anchor="middle">{html(table.utility)} after</text>']
