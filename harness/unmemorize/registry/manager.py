"""The registry: every plugin that is loaded, every one that is broken, and look-up by explicit name."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from unmemorize.errors import (
    BrokenPluginError,
    LayoutError,
    NameCollisionError,
    PluginError,
    UnknownNameError,
)
from unmemorize.registry.admission import Admitted, admit, broken_info
from unmemorize.registry.discovery import RESTRICTION, Source, chosen, installed, is_own
from unmemorize.registry.entries import KINDS, RUNTIME, Entry, Kind, PluginInfo
from unmemorize.registry.files import FilePlugin, read_plugin
from unmemorize.registry.hookspecs import CellEvent
from unmemorize.registry.isolation import LOADING, isolated_call
from unmemorize.registry.trackers import tell, warn
from unmemorize.results.record import PluginOrigin

if TYPE_CHECKING:
    from unmemorize.contracts.executor import ExecutorFactory
    from unmemorize.contracts.layout import Layout
    from unmemorize.contracts.method import Method
    from unmemorize.contracts.provider import ModelProvider
    from unmemorize.evaluation.metric import Metric


class Collision(NamedTuple):
    """A name that two installed plugins register, and that nobody can use therefore."""

    kind: Kind
    name: str
    origins: tuple[str, ...]


class Registry:
    """The plugin manager.

    `Registry.load()` loads what is installed; `Registry()` is empty, for tests. Plugins join later with `add`
    and `add_file`, and leave with `remove`.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Admitted] = {}
        self._broken: list[PluginInfo] = []
        self._files: dict[Path, FilePlugin] = {}
        self._warned: set[str] = set()
        self._added: set[str] = set()
        self._restriction: str | None = None

    @classmethod
    def load(cls, restrict: str | None = None) -> Registry:
        """Load every installed plugin that `restrict` lets in; one that fails is shown as broken.

        Args:
            restrict: `none` (only what the core ships), a comma list of plugin or distribution names, or an
                empty text for all; the environment variable UNMEMORIZE_PLUGINS where it is not given.

        Raises:
            UnknownNameError: `restrict` names something that is not installed.
        """
        registry = cls()
        registry._restriction = os.environ.get(RESTRICTION, "") if restrict is None else restrict
        for source in chosen(installed(), registry._restriction):
            registry._load_source(source)
        return registry

    def _load_source(self, source: Source) -> None:
        about = PluginInfo(source.name, source.distribution, source.version)
        try:
            with isolated_call(LOADING) as changes:
                loaded = self._admit(source.load(), about)
            self._join(f"{source.distribution}:{source.name}", _noted(loaded, changes))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # one broken plugin must not stop the others
            self._broken.append(broken_info(about, error))

    def add(
        self, plugin: object, *, name: str | None = None, distribution: str = RUNTIME, version: str = "0"
    ) -> PluginInfo:
        """Add a plugin (a module, or any object with marked hooks) that Python already holds.

        Raises:
            PluginError: it breaks a rule; nothing of it stays registered.
            NameCollisionError: it registers a name that is taken.
        """
        about = PluginInfo(name or _name_of(plugin), distribution, version)
        loaded = self._admit(plugin, about)
        self._refuse_collisions(loaded.entries)
        self._join(f"{distribution}:{about.name}", loaded)
        self._added.add(f"{distribution}:{about.name}")
        return loaded.info

    def add_file(self, path: str | Path) -> PluginInfo:
        """Load one Python file as a plugin.

        The same content twice is loaded once; changed content replaces what the file registered before.

        Raises:
            PluginError: the file is missing, fails to import, or breaks a rule; nothing of it stays.
            NameCollisionError: it registers a name that is taken.
        """
        file = read_plugin(path)
        key, before = str(file.path), self._files.get(file.path)
        if before == file:
            return self._loaded[key].info
        with isolated_call(LOADING) as changes:
            module = file.run()
        earlier = self._loaded.pop(key, None)
        try:
            with isolated_call(LOADING) as more:
                loaded = self._admit(module, PluginInfo(file.path.stem, file.path.name, file.digest))
            loaded = _noted(loaded, [*changes, *more])
            self._refuse_collisions(loaded.entries)
        except BaseException:
            file.forget()
            if earlier is not None:
                self._join(key, earlier)
            raise
        if before is not None:
            before.forget()
        self._join(key, loaded)
        self._files[file.path] = file
        return loaded.info

    def remove(self, name: str) -> None:
        """Remove every plugin called `name`.

        Raises:
            UnknownNameError: no plugin is called that.
        """
        keys = [key for key, loaded in self._loaded.items() if loaded.info.name == name]
        if not keys:
            names = [loaded.info.name for loaded in self._loaded.values()]
            raise UnknownNameError("plugin", name, names, fix="`unmemorize plugins` shows all of them")
        for key in keys:
            del self._loaded[key]
            file = self._files.pop(Path(key), None)
            if file is not None:
                file.forget()

    @property
    def files(self) -> tuple[Path, ...]:
        """The plugin files that were added, so that another process can add them too."""
        return tuple(self._files)

    @property
    def restriction(self) -> str | None:
        """Which installed plugins were loaded, in the words of `load`; None where none were."""
        return self._restriction

    def objects(self) -> list[tuple[PluginInfo, object]]:
        """Return the plugins that were added as objects, which another process does not find by itself."""
        return [(loaded.info, loaded.plugin) for key, loaded in self._loaded.items() if key in self._added]

    def _admit(self, plugin: object, about: PluginInfo) -> Admitted:
        if any(loaded.plugin is plugin for loaded in self._loaded.values()):
            raise PluginError(
                f"{about.label}: the same module or object is registered already",
                expected="every plugin once",
                fix="remove one of the two registrations (entry points, --plugin, registry.add)",
            )
        return admit(plugin, about)

    def _join(self, key: str, loaded: Admitted) -> None:
        if key in self._loaded:
            raise PluginError(
                f"{loaded.info.label}: a plugin of that name and distribution is registered already",
                expected="one plugin per name",
                fix=f"give it another name, or call registry.remove({loaded.info.name!r}) first",
            )
        self._loaded[key] = loaded

    def _refuse_collisions(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            taken = self._entries(entry.kind, entry.name)
            if taken:
                raise NameCollisionError(entry.kind, entry.name, map(_origin_label, [*taken, entry]))

    def method(self, name: str) -> type[Method]:
        """Return the method called `name`."""
        found: type[Method] = self.get("method", name)
        return found

    def metric(self, name: str) -> type[Metric]:
        """Return the metric called `name`."""
        found: type[Metric] = self.get("metric", name)
        return found

    def provider(self, name: str) -> type[ModelProvider]:
        """Return the provider called `name`."""
        found: type[ModelProvider] = self.get("provider", name)
        return found

    def layout(self, model_type: str) -> Layout:
        """Return the row of the table of layouts that describes the architecture `model_type`."""
        found: Layout = self.get("layout", model_type)
        return found

    def executor(self, name: str) -> type[ExecutorFactory]:
        """Return the executor factory called `name`."""
        found: type[ExecutorFactory] = self.get("executor", name)
        return found

    def suite(self, name: str) -> Path:
        """Return the path of the suite called `name`."""
        return Path(self._only("suite", name).value)

    def get(self, kind: Kind, name: str, *, where: str = "", also: Iterable[str] = ()) -> Any:
        """Return the class (or layout, or path) of `kind` called `name`.

        Errors say with `where` who asked, and name `also` what may be asked for beside what is registered.

        Raises:
            UnknownNameError: nothing is called that (for layouts: LayoutError).
            NameCollisionError: two plugins registered that name.
            BrokenPluginError: a plugin of that name failed to load.
        """
        return self._only(kind, name, where, also).value

    def origin(self, kind: Kind, name: str) -> PluginOrigin:
        """Return where the thing of `kind` called `name` came from; raises what `get` raises."""
        return self._only(kind, name).origin

    def names(self, kind: Kind) -> tuple[str, ...]:
        """Return the usable names of `kind`, sorted; a name that two plugins registered is not usable."""
        found = [entry.name for entry in self._all(kind)]
        return tuple(sorted(name for name in set(found) if found.count(name) == 1))

    def kinds(self, name: str, among: Sequence[Kind] = KINDS) -> list[Kind]:
        """Return every kind, out of `among`, in which `name` is registered.

        Raises:
            UnknownNameError: in none of them.
            NameCollisionError: two plugins registered that name.
            BrokenPluginError: a plugin of that name failed to load.
        """
        found = [kind for kind in among if name in self.names(kind)]
        if found:
            return found
        for kind in among:
            if self._entries(kind, name):
                self._only(kind, name)
        self._refuse_broken(name, f"{name!r} is not available: ")
        raise UnknownNameError(
            f"{', '.join(among[:-1])} or {among[-1]}",
            name,
            [known for kind in among for known in self.names(kind)],
            broken=[info.label for info in self._broken],
            fix="`unmemorize list` shows all of them; --plugin FILE.py adds a file of yours",
        )

    def collisions(self) -> tuple[Collision, ...]:
        """Return every name that more than one plugin registered."""
        pairs = sorted({(entry.kind, entry.name) for kind in KINDS for entry in self._all(kind)})
        shared = [(kind, name, self._entries(kind, name)) for kind, name in pairs]
        return tuple(
            Collision(kind, name, tuple(map(_origin_label, entries)))
            for kind, name, entries in shared
            if len(entries) > 1
        )

    def plugins(self) -> list[PluginInfo]:
        """Return every plugin, the core's own first, broken ones last."""
        loaded = sorted((one.info for one in self._loaded.values()), key=_order)
        return loaded + sorted(self._broken, key=_order)

    def notify_started(self, event: CellEvent) -> None:
        """Tell every tracker that a cell starts; one that raises is warned about once."""
        self._notify("cell_started", event)

    def notify_finished(self, event: CellEvent) -> None:
        """Tell every tracker that a cell has ended; one that raises is warned about once."""
        self._notify("cell_finished", event)

    def _notify(self, hook: str, event: CellEvent) -> None:
        for key, loaded in self._loaded.items():
            problem = tell(loaded, hook, event)
            if problem and key not in self._warned:
                self._warned.add(key)
                warn(f"{loaded.info.label}: {hook} {problem}; the run goes on")

    def _all(self, kind: Kind) -> Iterator[Entry]:
        return (entry for loaded in self._loaded.values() for entry in loaded.entries if entry.kind == kind)

    def _entries(self, kind: Kind, name: str) -> list[Entry]:
        return [entry for entry in self._all(kind) if entry.name == name]

    def _refuse_broken(self, name: str, what: str) -> None:
        for info in self._broken:
            if info.name == name:
                raise BrokenPluginError(
                    f"{what}{info.label} failed to load: {info.error}", expected="a plugin that loads", fix=info.fix
                )

    def _only(self, kind: Kind, name: str, where: str = "", also: Iterable[str] = ()) -> Entry:
        found = self._entries(kind, name)
        if len(found) == 1:
            return found[0]
        if found:
            raise NameCollisionError(kind, name, map(_origin_label, found))
        self._refuse_broken(name, f"the {kind} {name!r} is not available: ")
        broken = [info.label for info in self._broken]
        if kind == "layout":
            raise LayoutError.unknown(name, self.names(kind), broken=broken)
        raise UnknownNameError(kind, name, [*self.names(kind), *also], where=where, broken=broken)


def _noted(loaded: Admitted, changes: Iterable[str]) -> Admitted:
    notes = tuple(f"while it was loaded, {change}" for change in dict.fromkeys(changes))
    return loaded._replace(info=dataclasses.replace(loaded.info, notes=notes))


def _origin_label(entry: Entry) -> str:
    origin = entry.origin
    return f"{origin.plugin!r} ({origin.distribution} {origin.version})"


def _name_of(plugin: object) -> str:
    return plugin.__name__.rpartition(".")[2] if isinstance(plugin, (ModuleType, type)) else type(plugin).__name__


def _order(info: PluginInfo) -> tuple[bool, str, str]:
    return not is_own(info.distribution), info.distribution, info.name
