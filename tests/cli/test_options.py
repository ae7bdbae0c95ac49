from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from unmemorize.cli.options import SuiteChoice, names, reading_options, suite_options
from unmemorize.cli.screen import duration
from unmemorize.suite.model import RunSettings, Suite


def chosen(*arguments: str) -> Any:
    seen: list[Any] = []

    @click.command()
    @suite_options
    @click.option("--quiet", is_flag=True)
    def command(choice: SuiteChoice, quiet: bool) -> None:
        seen.append((choice, quiet))

    result = CliRunner().invoke(command, list(arguments))
    assert result.exit_code == 0, result.output
    return seen[0]


def test_nothing_but_the_suite() -> None:
    assert chosen("quick") == (SuiteChoice("quick"), False)


def test_every_option_beside_those_of_the_command() -> None:
    choice, quiet = chosen(
        "quick", "--set", "a=1", "--set", "b=2", "--methods", "x, y", "--metrics", "m",
        "--testbeds", "t[a=1,b=2],u", "--seeds", "0,2", "--plugin", "p.py",
        "--plugin", "q.py", "--results", "out", "--quiet",
    )  # fmt: skip
    assert quiet
    assert choice == SuiteChoice(
        suite="quick",
        overrides=("a=1", "b=2"),
        methods=("x", "y"),
        metrics=("m",),
        testbeds=("t[a=1,b=2]", "u"),
        seeds=(0, 2),
        plugins=(Path("p.py"), Path("q.py")),
        results=Path("out"),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", ("a",)),
        (" a , b,", ("a", "b")),
        ("t[layers=[0,1],size=x],u", ("t[layers=[0,1],size=x]", "u")),
        ("t[a=1],t[a=2]", ("t[a=1]", "t[a=2]")),
    ],
)
def test_lists_of_names(text: str, expected: tuple[str, ...]) -> None:
    assert names(text) == expected


def test_an_empty_list_of_names_is_refused() -> None:
    with pytest.raises(click.BadParameter):
        names(" , ")


def test_the_results_folder_is_named_after_the_suite() -> None:
    suite = Suite(
        name="mine", description="", seeds=(0,), memorization="a", utility="b", run=RunSettings(),
        files=(), testbeds=(), methods=(), metrics=(), path=None,
    )  # fmt: skip
    assert SuiteChoice("x").folder(suite) == Path("unmemorize-results/mine")
    assert SuiteChoice("x", results=Path("here")).folder(suite) == Path("here")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (42.4, "42 s"),
        (59.9, "60 s"),
        (190, "3 min 10 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("option", "least"), [("--text-length", 2), ("--text-rows", 1), ("--prompt", 1)])
def test_a_number_of_the_reading_starts_where_its_setting_does(option: str, least: int) -> None:
    @click.command()
    @reading_options
    def command(reading: dict[str, Any]) -> None:
        click.echo(str(reading))

    below, at = (CliRunner().invoke(command, [option, str(number)]) for number in (least - 1, least))
    assert f"{least - 1} is not in the range x>={least}" in below.output
    assert at.output == f"{{'{option[2:].replace('-', '_')}': {least}}}\n"
