"""Entry points of what is installed, read so that one malformed file breaks only its own distribution."""

from __future__ import annotations

from importlib.metadata import Distribution, EntryPoints, distributions

_STRICT = Distribution.entry_points


def entry_points_of(distribution: Distribution) -> EntryPoints:
    """Return what `distribution` declares; whatever is wrong with its entry_points.txt is raised."""
    found: EntryPoints = _STRICT.fget(distribution)  # type: ignore[attr-defined]
    return found


def isolate_malformed() -> None:
    """Let a malformed entry_points.txt cost only its own distribution its entry points, in this process.

    `importlib.metadata.entry_points()` fails as a whole at one such file, and with it pydantic's first model,
    `import torch` and fsspec; their switches (PYDANTIC_DISABLE_PLUGINS, TORCH_DEVICE_BACKEND_AUTOLOAD) would take from
    them what is in order, and there is none for the third. So the reading itself is made to go on. That is for a
    program to do, not for a library: the command line calls this. Where every file can be read nothing is touched.
    """
    if any(_malformed(distribution) for distribution in distributions()):
        Distribution.entry_points = property(_readable)  # type: ignore[assignment, method-assign]


def _malformed(distribution: Distribution) -> bool:
    try:
        entry_points_of(distribution)
    except Exception:  # whatever a parser makes of what somebody else wrote
        return True
    return False


def _readable(distribution: Distribution) -> EntryPoints:
    return EntryPoints() if _malformed(distribution) else entry_points_of(distribution)
