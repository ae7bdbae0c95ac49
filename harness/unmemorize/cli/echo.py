"""How commands say something: text that others wrote has a part in most of it, so all of it is shown as text."""

from __future__ import annotations

from typing import Any

import click

from unmemorize.untrusted import plain


def echo(text: object = "", *, lead: str = "", err: bool = False, **style: Any) -> None:
    """Print text in which nothing acts on the terminal.

    Args:
        text: what is said.
        lead: words in front of it.
        err: whether it goes to standard error.
        style: as for `click.style`: how the lead is shown, or the text where there is none.
    """
    said, before = plain(str(text)), plain(lead)
    before, said = (click.style(before, **style), said) if lead else ("", click.style(said, **style))
    click.echo(before + said, err=err)
