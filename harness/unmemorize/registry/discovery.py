"""Where installed plugins are found: the entry points of the group `unmemorize`, one by one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import Distribution, distributions
from typing import NamedTuple

from unmemorize.errors import PluginError, UnknownNameError
from unmemorize.files.installed import entry_points_of
from unmemorize.registry.entries import label

GROUP = "unmemorize"
OWN_DISTRIBUTION = "unmemorize"
"""The distribution of the core itself; what it ships is loaded whatever UNMEMORIZE_PLUGINS says."""
RESTRICTION = "UNMEMORIZE_PLUGINS"

_FIX_RESTRICTION = f"correct {RESTRICTION} (`none`, or names from the list above), or unset it to load every plugin"


class Source(NamedTuple):
    """A plugin that is installed and not yet imported."""

    name: str
    distribution: str
    version: str
    load: Callable[[], object]
    """Imports the plugin; may raise anything."""

    @property
    def own(self) -> bool:
        """Whether the core's own distribution ships it."""
        return is_own(self.distribution)

    @property
    def label(self) -> str:
        """Name, distribution and version, as errors quote them."""
        return label(self.name, self.distribution, self.version)


def is_own(distribution: str) -> bool:
    """Return whether `distribution` is the core's own."""
    return normalized(distribution) == OWN_DISTRIBUTION


def normalized(distribution: str) -> str:
    """Return a distribution's name as installers compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def installed() -> Iterator[Source]:
    """Yield every installed plugin, the first of each distribution's copies on the path.

    Distributions are read one at a time: `importlib.metadata.entry_points()` fails as a whole at one
    malformed file.
    """
    seen: set[str] = set()
    for distribution in distributions():
        if f"[{GROUP}]" not in _entry_points_text(distribution).replace(" ", ""):
            continue
        name, version = _identity(distribution)
        if normalized(name) not in seen:
            seen.add(normalized(name))
            yield from _sources(distribution, name, version)


def chosen(sources: Iterable[Source], restriction: str | None) -> list[Source]:
    """Return the sources that `restriction` (the value of UNMEMORIZE_PLUGINS) lets in.

    Nothing or an empty text lets everything in, `none` only what the core ships, and a comma list of plugin
    or distribution names these and what the core ships.

    Raises:
        UnknownNameError: the list names something that is not installed.
    """
    found = list(sources)
    wanted = [part.strip() for part in (restriction or "").split(",") if part.strip()]
    if not wanted:
        return found
    if wanted == ["none"]:
        return [source for source in found if source.own]
    for name in wanted:
        if not any(_matches(source, name) for source in found):
            known = {source.name for source in found} | {source.distribution for source in found}
            raise UnknownNameError("installed plugin", name, known, where=RESTRICTION, fix=_FIX_RESTRICTION)
    return [source for source in found if source.own or any(_matches(source, name) for name in wanted)]


def _matches(source: Source, name: str) -> bool:
    return name == source.name or normalized(name) == normalized(source.distribution)


def _identity(distribution: Distribution) -> tuple[str, str]:
    try:
        return distribution.metadata["Name"] or "unknown", distribution.version or "unknown"
    except Exception:  # metadata that cannot be read belongs to one plugin and must not stop the others
        return "unknown", "unknown"


def _entry_points_text(distribution: Distribution) -> str:
    try:
        return distribution.read_text("entry_points.txt") or ""
    except (OSError, ValueError):  # not even text: nobody can say that it is a plugin of ours
        return ""


def _sources(distribution: Distribution, name: str, version: str) -> Iterator[Source]:
    try:
        points = list(entry_points_of(distribution).select(group=GROUP))
    except Exception as error:  # a malformed entry_points.txt breaks this distribution only
        yield Source(name, name, version, _raising(error, name))
        return
    for point in points:
        yield Source(point.name, name, version, point.load)


def _raising(error: Exception, distribution: str) -> Callable[[], object]:
    def load() -> object:
        raise PluginError(
            f"the entry points of {distribution} cannot be read: {error}",
            expected=f"lines like `name = module` under [{GROUP}]",
            fix=f"write [project.entry-points.{GROUP}] in its pyproject.toml, and install it again",
        ) from error

    return load
