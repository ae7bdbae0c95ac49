"""Numbers as a reader wants them: few digits, a unit where it helps, a dash where there is none."""

from __future__ import annotations

import json
from typing import Final

from unmemorize.untrusted import line

NONE: Final = "–"


HUGE: Final = 1e5
"""From here on a number's size is all that it says: the perplexity of a destroyed model has no end."""


def number(value: float | None, digits: int = 1) -> str:
    """Return a number with a fixed count of digits after the point, a huge one as a power of ten."""
    if value is None:
        return NONE
    if abs(value) >= HUGE:
        return f"{value:.1e}".replace("e+0", "e").replace("e+", "e")
    # Rounding must not leave a minus sign on zero.
    return f"{round(value, digits) + 0.0:,.{digits}f}"


def with_interval(value: float | None, low: float | None, high: float | None, digits: int = 1) -> str:
    """Return a number and its interval: `4.0 [1.1, 13.5]`."""
    if value is None or low is None or high is None:
        return number(value, digits)
    return f"{number(value, digits)} [{number(low, digits)}, {number(high, digits)}]"


def seconds(value: float | None) -> str:
    """Return seconds with the digits that matter."""
    if value is None:
        return NONE
    return number(value, 2 if value < 10 else 1 if value < 100 else 0)


def gibibytes(size: float | None) -> str:
    """Return bytes in GiB."""
    return NONE if size is None else number(size / 2**30, 2)


def percent(share: float | None) -> str:
    """Return a share in percent with three significant digits."""
    return NONE if share is None else f"{float(f'{100 * share:.3g}'):g}"


def config(text: str) -> str:
    """Return a configuration, given as JSON, in one line: `ratio=0.01 scope=layer`."""
    settings = json.loads(text)
    return line(" ".join(f"{key}={_setting(value)}" for key, value in settings.items())) or NONE


def _setting(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
