"""What the registry holds: entries by kind and name, and one line of facts about each plugin."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from unmemorize.results.record import PluginOrigin

Kind = Literal["method", "metric", "provider", "layout", "executor", "suite"]
KINDS: tuple[Kind, ...] = get_args(Kind)

RUNTIME = "runtime"
"""What stands where a plugin that a program registered itself has no distribution."""

HOOK_KINDS: dict[str, Kind] = {f"register_{kind}s": kind for kind in KINDS}
"""Which hook registers which kind."""


class Entry(NamedTuple):
    """One registered thing: a class, or the path of a suite."""

    kind: Kind
    name: str
    value: Any
    origin: PluginOrigin


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """One plugin as `unmemorize plugins` shows it."""

    name: str
    distribution: str
    version: str
    status: Literal["ok", "broken"] = "ok"
    provides: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Registered names by kind."""
    error: str = ""
    """Why it is broken: the error's type and message."""
    fix: str = ""
    """What to type to correct it."""
    notes: tuple[str, ...] = ()
    """What it changed for the whole process while it was loaded; all of it is undone."""

    @property
    def label(self) -> str:
        """Name, distribution and version, as errors quote them."""
        return label(self.name, self.distribution, self.version)


def label(name: str, distribution: str, version: str) -> str:
    """Return the words by which errors name a plugin."""
    return f"plugin {name!r} ({distribution} {version})"
