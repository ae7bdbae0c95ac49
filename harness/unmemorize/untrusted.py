"""Text that others wrote (records, plugins, models, files), as each medium may show it: never as markup or as codes."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from html import escape
from typing import Final

NAME: Final = 80
"""Characters that are shown of a name."""
SENTENCE: Final = 300
"""Characters that are shown of a setting or of a reason in a table or a list."""
TEXT: Final = 20_000
"""Characters that are shown of anything."""

_INVISIBLE: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\u2800")
"""Letters and marks that show nothing, beside the categories below."""
_ACTING: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Zl", "Zp"})
"""Unicode's categories of control, format (bidi, zero-width), unassigned, private, and separators of lines."""


class _Visible(dict[int, str]):
    """For `str.translate`: what acts or is not seen as JSON writes it, lone surrogates as U+FFFD."""

    def __missing__(self, number: int) -> str:
        char = chr(number)
        category = unicodedata.category(char)
        if category == "Cs":
            shown = "\ufffd"
        elif char not in "\n\t" and (category in _ACTING or char in _INVISIBLE or 0xE0100 <= number <= 0xE01EF):
            shown = json.dumps(char)[1:-1] if number > 0xFF else f"\\u{number:04x}"
        else:
            shown = char
        self[number] = shown
        return shown


_VISIBLE: Final = _Visible()


def plain(text: str, most: int = TEXT) -> str:
    """Return text that no terminal, editor or page takes for more than text; it keeps its new lines.

    What would act (control characters, escape sequences, bidi overrides) or not be seen (zero-width) is written as JSON
    writes it, `\\u202e`, so that JSON text stays the same JSON. Beyond `most` characters it says how many are left out.
    """
    shown = text.replace("\r\n", "\n")
    rest = len(shown) - most
    return shown[:most].translate(_VISIBLE) + (f"… (+{rest} characters)" if rest > 0 else "")


def line(text: str, most: int = SENTENCE) -> str:
    """Return text on one line, at most so many characters of it."""
    return plain(" ".join(text.split()), most)


def html(text: str) -> str:
    """Return text for a page, in an element or in a quoted attribute."""
    return escape(plain(text))


_MARKDOWN: Final = re.compile(
    r"""[\\`*_<>\[\]|~&#$]  # marks, HTML, entities, links, images, cells, headings, math
    | (?<=:)/(?=/)          # http://x and www.x become links by themselves
    | (?<=www)\.
    | (?<=^)[-+=](?=[-+=\s]|$)  # items of lists, rules
    | (?<=^\d)[.)](?=\s|$) | (?<=^\d\d)[.)](?=\s|$) | (?<=^\d{3})[.)](?=\s|$)
    """,
    re.VERBOSE | re.IGNORECASE,
)


def markdown(text: str, most: int = SENTENCE) -> str:
    """Return text for a line or a table's cell of GitHub-flavoured Markdown."""
    return _MARKDOWN.sub(lambda match: f"\\{match.group()}", line(text, most))


def code(text: str, most: int = SENTENCE) -> str:
    """Return text as code in a line of Markdown, whatever backticks are in it."""
    shown = line(text, most)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    return f"{fence}{shown}{fence}" if fence == "`" else f"{fence} {shown} {fence}"


_LATEX: Final = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
    "…": r"\dots{}",
    "◆": r"$\blacklozenge$",
}


def latex(text: str) -> str:
    """Return text for a LaTeX document."""
    return re.sub("|".join(map(re.escape, _LATEX)), lambda match: _LATEX[match.group()], line(text, TEXT))


_FORMULA: Final = re.compile(r"\s*[=+\-@＝＋－＠\t\r]")
_CELL: Final = 32_000
"""Characters that a cell of a spreadsheet holds."""


def cell(text: str) -> str:
    """Return text for a cell of a CSV file, so that no spreadsheet computes it; numbers stay numbers."""
    shown = line(text, _CELL)
    return f"'{shown}" if _FORMULA.match(shown) and not _is_number(shown) else shown


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def json_text(value: object, *, indent: int | None = None) -> str:
    """Return JSON in valid UTF-8, in which nothing acts on a terminal; what JSON does not know stands as text."""
    return json.dumps(value, indent=indent, ensure_ascii=False, default=str).translate(_VISIBLE)


_RESERVED: Final = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
_LONGEST: Final = 100
"""Bytes of a file's name, which leaves room for an ending."""


def file_name(name: str) -> str:
    """Return a name that stays in its folder on every system; names that differ get names that differ."""
    safe = re.sub(r"[^\w.=,\[\]-]+", "-", name).strip(".- ")
    if safe == name and safe and len(safe.encode()) <= _LONGEST and not _RESERVED.match(safe):
        return safe
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=4).hexdigest()
    start = safe.replace(".", "-").encode(errors="ignore")[: _LONGEST - len(digest) - 1].decode(errors="ignore")
    return f"{start or 'unnamed'}-{digest}"
