"""Testbeds of a provider, loaded several times: fresh, from its cache, and with another seed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ValidationError

from unmemorize.contracts.context import Context
from unmemorize.contracts.provider import ModelProvider
from unmemorize.contracts.testbed import Testbed
from unmemorize.files.atomic import temporary_folder
from unmemorize.testing.alone import alone
from unmemorize.testing.report import Kind, NotApplicable
from unmemorize.testing.trial import DEADLINE

if TYPE_CHECKING:
    from unmemorize.registry.manager import Registry


@dataclass(slots=True)
class Loading:
    """What came of loading a testbed."""

    testbed: Any
    global_changes: list[str]
    error: Exception | None = None


@dataclass
class ProviderCase:
    """One provider with its settings, and testbeds that several rules share."""

    plugin: type[ModelProvider]
    settings: dict[str, Any] = field(default_factory=dict)
    registry: Registry | None = None
    rule_names: tuple[str, ...] = ()
    kind: ClassVar[Kind] = "provider"

    def provider(self) -> ModelProvider:
        """Return the provider with its settings.

        Raises:
            NotApplicable: they do not validate, for want of what only the user knows.
        """
        fields = self.plugin.Config.model_fields
        missing = [name for name, field in fields.items() if field.is_required() and name not in self.settings]
        if missing:
            raise NotApplicable("give " + " ".join(f"--set {name}=..." for name in missing))
        try:
            return self.plugin(**self.settings)
        except ValidationError as error:
            reasons = "; ".join(str(each["msg"]).removeprefix("Value error, ") for each in error.errors())
            raise NotApplicable(f"give other settings (--set key=value): {reasons}") from error

    def load(self, seed: int, cache: Path | None = None, deadline: float | None = None) -> Loading:
        """Load a testbed, and return what came of it; errors are caught.

        Raises:
            NotApplicable: the settings do not validate.
        """
        provider, loaded, error = self.provider(), None, None
        with alone() as snapshot:
            try:
                loaded = provider.load(Context(seed=seed, cache=cache, deadline=deadline))
            except Exception as raised:  # whatever a third party's code raises is a finding
                error = raised
            changes = snapshot.changes()
        return Loading(loaded, changes, error)

    @cached_property
    def attempt(self) -> Loading:
        """The testbed of seed 0, made afresh; loading it may have failed."""
        return self.load(0)

    def loaded(self) -> Testbed:
        """Return the testbed of seed 0.

        Raises:
            NotApplicable: it cannot be loaded, which the rule `loads` reports.
        """
        if not isinstance(self.attempt.testbed, Testbed):
            raise NotApplicable("no testbed is loaded; see loads")
        return self.attempt.testbed

    def error_with(self, changes: dict[str, Any]) -> Exception | None:
        """Return what loading with some settings changed raises, if anything; it may take a few seconds.

        Raises:
            NotApplicable: it cannot be loaded without changes.
        """
        self.loaded()
        changed = dataclasses.replace(self, settings={**self.settings, **changes})
        return changed.load(0, deadline=DEADLINE).error

    @cached_property
    def from_cache(self) -> list[Loading]:
        """The testbed of seed 0, loaded twice with one cache folder: made and kept, then found."""
        with temporary_folder() as folder:
            return [self.load(0, folder) for _ in range(2)]
