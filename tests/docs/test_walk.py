"""The walk of docs/your_method.md: what it shows is what the commands print now, as far as that is cheap to see."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from unmemorize import cli
from unmemorize.scaffold import PackagePlan, write_package
from unmemorize.testing import RULES

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "your_method.md").read_text(encoding="utf-8")


def _walk() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_walk", DOCS / "walk.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WALK = _walk()
OUTPUTS = {block.commands: block.output for block in WALK.blocks(PAGE)}


def test_every_command_that_prints_something_has_its_output() -> None:
    assert len(OUTPUTS) == 6
    assert [commands for commands, output in OUTPUTS.items() if output is None] == [
        "cd unmemorize-my-method\npip install -e '.[test]'\n"
    ]


def test_the_output_of_new_is_what_new_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.group, ["new", "method", "my_method"], catch_exceptions=False)
    assert OUTPUTS["unmemorize new method my_method\n"] == done.output, "run `python docs/walk.py`"


def test_every_piece_that_is_explained_stands_in_the_code(tmp_path: Path) -> None:
    write_package(PackagePlan("method", "my_method"), tmp_path)
    code = (tmp_path / "unmemorize_my_method.py").read_text()
    table = PAGE.partition("| code | what it does |")[2].partition("\n\n")[0]
    quoted = re.findall(r"^\| `([^`]+)` \|", table, flags=re.MULTILINE)
    assert len(quoted) >= 8
    assert not [quote for quote in quoted if quote not in code]


def test_the_shown_check_went_through_every_rule_there_is() -> None:
    lines = (OUTPUTS["unmemorize check my_method\n"] or "").splitlines()
    rules = {rule.name: rule.statement for rule in RULES["method"]}
    shown = [re.match(r"  (passed|warning|excused|not applicable|failed) +(\w+) +(.*)", line) for line in lines]
    named = [(match[1], match[2], match[3]) for match in shown if match]
    assert list(dict.fromkeys(name for _, name, _ in named)) == list(rules), "run `python docs/walk.py`"
    assert all(text == rules[name] for status, name, text in named if status == "passed"), "run `python docs/walk.py`"
    assert not [name for status, name, _ in named if status == "failed"]


def test_the_shown_board_names_where_the_row_is_from() -> None:
    (run,) = [output for commands, output in OUTPUTS.items() if commands.startswith("unmemorize run ")]
    (table,) = [output for commands, output in OUTPUTS.items() if commands.startswith("unmemorize board ")]
    assert run is not None
    assert "my_method comes from unmemorize-my-method 0.1.0." in run
    assert "0 failed" in run
    assert table is not None
    assert "unmemorize-my-method 0.1.0" in table


def test_commands_are_typed_where_the_last_ones_ended(tmp_path: Path) -> None:
    place = WALK.Place(tmp_path)
    page = "```sh\nmkdir a && cd a\n```\n\n```sh\npwd\n```\n\n<!-- output -->\n<!-- end -->\n\nend\n"
    walked = WALK.walked(page, place)
    assert walked == page.replace("<!-- output -->\n", f"<!-- output -->\n```\n{tmp_path / 'work' / 'a'}\n```\n")
    assert WALK.walked(walked, WALK.Place(_folder(tmp_path / "again"))).count("```") == walked.count("```")
    assert WALK.blocks(walked)[1].output == f"{tmp_path / 'work' / 'a'}\n"


def test_a_command_that_fails_ends_the_walk(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="ended with 3"):
        WALK.walked("```sh\nexit 3\n```\n", WALK.Place(tmp_path))


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
