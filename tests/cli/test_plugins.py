from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from unmemorize.errors import PluginError

Command = Callable[..., Result]


def test_a_plugin_file_is_shown_with_what_it_provides(run_command: Command) -> None:
    output = run_command("plugins", "--plugin", "third_party.py").output
    (row,) = [line for line in output.splitlines() if " third_party " in line]
    assert row.split()[:3] == ["ok", "third_party", "third_party.py"]
    assert "methods: prune; metrics: echo, sense; providers: clay, prune" in row


@pytest.mark.usefixtures("with_broken_plugin")
def test_a_broken_plugin_is_shown_with_error_and_fix(run_command: Command) -> None:
    output = run_command("plugins").output
    assert "broken" in output
    assert (
        "plugin 'shaky' (shaky 0.3) is broken\n"
        "  error: RuntimeError: boom\n"
        "  fix: pip install --upgrade shaky" in output
    )


@pytest.mark.usefixtures("with_broken_plugin")
def test_json_says_the_same(run_command: Command) -> None:
    infos = {info["name"]: info for info in json.loads(run_command("plugins", "--json").output)}
    shaky = infos["shaky"]
    assert (shaky["status"], shaky["distribution"], shaky["version"]) == ("broken", "shaky", "0.3")
    assert shaky["error"] == "RuntimeError: boom"


def test_a_name_that_two_register_is_shown(
    run_command: Command, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (workplace / "third_party.py").read_text()
    for name in ("left", "right"):
        info = workplace / f"{name}-1.dist-info"
        info.mkdir()
        (workplace / f"{name}_twin.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[unmemorize]\n{name} = {name}_twin\n")
    monkeypatch.setenv("UNMEMORIZE_PLUGINS", "left,right")
    monkeypatch.syspath_prepend(str(workplace))
    output = run_command("plugins").output
    assert (
        "the method name 'prune' cannot be used\n  error: registered by 'left' (left 1) and 'right' (right 1)" in output
    )
    assert "Not usable: the method 'prune', registered by 'left'" in run_command("list", "methods").output


def test_a_plugin_file_that_fails_is_an_error(run_command: Command, workplace: Path) -> None:
    (workplace / "bad.py").write_text("1 / 0")
    with pytest.raises(PluginError, match="ZeroDivisionError"):
        run_command("plugins", "--plugin", "bad.py")
