"""Trackers are told of cells, and whatever they do then reaches neither the run nor other trackers."""

from __future__ import annotations

import copy
import dataclasses
import warnings

from unmemorize.errors import listed, said_by
from unmemorize.registry.admission import Admitted
from unmemorize.registry.hookspecs import CellEvent
from unmemorize.registry.isolation import TRACKING, isolated_call


def tell(loaded: Admitted, hook: str, event: CellEvent) -> str:
    """Call a hook of one plugin with an event of its own, and return in words what went wrong; nothing if all is well.

    A `KeyboardInterrupt` is the user's.
    """
    caller = getattr(loaded.manager.hook, hook)
    if not caller.get_hookimpls():
        return ""
    if type(loaded.plugin).__module__.partition(".")[0] == "unmemorize":  # the progress of our own commands
        caller(event=event)
        return ""
    try:
        with isolated_call(TRACKING) as changes:
            caller(event=dataclasses.replace(event, record=copy.deepcopy(event.record)))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a tracker must not end hours of work
        return f"raised {type(error).__name__}: {said_by(error)}"
    return f"had side effects: {listed(changes)}" if changes else ""


def warn(message: str) -> None:
    """Warn a user; where warnings are errors, this one ends nothing either."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", RuntimeWarning)
        warnings.warn(message, RuntimeWarning, stacklevel=4)
