"""Fake installed distributions, as pip would leave them on the path."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_METHOD = """
from unmemorize.registry.hookspecs import hookimpl
from unmemorize.contracts.method import Method

class Thing(Method):
    "A thing."
    name = "NAME"
    stage = "unlearn"
    def apply(self, testbed, context): ...

@hookimpl
def register_methods():
    return [Thing]
"""

Install = Callable[..., Path]


@pytest.fixture
def method_source() -> Callable[[str], str]:
    """The source of a plugin that registers one method of the given name."""
    return lambda name: _METHOD.replace("NAME", name)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a module as a distribution with entry points; nothing else is installed beside it."""
    before = set(sys.modules)
    monkeypatch.delenv("UNMEMORIZE_PLUGINS", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def installed(
        distribution: str,
        source: str,
        *,
        version: str = "1.2",
        module: str | None = None,
        entry_points: str | None = None,
    ) -> Path:
        module = module or distribution.replace("-", "_")
        folder = tmp_path / f"site-{distribution}"
        info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (folder / f"{module}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        points = f"[unmemorize]\n{module} = {module}\n" if entry_points is None else entry_points
        (info / "entry_points.txt").write_text(points)
        monkeypatch.syspath_prepend(str(folder))
        importlib.invalidate_caches()
        return folder

    yield installed
    for name in set(sys.modules) - before:
        origin = getattr(sys.modules[name], "__file__", None) or ""
        if str(tmp_path) in origin:
            del sys.modules[name]
