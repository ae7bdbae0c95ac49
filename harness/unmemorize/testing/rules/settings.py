"""The rule about settings other than the defaults."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Protocol

from unmemorize.errors import PluginError, UnmemorizeError
from unmemorize.testing.report import Finding
from unmemorize.testing.rules.quoting import said, where
from unmemorize.testing.variants import variants

MOST_SECONDS = 60
"""After so long no further setting is tried."""


class Settable(Protocol):
    """What this rule looks at."""

    plugin: type[Any]
    settings: dict[str, Any]

    def error_with(self, changes: dict[str, Any]) -> Exception | None:
        """Return what is raised with some settings changed, if anything is.

        Raises:
            NotApplicable: it does not work with the settings that are not changed.
        """


def other_settings(case: Settable) -> Iterator[Finding]:
    """With each setting at another valid value (for a minute) it works, or says why not in three parts."""
    until = time.monotonic() + MOST_SECONDS
    case.error_with({})
    for name, value in variants(case.plugin.Config, case.settings):
        if time.monotonic() > until:
            return
        error = case.error_with({name: value})
        if error is not None and (isinstance(error, PluginError) or not isinstance(error, UnmemorizeError)):
            yield Finding(
                f"with {name} = {value!r} it raised {said(error)} ({where(error)})",
                "that every value works which the setting allows, or an error in three parts that says why not",
                f"correct it, or narrow {name!r} in {case.plugin.Config.__name__}: a Literal, Field(ge=..., le=...)",
            )
