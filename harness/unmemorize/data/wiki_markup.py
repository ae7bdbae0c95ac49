"""Plain text out of a MediaWiki dump: the articles, without their mark-up."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import IO
from xml.etree import ElementTree

_INNERMOST = re.compile(r"\{\{[^{}]*\}\}|\{\|(?:(?!\{\||\|\}).)*\|\}", re.DOTALL)
"""A template or a table that holds no other."""
_STEPS = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE | re.MULTILINE), by)
    for pattern, by in (
        (r"<!--.*?-->", ""),
        (r"<(ref|math|gallery|timeline|code|nowiki)\b[^>]*/>", ""),
        (r"<(ref|math|gallery|timeline|code)\b.*?</\1>", ""),
        (r"</?[a-z][^>]*>", ""),
    )
)
_LINKS = tuple(
    (re.compile(pattern, re.MULTILINE | re.IGNORECASE), by)
    for pattern, by in (
        (r"\[\[(?:file|image|category|[a-z-]{2,12}):[^\[\]]*(?:\[\[[^\[\]]*\]\][^\[\]]*)*\]\]", ""),
        (r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]", r"\1"),
        (r"\[https?:[^\s\]]*\s*([^\]]*)\]", r"\1"),
        (r"'{2,5}", ""),
        (r"^=+\s*(.*?)\s*=+\s*$", r"\1"),
        (r"^[*#:;]+\s*", ""),
        (r"^\s*[|!].*$", ""),
        (r"[ \t]+", " "),
        (r"\n\s*\n\s*", "\n\n"),
    )
)


def articles(dump: IO[bytes]) -> Iterator[str]:
    """Yield the text of each article of a dump, in its order; redirects and talk pages are left out."""
    # A dump is a corpus that the user chose; the parser reads no external entities.
    for _, element in ElementTree.iterparse(dump):  # noqa: S314
        if element.tag.rpartition("}")[2] == "page":
            namespace, text = element.findtext("{*}ns"), element.findtext(".//{*}text") or ""
            if namespace in (None, "0") and not text.lower().startswith("#redirect"):
                yield plain(text)
            element.clear()


def plain(markup: str) -> str:
    """Return the text of a page without templates, tables, references, links and emphasis."""
    text = html.unescape(markup)
    for pattern, by in _STEPS:
        text = pattern.sub(by, text)
    found = 1
    while found:
        text, found = _INNERMOST.subn("", text)
    for pattern, by in _LINKS:
        text = pattern.sub(by, text)
    return text.strip()
