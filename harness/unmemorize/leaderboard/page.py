"""A board as one HTML page that needs nothing from anywhere else."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from typing import Final

from unmemorize.leaderboard.board import Board, Table
from unmemorize.leaderboard.captions import caption, legend, set_aside_lines, unfinished_lines
from unmemorize.leaderboard.columns import FRONTIER, Column, columns
from unmemorize.leaderboard.flags import meaning
from unmemorize.leaderboard.scatter import to_svg
from unmemorize.results.record import BASE
from unmemorize.untrusted import html

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #62686f; --line: #d9dde1; --paper: #fff;
  --tint: #f4f6f8; --good: #12724a; --bad: #b3261e; --mark: #2457c5; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ea; --soft: #9aa1a8; --line: #363b41; --paper: #16181b;
    --tint: #1f2226; --good: #5cc693; --bad: #f2857c; --mark: #86aaf7; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1640px; padding: 24px 16px; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 22px; }
h1, h2, p, dl, li { overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 36px 0 10px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; width: 100%; }
th, td { padding: 5px 6px; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { vertical-align: bottom; padding: 0; }
th button { all: unset; display: block; width: 100%; padding: 5px 6px; cursor: pointer; font-weight: 600;
  line-height: 1.25; box-sizing: border-box; }
th button:focus-visible { outline: 2px solid var(--mark); outline-offset: -2px; }
th[aria-sort] button { color: var(--mark); }
th[aria-sort=ascending] button::after { content: " \\25B4"; }
th[aria-sort=descending] button::after { content: " \\25BE"; }
th button.right, td.right { text-align: right; }
td small { display: block; color: var(--soft); font-size: 11.5px; line-height: 1.2; }
td.method { font-weight: 600; }
td.method small { font-weight: 400; white-space: normal; max-width: 130px; overflow-wrap: anywhere; }
td.needs { white-space: normal; min-width: 96px; }
td.config, td.settings { white-space: normal; min-width: 150px; color: var(--soft); }
td.flags { white-space: normal; min-width: 150px; line-height: 1.7; }
td.front { color: var(--good); }
tr.base td { background: var(--tint); }
.flag { padding: 0 7px; border: 1px solid var(--line); border-radius: 9px; font-size: 11.5px;
  color: var(--soft); white-space: nowrap; display: inline-block; line-height: 1.5; margin-right: 4px; }
p.how, dl { color: var(--soft); max-width: 100ch; font-size: 14px; }
dt { font-weight: 600; float: left; clear: left; margin-right: 8px; }
dd { margin: 0; }
ul.left-out { padding-left: 20px; font-size: 14px; }
.failed { color: var(--bad); }
svg { display: block; width: 100%; max-width: 720px; margin: 18px 0; font: 12px system-ui, sans-serif; }
svg text { fill: var(--ink); }
svg .tick, svg .name { fill: var(--soft); }
svg .axis { fill: none; stroke: var(--soft); }
svg .grid { stroke: var(--line); }
svg .plain { fill: var(--paper); stroke: var(--mark); stroke-width: 2; }
svg circle.front { fill: var(--good); }
svg .base { fill: var(--soft); }
"""

_SCRIPT: Final = """
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.parentElement, column = head.cellIndex, body = head.closest("table").tBodies[0];
  const up = head.getAttribute("aria-sort") !== "ascending", sign = up ? 1 : -1;
  for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = row => row.cells[column].dataset.sort ?? "", number = head.dataset.kind === "number";
  const compare = (a, b) => {
    const x = key(a), y = key(b);
    if (x === "" || y === "") return (x === "") - (y === "");
    return sign * (number ? x - y : x.localeCompare(y));
  };
  const rows = [...body.rows].filter(row => !row.classList.contains("base")).sort(compare);
  body.append(...rows);
});
"""


def _hashed(content: str) -> str:
    """Return how a policy names an inline script or style that may be used."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


_POLICY: Final = "; ".join([
    *("default-src 'none'", f"style-src {_hashed(_STYLE)}", f"script-src {_hashed(_SCRIPT)}"),
    *("base-uri 'none'", "form-action 'none'"),
])  # fmt: skip
"""The page may use this style and this script, and nothing else from anywhere: text that became markup stays dead."""


def to_html(board: Board, *, title: str = "unmemorize leaderboard") -> str:
    """Return the board as a self-contained page: sortable tables, a picture of each, light and dark."""
    sections = "\n".join(_section(table, board.home) for table in board.tables)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{html(title)}</h1>
{sections}
{_set_aside(board)}<script>{_SCRIPT}</script>
</body>
</html>
"""


def _set_aside(board: Board) -> str:
    lines = [html(line) for line in set_aside_lines(board)]
    if not lines:
        return ""
    items = "".join(f"<li>{line}</li>" for line in lines[1:])
    return f'<section>\n<p>{lines[0]}</p>\n<ul class="left-out">{items}</ul>\n</section>\n'


def _section(table: Table, home: str) -> str:
    parts = [f"<section>\n<h2>{html(table.title)}</h2>"]
    if table.rows.height:
        parts += [_grid(table, home), to_svg(table)]
    parts.append(f'<p class="how">{html(" ".join(caption(table)))}</p>')
    entries = [f"<dt>{html(flag)}</dt><dd>{html(rule)}</dd>" for flag, rule in legend(table)]
    if entries:
        parts.append(f"<dl>{''.join(entries)}</dl>")
    statuses = (' class="failed"' if status == "failed" else "" for status in table.unfinished["status"])
    lines = [f"<li{kind}>{html(text)}</li>" for kind, text in zip(statuses, unfinished_lines(table), strict=True)]
    if lines:
        parts.append(f'<ul class="left-out">{"".join(lines)}</ul>')
    return "\n".join([*parts, "</section>"])


def _grid(table: Table, home: str) -> str:
    every = columns(table, home)
    origins = [column for column in every if column.name == "origin"]
    shown = [_with_origin(column, origins, table, home) for column in every if column.name != "origin"]
    head = "".join(_head(column) for column in shown)
    keys = zip(table.rows["method"], table.rows["frontier"], strict=True)
    body = "\n".join(
        f"<tr{_row_class(method, frontier)}>{''.join(_cell(column, number) for column in shown)}</tr>"
        for number, (method, frontier) in enumerate(keys)
    )
    grid = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f'<div class="scroll">{grid}</div>'


def _with_origin(column: Column, origins: list[Column], table: Table, home: str) -> Column:
    """Write where a third party's method comes from under its name."""
    if column.name != "method" or not origins:
        return column
    foreign = [name not in ("", home) for name in table.rows["distribution"]]
    cells = zip(column.cells, origins[0].cells, foreign, strict=True)
    return replace(column, cells=tuple(f"{name}\n[{origin}]" if far else name for name, origin, far in cells))


def _row_class(method: str, frontier: bool) -> str:  # noqa: FBT001 - a cell of the table, not a switch
    return ' class="base"' if method == BASE else ' class="on-frontier"' if frontier else ""


def _head(column: Column) -> str:
    text = "<br>".join(html(line) for line in column.header if line) or FRONTIER
    kind = "number" if column.right else "text"
    return f'<th scope="col" data-kind="{kind}"><button class="{_side(column)}">{text}</button></th>'


def _side(column: Column) -> str:
    return "right" if column.right else "left"


def _cell(column: Column, number: int) -> str:
    text, value = column.cells[number], column.values[number]
    shown = text.replace(" [", "\n[") if column.right else text
    inner = "".join(_flag(flag) for flag in value) if column.name == "flags" else _two_lines(shown)
    key = "" if value is None else str(value) if column.right else text
    classes = f"{_side(column)} {'front' if column.name == 'frontier' else column.name}"
    return f'<td class="{classes}" data-sort="{html(key)}">{inner}</td>'


def _two_lines(text: str) -> str:
    """Set what stands after the first line (an interval, an origin) smaller below it."""
    first, more, rest = text.partition("\n")
    return f"{html(first)}<small>{html(rest)}</small>" if more else html(text)


def _flag(flag: str) -> str:
    return f'<span class="flag" title="{html(meaning(flag))}">{html(flag)}</span>'
