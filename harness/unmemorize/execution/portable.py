"""Take the plugins of one process to another."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NamedTuple

from unmemorize.errors import ConfigError, said_by
from unmemorize.registry.discovery import is_own
from unmemorize.registry.entries import Kind
from unmemorize.registry.manager import Registry


class PortablePlugins(NamedTuple):
    """What another process needs to have the plugins of a registry."""

    installed: str | None
    """Which installed plugins are loaded, as UNMEMORIZE_PLUGINS says it; none at all where it is None."""
    files: tuple[Path, ...]
    objects: bytes
    """Pickled: the plugins that were registered as objects, with their names."""
    modules: tuple[str, ...]
    """Where the built-in plugins are, which are safe to import early."""

    @classmethod
    def none(cls) -> PortablePlugins:
        """Return what no process needs: that which shares them with this one."""
        return cls(None, (), b"", ())

    @classmethod
    def of(cls, registry: Registry) -> PortablePlugins:
        """Pack the plugins of a registry; one that only follows runs stays where it is.

        Raises:
            ConfigError: an object cannot be taken to another process.
        """
        objects = [(info, plugin) for info, plugin in registry.objects() if any(info.provides.values())]
        packed = [(info.name, info.distribution, info.version, _pickled(info.name, plugin)) for info, plugin in objects]
        return cls(registry.restriction, registry.files, _dumps(packed), _own_modules(registry))

    def load(self) -> Registry:
        """Load them here."""
        registry = Registry() if self.installed is None else Registry.load(self.installed)
        for name, distribution, version, plugin in pickle.loads(self.objects):  # noqa: S301 - packed by our own parent
            registry.add(pickle.loads(plugin), name=name, distribution=distribution, version=version)  # noqa: S301
        for file in self.files:
            registry.add_file(file)
        return registry


def _own_modules(registry: Registry) -> tuple[str, ...]:
    kinds: tuple[Kind, ...] = ("method", "metric", "provider")
    named = [(kind, name) for kind in kinds for name in registry.names(kind)]
    own = [registry.get(*each) for each in named if is_own(registry.origin(*each).distribution)]
    return tuple(sorted({plugin.__module__ for plugin in own}))


def _pickled(name: str, plugin: object) -> bytes:
    try:
        return _dumps(plugin)
    except Exception as error:  # whatever an object's own pickling raises
        raise ConfigError(
            f"the plugin {name!r}, an object of this process, cannot be sent to a worker process: "
            f"{type(error).__name__}: {said_by(error)}",
            expected="plugins from files or installed packages, objects that pickle, or the inline executor",
            fix="pass plugins=['my_plugin.py'], or use executor='inline'",
        ) from error


def _dumps(value: Any) -> bytes:
    import cloudpickle

    pickled: bytes = cloudpickle.dumps(value)
    return pickled
