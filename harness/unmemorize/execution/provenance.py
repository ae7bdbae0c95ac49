"""What runs is what was planned: the same plugins, in the same versions, and the same files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from unmemorize.contracts.answers import ask
from unmemorize.errors import ProvenanceError
from unmemorize.execution.plan import Cell
from unmemorize.registry.entries import Kind
from unmemorize.results.record import PluginOrigin

if TYPE_CHECKING:
    from unmemorize.contracts.provider import ModelProvider
    from unmemorize.registry.manager import Registry


def check_origins(cell: Cell, registry: Registry) -> None:
    """Refuse plugins that are not those with which a cell was planned.

    Raises:
        ProvenanceError: a plugin of another version, or with other code.
    """
    for kind, planned in _planned(cell):
        here = registry.origin(kind, planned.name)
        if here != planned:
            raise ProvenanceError.of_plugin(kind, planned.name, _words(planned), _words(here))


def check_fingerprint(cell: Cell, provider: ModelProvider) -> None:
    """Refuse files that are not those with which a cell was planned.

    Raises:
        ProvenanceError: the provider's fingerprint is another one.
    """
    here = ask(provider, "fingerprint")
    changed = sorted(name for name in {*here, *cell.fingerprint} if here.get(name) != cell.fingerprint.get(name))
    if changed:
        raise ProvenanceError.of_files(cell.testbed, changed)


def _planned(cell: Cell) -> Iterator[tuple[Kind, PluginOrigin]]:
    yield "provider", cell.provider_origin
    yield from (("metric", origin) for origin in cell.metric_origins)
    if cell.method_origin is not None:
        yield "method", cell.method_origin


def _words(origin: PluginOrigin) -> str:
    return ", ".join(str(value) for value in origin.model_dump(exclude={"name"}).values() if value is not None)
