"""What is published (records, cards, reports, exports), without homes, users, absolute paths and tokens."""

from __future__ import annotations

import getpass
import os
import re
import socket
import sysconfig
from collections.abc import Mapping
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, cast

_Value = TypeVar("_Value")

_SECRET_NAME: Final = re.compile(r"token|secret|passw|credential|(api|access|private)_?key", re.IGNORECASE)
_SECRETS: Final = re.compile(r"(?<=://)[^\s/@\"']+(?=@)|\bhf_[A-Za-z0-9]{8,}")
"""Who logs in at an address, and tokens of the Hugging Face hub."""
_ROOT: Final = r"(?<![\w:/.~…\\)\]-])(?:[A-Za-z]:[\\/]|/)"
_ELSEWHERE: Final = re.compile(
    rf"""(?P<quote>["'])(?:[A-Za-z]:[\\/]|/)[^"'\n]*[\\/](?P<quoted>[^"'\n\\/]*)(?P=quote)
    | {_ROOT}(?:home|Users)[\\/][^\s\\/"':,;()<>]+(?P<home>)(?![\\/\w])
    | {_ROOT}(?:[^\s"'<>|:,;()\\/]+[\\/])+(?P<bare>[^\s"'<>|:,;()\\/]*)""",
    re.VERBOSE,
)
"""An absolute path: in quotes, somebody's home, or as a word."""


class _Hidden(NamedTuple):
    """What this process must not give away."""

    home: str
    secrets: tuple[str, ...]
    user: str | None
    """The user's name, where paths are kept whole but for it; None where their last part is all that is kept."""


def public(value: _Value, *, whole_paths: bool = False) -> _Value:
    """Return texts, and lists and tables of them, as they may be published; other values as they are.

    The home folder becomes `~`, files of installed packages start with the package's name, of any other absolute path
    its last part is left; with `whole_paths`, all of it but the user's name and what names a home. Tokens of the
    environment and in addresses, and this machine's name, are hidden. Lone surrogates, which no file in UTF-8 can
    hold, become U+FFFD.
    """
    secrets = [text for name, text in os.environ.items() if _SECRET_NAME.search(name) and _is_secret(text, 8)]
    host = socket.gethostname()
    found = (*sorted(secrets, key=len, reverse=True), *[host] * _is_secret(host, 6))
    hidden = _Hidden(os.path.expanduser("~"), found, _user() if whole_paths else None)
    return cast("_Value", _public(value, hidden))


def _is_secret(text: str, least: int) -> bool:
    """Whether a text is long and strange enough that it occurs nowhere by chance."""
    return len(text) >= least and not text.isdigit() and (not text.isalpha() or len(text) >= 2 * least)


def _public(value: Any, hidden: _Hidden) -> Any:
    if isinstance(value, str):
        return _text(value, hidden)
    if isinstance(value, Mapping):
        return {_public(name, hidden): _public(inner, hidden) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_public(inner, hidden) for inner in value]
    return value


def _text(text: str, hidden: _Hidden) -> str:
    for secret in hidden.secrets:
        text = text.replace(secret, "[hidden]")
    if not text.isascii():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = _SECRETS.sub("[hidden]", text)
    if "/" not in text and "\\" not in text:
        return text
    for place, instead in _places(hidden.home):
        text = place.sub(instead, text)
    if hidden.user is not None:
        return _ELSEWHERE.sub(partial(_without_user, hidden.user), text)
    if os.path.isabs(text) and "\n" not in text and os.path.exists(text):
        return f"…/{os.path.basename(text.rstrip('/'))}"  # a name with spaces would end early below
    return _ELSEWHERE.sub(_last, text)


@lru_cache(maxsize=8)
def _places(home: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    """Return the places that have a name of their own, and that name: inner ones first."""
    installed = sysconfig.get_paths()
    packages = [str(Path(__file__).parents[2]), *(installed[name] for name in ("purelib", "platlib", "stdlib"))]
    inner = sorted({form for place in packages for form in (place, os.path.realpath(place))}, key=len)
    homes = {form for form in (home, os.path.realpath(home)) if len(Path(form).parts) > 1}
    named = [(rf"{re.escape(place)}[\\/]", "") for place in reversed(inner)]
    named += [(rf"{re.escape(place)}(?![\w.-])", "~") for place in sorted(homes, key=len, reverse=True)]
    return tuple((re.compile(rf"(?<![\w.~])(?<![\w.]/){pattern}"), instead) for pattern, instead in named)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without an entry for its user
        return ""


def _without_user(user: str, match: re.Match[str]) -> str:
    """Return an absolute path without the parts that name a user."""
    if match["home"] is not None:
        return "…"
    parts = re.split(r"([\\/])", match[0])
    names = {user, *(after for before, after in pairwise(parts[::2]) if before in ("home", "Users"))} - {""}
    return "".join("…" if part in names else part for part in parts)


def _last(match: re.Match[str]) -> str:
    """Return what is left of an absolute path."""
    if match["home"] is not None:
        return "…"
    mark = match["quote"] or ""
    return f"{mark}…/{match['quoted'] if mark else match['bare']}{mark}"
