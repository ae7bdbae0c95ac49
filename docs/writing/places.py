"""Pages written by hand, and what fills the places in them: templates, contracts, what a command prints."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from click.testing import CliRunner

import unmemorize
from unmemorize import cli
from unmemorize.data.reader import KINDS
from unmemorize.data.row_source import FIELDS
from unmemorize.data.settings import SequenceSettings
from unmemorize.registry.files import read_plugin
from unmemorize.scaffold import PackagePlan, write_package
from writing.api import members_table
from writing.code import text_of
from writing.markdown import code, fenced, filled, table
from writing.plugins import settings

PAGES = ("docs/data.md", "docs/your_method.md", "docs/contracts.md", "docs/comparing.md")
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def filled_page(page: str) -> str:
    """Return a page with its places filled."""
    return filled(page, MAKERS)


def _template(stage: str) -> str:
    """Return the one module of a new method of a stage."""
    plan = PackagePlan("method", "my_method", stage)
    with tempfile.TemporaryDirectory() as folder:
        write_package(plan, Path(folder))
        return fenced((Path(folder) / f"{plan.module}.py").read_text(encoding="utf-8"), "python")


def _members(name: str) -> str:
    """Return the members of a public class, inherited ones too."""
    return members_table(getattr(unmemorize, name), inherited=True)


def _printed(command: str) -> str:
    """Return a command of the terminal and what it prints when typed in docs/examples."""
    program, *arguments = shlex.split(command)
    assert program == "unmemorize", command
    before = Path.cwd()
    os.chdir(EXAMPLES)
    try:
        done = CliRunner().invoke(cli.group, arguments, catch_exceptions=False)
    finally:
        os.chdir(before)
    return fenced(f"$ {command}\n{done.output.strip(chr(10))}")


def _example(argument: str) -> str:
    """Return one class of an example plugin."""
    module, name = argument.split()
    return fenced(text_of(getattr(read_plugin(EXAMPLES / f"{module}.py").run(), name)), "python")


def _data(what: str) -> str:
    """Return what sequences may come in, what a row may say, or how rows are read."""
    if what == "kinds":
        return "\n".join(f"- {kind}" for kind in KINDS)
    if what == "fields":
        return table(("field", "meaning"), [(code(name), meaning) for name, meaning in FIELDS.items()])
    return settings(SequenceSettings)


MAKERS: Mapping[str, Callable[[str], str]] = {
    "template": _template,
    "members": _members,
    "data": _data,
    "printed": _printed,
    "example": _example,
}
