"""The conventions of the project: style, types, directions of import, instant help, a core that names no plugin."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"], ["lint-imports"]]
)
def test_checks_pass(command: list[str]) -> None:
    program = shutil.which(command[0], path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip(f"{command[0]} is not installed; pip install -e '.[dev]'")
    done = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def seconds(*command: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True, cwd=ROOT)
    return time.perf_counter() - begin


def test_help_is_instant() -> None:
    # In turns, so that what else the machine does is shared; the fastest of each.
    runs = [(seconds("-c", "import click"), seconds("-m", "unmemorize", "--help")) for _ in range(4)]
    bare, full = (min(times) for times in zip(*runs, strict=True))
    assert full < 4 * bare + 0.1


READING = """
import importlib, sys
for name in ("", ".cli.board", ".leaderboard.board", ".registry", ".suite", ".results.store", ".execution.plan"):
    module = importlib.import_module("unmemorize" + name)
    if name == ".registry":
        module.Registry()
    assert not {"torch", "transformers"} & sys.modules.keys(), name
"""


def test_rooms_that_only_read_never_import_torch() -> None:
    subprocess.run([sys.executable, "-c", READING], check=True, cwd=ROOT)


def test_importing_has_no_effect_on_random_state() -> None:
    code = (
        "import random, torch; a, b = random.getstate(), torch.get_rng_state();"
        "import unmemorize; [getattr(unmemorize, name) for name in unmemorize.__all__];"
        "import unmemorize_plugins as p; p.register_methods(), p.register_metrics(), p.register_providers();"
        "assert random.getstate() == a and torch.equal(torch.get_rng_state(), b)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_core_never_names_a_built_in() -> None:
    import unmemorize_plugins as built_in
    from unmemorize.contracts.testbed import NEEDS

    names = [
        cls.name
        for cls in [
            *built_in.register_methods(),
            *built_in.register_metrics(),
            *built_in.register_providers(),
            *built_in.register_executors(),
        ]
    ]
    for path in (ROOT / "harness/unmemorize").rglob("*.py"):
        text = path.read_text()
        for name in set(names) - {*NEEDS, "perplexity"}:  # sets of sequences, and a column of every board
            quoted = [quote + name + quote for quote in "'\""]
            lines = [
                line
                for line in text.splitlines()
                if any(q in line for q in quoted) and "fix=" not in line and '"""' not in line
            ]
            assert not lines, f"{path.name} names {name}: {lines}"


PRIVATE_WORDS = re.compile(
    r"\brecit(e|es|ed|ing|als?|ations?)\b|\bof the house\b|\b(public|same|two) doors?\b|\brooms\b|\bwaiting place\b"
    r"|\bmanners\b|\bphotograph|\bmend(s|ed|ing)?\b|\bfurnish|\bfed\b|\bput(s|ting)? ([\w`]+ ){0,4}back\b"
    r"|\blikes\b|\bwishes\b|\bstranger|\bspeaks?\b|\bspoken\b|\bt(ell|ells|old|elling) ([\w`]+ ){0,4}apart\b"
    r"|\bwhoever\b|\bloudest\b|\bnobody described\b|\bmodels? says?\b|\bforced alone\b|\bearlier code\b",
    flags=re.IGNORECASE,
)


def test_the_words_are_those_of_the_field() -> None:
    kinds = {".py", ".pyi", ".md", ".toml", ".txt"}
    paths = [path for folder in ("harness", "plugins", "docs", "tests") for path in (ROOT / folder).rglob("*")]
    texts = [path for path in [*ROOT.glob("*.*"), *paths] if path.suffix in kinds and path != Path(__file__)]
    assert len(texts) > 400
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in texts
        for match in PRIVATE_WORDS.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not found


def test_no_class_name_occurs_twice_in_the_core() -> None:
    nodes = (node for path in (ROOT / "harness").rglob("*.py") for node in ast.walk(ast.parse(path.read_text("utf-8"))))
    counted = Counter(node.name for node in nodes if isinstance(node, ast.ClassDef))
    assert [name for name, count in counted.items() if count > 1] == []
