"""The page about the command line, in a form of its own: click wraps its help differently from version to version."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import click

from unmemorize import cli
from writing.markdown import NOTE, cell, code, fenced, table


def command_line_page() -> str:
    """Every command: how it is called, what it does, its options."""
    context = click.Context(cli.group, info_name="unmemorize")
    parts = [
        "# The command line\n",
        f"{_text(cli.group)}\n",
        _options(cli.group, context),
        table(("command", "what it does"), [(f"[{name}](#{name})", text) for name, text in cli.COMMANDS.items()]),
        "A user's error is printed in three parts (what, expected, fix) and ends with status 2; with status 1 where "
        "the work is done and kept, and something of it failed or could not be written. A bug ends with 70, Ctrl-C "
        "with 130. Files and folders are written beside their place and renamed: after a kill or on a full disk, what "
        "stood there is as it was, and nothing half-written stands under a final name. A place that cannot be written "
        "is refused before anything is computed. If the disk fills up meanwhile, a model that was edited is saved to "
        "`unsaved/` in the cache folder instead.\n",
    ]
    for name in cli.COMMANDS:
        command = cli.group.get_command(context, name)
        assert command is not None
        usage = " ".join(["unmemorize", name, *_arguments(command), "[OPTIONS]"])
        parts += [f"## {name}\n", fenced(usage), f"{_text(command)}\n", _options(command, context)]
    return NOTE + "\n".join(part for part in parts if part)


def _text(command: click.Command) -> str:
    """Return what a command's help says, one paragraph a line."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _arguments(command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            yield parameter.metavar or str(parameter.name).upper()


def _options(command: click.Command, context: click.Context) -> str:
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    rows = [(_spelling(option), cell(option.help or ""), _default(option, context)) for option in options]
    return table(("option", "meaning", "default"), rows)


def _spelling(option: click.Option) -> str:
    names = ", ".join(option.opts) + "".join(f"/{name}" for name in option.secondary_opts)
    return code(names if option.is_flag else f"{names} {option.metavar or _value(option.type)}")


def _value(kind: Any) -> str:
    """Return what may stand after an option."""
    if isinstance(kind, click.Choice):
        return "|".join(map(str, kind.choices))
    if isinstance(kind, (click.IntRange, click.FloatRange)):
        ends = [(kind.min, ">" if kind.min_open else ">="), (kind.max, "<" if kind.max_open else "<=")]
        limits = " and ".join(f"{sign} {end:g}" for end, sign in ends if end is not None)
        return f"NUMBER ({limits})" if limits else "NUMBER"
    if isinstance(kind, click.Path):
        return "FOLDER" if not kind.file_okay else "FILE" if not kind.dir_okay else "PATH"
    return "NUMBER" if kind in (click.INT, click.FLOAT) else "TEXT"


def _default(option: click.Option, context: click.Context) -> str:
    return code(str(option.get_default(context, call=False))) if option.show_default else ""
