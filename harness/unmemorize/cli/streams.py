"""Standard streams that take whatever is printed: closed ones, ones of few letters, and ones that nobody reads."""

from __future__ import annotations

import os
import shutil
import sys
from io import TextIOWrapper

NARROWEST, WIDEST = 40, 1000
"""Columns of a window, whatever COLUMNS says."""


def open_streams() -> None:
    """Put the null device in place of closed standard streams, and `?` in place of letters that they do not have.

    A file that is opened while a standard stream is closed would else be printed into.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            _close(number)
            stream = open(number, "w" if number else "r", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, TextIOWrapper):
            output.reconfigure(errors="replace")


def silence() -> None:
    """Send what is still to be written on standard output and error nowhere: nobody reads it any more."""
    for number, stream in ((1, sys.__stdout__), (2, sys.__stderr__)):
        if stream is getattr(sys, "stdout" if number == 1 else "stderr"):
            _close(number)


def _close(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)


def window_width(otherwise: int) -> int:
    """Return the columns of the window, or `otherwise` where there is none."""
    return max(NARROWEST, min(shutil.get_terminal_size((otherwise, 24)).columns, WIDEST))
