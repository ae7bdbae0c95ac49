"""Tell a testbed where its model's MLPs are: by a registered layout, or else by structure."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from unmemorize.contracts.layout import MLP
from unmemorize.errors import LayoutError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unmemorize.contracts.context import Context
    from unmemorize.contracts.method import Method
    from unmemorize.contracts.testbed import Testbed
    from unmemorize.registry.manager import Registry


class Architecture(NamedTuple):
    """Where the MLPs of a model are."""

    mlps: tuple[MLP, ...]
    """From the first block to the last; none where they cannot be found."""
    note: str = ""
    """How they were found without a layout, or why they were not."""


def find_mlps(model: PreTrainedModel, registry: Registry) -> Architecture:
    """Return the MLPs of a model: by the layout of its type, or by its structure where no layout fits."""
    from unmemorize.models.discovery import discover
    from unmemorize.models.layouts import mlps_of

    kind = model.config.model_type
    try:
        return Architecture(mlps_of(model, registry.layout(kind)))
    except LayoutError as error:
        missing = error
    try:
        found = discover(model)
        return Architecture(mlps_of(model, found), f"{missing.what}; found by structure: {found}")
    except LayoutError as error:
        return Architecture((), error.what if kind not in registry.names("layout") else f"{missing.what}; {error.what}")


def fill_mlps(testbed: Testbed, registry: Registry) -> None:
    """Tell a testbed where its model's MLPs are or, where nobody knows, which methods act without them."""
    testbed.mlps, testbed.mlps_note = find_mlps(testbed.model, registry)
    if not testbed.mlps:
        named = ", ".join(f"{name} ({needs})" for name, needs in acting(testbed, registry).items()) or "none"
        testbed.mlps_note += f". Methods that act on this model, with the data that they need: {named}"


def acting(testbed: Testbed, registry: Registry) -> dict[str, str]:
    """Return every method that acts on the model of a testbed, given its data, and in words which data it needs."""
    sets = dict.fromkeys(("retain", "clean", "extra"), testbed.forget)
    given = dataclasses.replace(testbed, **sets)  # type: ignore[arg-type]
    found: dict[str, str] = {}
    for name in registry.names("method"):
        method = registry.method(name)
        with suppress(Exception):  # what a plugin's own code raises is shown where it is asked for
            if method().supports(given) is None:
                found[name] = ", ".join(sorted(method.needs)) or "no data"
    return found


def flag_structure(method: Method, testbed: Testbed, context: Context) -> None:
    """Flag what a method does to MLPs that were found by structure."""
    if testbed.mlps and testbed.mlps_note and method.supports(dataclasses.replace(testbed, mlps=())):
        context.report.flags.add("layout-by-structure")
        context.report.notes["layout"] = testbed.mlps_note
