"""Docstrings as Markdown: prose, and what stands under Args, Returns, Yields and Raises, item by item."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import NamedTuple

_TITLES = re.compile(r"(Args|Returns|Yields|Raises):")
_ITEM = re.compile(r"([\w*.`]+): (.*)", re.DOTALL)


class Part(NamedTuple):
    """A paragraph, or what stands under a title."""

    title: str
    """Empty for a paragraph of prose."""
    items: list[str]


def parts(doc: str | None) -> Iterator[Part]:
    """Yield the parts of a docstring in their order."""
    lines = inspect.cleandoc(doc or "").splitlines()
    while lines:
        title = _TITLES.fullmatch(lines[0])
        inside = (lambda line: not line or line.startswith(" ")) if title else bool
        size = next((n for n, line in enumerate(lines) if n > 0 and not inside(line)), len(lines))
        block, lines = "\n".join(lines[:size]), lines[size:]
        if title:
            yield Part(title[1], [_flat(item) for item in re.split(r"\n {4}(?! )", block)[1:]])
        elif block:
            yield Part("", [block])
        while lines and not lines[0]:
            lines = lines[1:]


def described(doc: str | None) -> str:
    """Return a docstring as Markdown; an indented block, a formula, is left as it is."""
    return "\n\n".join(_block(part) for part in parts(doc)) + "\n"


def inline(doc: str | None) -> str:
    """Return a docstring as one line."""
    return " ".join(_flat(part.items[0]) if not part.title else _listed(part) for part in parts(doc))


def _block(part: Part) -> str:
    if part.title:
        return f"{part.title}:\n\n" + "\n".join(f"- {_item(item)}" for item in part.items)
    text = part.items[0]
    return text if re.search(r"^ ", text, flags=re.MULTILINE) else _flat(text)


def _listed(part: Part) -> str:
    return f"**{part.title}** " + " ".join(_item(item) for item in part.items)


def _item(item: str) -> str:
    named = _ITEM.fullmatch(item)
    return f"`{named[1].strip('`')}`: {named[2]}" if named else item


def _flat(text: str) -> str:
    return " ".join(text.split())
