"""Check a method, a metric or a provider against every rule of its kind."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from unmemorize.contracts.config import StrictConfig
from unmemorize.contracts.method import Method
from unmemorize.contracts.provider import ModelProvider
from unmemorize.errors import PluginError, nearest
from unmemorize.evaluation.metric import Metric
from unmemorize.suite.error_messages import Place, validated
from unmemorize.testing.loading import ProviderCase
from unmemorize.testing.measuring import MetricCase
from unmemorize.testing.models import ARCHITECTURES, Architecture
from unmemorize.testing.report import Finding, Kind, NotApplicable, Report, Rule, Verdict
from unmemorize.testing.rules.catalogue import DECLARED, RULES
from unmemorize.testing.rules.declarations import plugin_excuses
from unmemorize.testing.rules.quoting import said, where
from unmemorize.testing.trial import MethodCase

if TYPE_CHECKING:
    from unmemorize.registry.manager import Registry

Case = MethodCase | MetricCase | ProviderCase
_CONTRACTS: dict[Kind, type] = {"method": Method, "metric": Metric, "provider": ModelProvider}


@dataclass(frozen=True, slots=True)
class Task:
    """One rule to check, on one architecture where the rule is about models."""

    rule: Rule
    architecture: Architecture | None

    @property
    def name(self) -> str:
        """Rule and architecture, as pytest shows them."""
        return f"{self.rule.name}-{self.architecture}" if self.architecture else self.rule.name


class Examination:
    """A plugin class and the rules that it is checked against, one by one; what rules share is computed once.

    Args:
        plugin: a subclass of Method, Metric or ModelProvider.
        settings: settings other than the defaults.
        architectures: the models that methods and metrics are tried on.
        registry: where layouts are looked up; what is installed by default.

    Raises:
        PluginError: the class is none of these, or there is no such architecture.
        ConfigError: the settings do not validate.
    """

    def __init__(
        self,
        plugin: type[Any],
        *,
        settings: Mapping[str, Any] | None = None,
        architectures: Sequence[str] = ARCHITECTURES,
        registry: Registry | None = None,
    ) -> None:
        self.plugin, self.kind = plugin, kind_of(plugin)
        self.settings = dict(settings or {})
        self.architectures = _known(architectures)
        self._registry = registry
        self._cases: dict[Architecture | None, Case] = {}
        config = getattr(plugin, "Config", None)
        if self.settings and isinstance(config, type) and issubclass(config, StrictConfig):
            validated(config, self.settings, Place(f"settings of {self.name}", "", self.name))

    @property
    def name(self) -> str:
        """What the plugin calls itself."""
        return str(getattr(self.plugin, "name", self.plugin.__name__))

    def tasks(self) -> Iterator[Task]:
        """Yield every rule with every architecture that it is checked on, rule by rule."""
        for rule in RULES[self.kind]:
            on = (None,) if self.kind == "provider" or rule.name in _WITHOUT_MODEL else self.architectures
            yield from (Task(rule, architecture) for architecture in (on[:1] if rule.once else on))

    def verdict(self, task: Task) -> Verdict:
        """Check one rule."""
        if task.rule is not DECLARED and self._undeclared:
            return Verdict(task.rule, "not applicable", task.architecture, reason="see declared")
        try:
            with _quiet():
                findings = tuple(task.rule.check(self._case(task.architecture)))
        except NotApplicable as reason:
            return Verdict(task.rule, "not applicable", task.architecture, reason=str(reason))
        except Exception as error:  # a plugin can break a rule in ways that the rule did not think of
            findings = (_unforeseen(error),)
        return self._judged(task, findings)

    @cached_property
    def _undeclared(self) -> bool:
        return any(not finding.warning for finding in DECLARED.check(self._case(None)))

    def _judged(self, task: Task, findings: tuple[Finding, ...]) -> Verdict:
        excuse = plugin_excuses(self.plugin).get(task.rule.name)
        if not findings:
            return Verdict(task.rule, "passed", task.architecture)
        if excuse is not None and task.rule is not DECLARED:
            return Verdict(task.rule, "excused", task.architecture, findings, excuse)
        broken = any(not finding.warning for finding in findings)
        return Verdict(task.rule, "failed" if broken else "warning", task.architecture, findings)

    def _case(self, architecture: Architecture | None) -> Case:
        if architecture not in self._cases:
            self._cases[architecture] = self._new_case(architecture)
        return self._cases[architecture]

    def _new_case(self, architecture: Architecture | None) -> Case:
        names = tuple(rule.name for rule in RULES[self.kind])
        if self.kind == "provider":
            return ProviderCase(self.plugin, self.settings, self.registry, names)
        on = architecture or self.architectures[0]
        if self.kind == "metric":
            return MetricCase(self.plugin, self.settings, on, self.registry, names)
        return MethodCase(self.plugin, self.settings, on, self.registry, names, self.architectures)

    @cached_property
    def registry(self) -> Registry:
        """Where layouts are looked up."""
        from unmemorize.registry.manager import Registry

        return self._registry or Registry.load()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep warnings, and what transformers draws and logs, out of the report: they are not what is checked."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


_WITHOUT_MODEL = ("declared", "documented")


def check(
    plugin: type[Any],
    *,
    settings: Mapping[str, Any] | None = None,
    architectures: Sequence[str] = ARCHITECTURES,
    registry: Registry | None = None,
) -> Report:
    """Check a plugin class against every rule of its kind, and return the report; it prints itself.

    Args:
        plugin: a subclass of Method, Metric or ModelProvider.
        settings: settings other than the defaults, e.g. a provider's small size.
        architectures: the models that methods and metrics are tried on: `gpt2`, `gpt_neox`, `llama`.
        registry: where layouts are looked up; what is installed by default.

    Raises:
        PluginError: the class is none of these, or there is no such architecture.
        ConfigError: the settings do not validate.
    """
    examination = Examination(plugin, settings=settings, architectures=architectures, registry=registry)
    return report(examination, (examination.verdict(task) for task in examination.tasks()))


def report(examination: Examination, verdicts: Iterable[Verdict]) -> Report:
    """Return the report over the verdicts of all tasks; an excuse that nothing needs is a warning."""
    given = tuple(verdicts)
    needed = {verdict.rule.name for verdict in given if verdict.status in ("excused", "not applicable")}
    unneeded = [
        Finding(
            f"{examination.plugin.__name__}.excused names {rule.name!r}, which it keeps",
            "excuses for rules that are broken on purpose, and no others",
            f"remove {rule.name!r} from `excused`",
            warning=True,
        )
        for rule in RULES[examination.kind]
        if rule.name in plugin_excuses(examination.plugin) and rule.name not in needed
    ]
    extra = (Verdict(DECLARED, "warning", findings=tuple(unneeded)),) if unneeded else ()
    return Report(examination.name, examination.kind, given + extra)


def check_method(method: type[Method], **options: Any) -> Report:
    """Check a method; options as for `check`."""
    return check(method, **options)


def check_metric(metric: type[Metric], **options: Any) -> Report:
    """Check a metric; options as for `check`."""
    return check(metric, **options)


def check_provider(provider: type[ModelProvider], **options: Any) -> Report:
    """Check a provider; options as for `check`, among them `settings` that make it small."""
    return check(provider, **options)


def kind_of(plugin: type[Any]) -> Kind:
    """Return what a class is a plugin of.

    Raises:
        PluginError: it is no method, metric or provider.
    """
    for kind, contract in _CONTRACTS.items():
        if isinstance(plugin, type) and issubclass(plugin, contract):
            return kind
    raise PluginError(
        f"{plugin!r} cannot be checked",
        expected="a class: a subclass of unmemorize.Method, Metric or ModelProvider",
        fix="pass the class itself, e.g. check(MyMethod)",
    )


def _known(architectures: Sequence[str]) -> tuple[Architecture, ...]:
    for name in architectures:
        if name not in ARCHITECTURES:
            near = nearest(name, ARCHITECTURES)
            raise PluginError(
                f"no tiny model has the architecture {name!r}",
                expected=f"one of {', '.join(near)}",
                fix=f"write {near[0]}",
            )
    if not architectures:
        raise PluginError(
            "there is no architecture to check on",
            expected=f"at least one of {', '.join(ARCHITECTURES)}",
            fix="leave `architectures` out",
        )
    return cast("tuple[Architecture, ...]", tuple(dict.fromkeys(architectures)))


def _unforeseen(error: Exception) -> Finding:
    return Finding(
        f"checking this raised {said(error)} ({where(error)})",
        "what the contract promises, so that the rule can be checked",
        "correct what is named; if it is not yours, report it with this message",
    )
