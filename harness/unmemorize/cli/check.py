"""`unmemorize check NAME`: does a plugin keep every rule of its contract?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from unmemorize.cli.echo import echo
from unmemorize.cli.options import interruptible, load_registry, names, plugin_option, shared_options

if TYPE_CHECKING:
    from unmemorize.registry import Registry
    from unmemorize.testing.checking import Examination, Task
    from unmemorize.testing.report import Finding, Kind, Report, Verdict

_KINDS: tuple[Kind, ...] = ("method", "metric", "provider")
_COLORS = {"passed": "green", "warning": "yellow", "excused": "yellow", "not applicable": None, "failed": "red"}


def _split(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else names(value)


@click.command()
@click.argument("wanted", metavar="NAME...", nargs=-1)
@click.option("--kind", type=click.Choice(_KINDS), help="Which of them, where a method and a metric share a name.")
@click.option(
    "--architecture", "architectures", callback=_split, metavar="A,B",
    help="Only these tiny models, of gpt2, gpt_neox and llama.",
)  # fmt: skip
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="A setting other than its default.")
@plugin_option
@shared_options(quiet="Show only what is not right, and the sums.", verbose=True)
def command(
    wanted: tuple[str, ...],
    kind: Kind | None,
    architectures: tuple[str, ...] | None,
    overrides: tuple[str, ...],
    plugins: tuple[Path, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Check the methods, metrics or providers called NAME against every rule of their contracts, in seconds.

    Methods act on tiny models that really memorize. Each finding says what was seen, what was expected, and what to
    do. The status is 1 if a rule is broken. Name a provider's small settings: --set recipe.epochs=1.
    """
    from unmemorize.cli.screen import print_json
    from unmemorize.testing.checking import report

    registry = load_registry(plugins)
    found = [(each, name) for name in _given(registry, wanted) for each in _kinds(registry, name, kind)]
    settings = _settings(overrides)
    reports: list[Report] = []
    with interruptible(lambda: f"{len(reports)} of {len(found)} are checked; the same command starts again"):
        for each, name in found:
            examination = _examination(registry, each, name, settings, architectures)
            silent = (examination.verdict(task) for task in examination.tasks())
            reports.append(report(examination, silent) if as_json else _examined(examination, quiet=quiet))
    if as_json:
        print_json([report.to_dict() for report in reports])
    if not all(report.passed for report in reports):
        raise SystemExit(1)


def _given(registry: Registry, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names, or refuse to check nothing."""
    from unmemorize.errors import ConfigError
    from unmemorize.registry.discovery import is_own

    if wanted:
        return wanted
    known = [(kind, name) for kind in _KINDS for name in registry.names(kind)]
    foreign = [name for kind, name in known if not is_own(registry.origin(kind, name).distribution)]
    listed = ", ".join(foreign or [name for _, name in known]) or "none is registered"
    raise ConfigError(
        "`unmemorize check` was not told what to check",
        expected="one name or more; " + (f"from other packages: {listed}" if foreign else f"there are: {listed}"),
        fix=f"unmemorize check {(foreign or [name for _, name in known] or ['NAME'])[0]}",
    )


def _kinds(registry: Registry, name: str, wanted: Kind | None) -> list[Kind]:
    """Return every kind in which `name` is registered, or the one that was asked for."""
    if wanted is None:
        return cast("list[Kind]", registry.kinds(name, _KINDS))
    registry.get(wanted, name)
    return [wanted]


def _settings(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Return the settings; dotted keys are tables in tables."""
    from unmemorize.suite.overrides import parse

    settings: dict[str, Any] = {}
    for override in map(parse, overrides):
        *tables, key = override.path.split(".")
        inner = settings
        for table in tables:
            inner = inner.setdefault(table, {})
        inner[key] = override.value
    return settings


def _examination(
    registry: Registry, kind: Kind, name: str, settings: dict[str, Any], architectures: tuple[str, ...] | None
) -> Examination:
    from unmemorize.testing.checking import Examination

    plugin = registry.get(kind, name)
    if architectures is None:
        return Examination(plugin, settings=settings, registry=registry)
    return Examination(plugin, settings=settings, registry=registry, architectures=architectures)


def _examined(examination: Examination, *, quiet: bool) -> Report:
    """Check rule by rule, telling of each as soon as it is done."""
    from unmemorize.testing.checking import report

    verdicts = []
    echo(f"{examination.kind} {examination.name}", bold=True)
    for tasks in _by_rule(examination):
        ended = [examination.verdict(task) for task in tasks]
        verdicts += ended
        _show(ended, quiet=quiet)
    whole = report(examination, verdicts)
    _show(list(whole.verdicts[len(verdicts) :]), quiet=quiet)
    echo(f"{whole.summary()}\n")
    return whole


def _by_rule(examination: Examination) -> Iterator[list[Task]]:
    from itertools import groupby

    for _, tasks in groupby(examination.tasks(), key=lambda task: task.rule.name):
        yield list(tasks)


def _show(verdicts: list[Verdict], *, quiet: bool) -> None:
    """Print one line for each outcome of a rule, and its findings below; only with findings where it is to be quiet."""
    shown = [verdict for verdict in verdicts if verdict.findings or not quiet]
    statuses = dict.fromkeys((verdict.status, verdict.reason) for verdict in shown)
    for status, reason in statuses:
        same = [verdict for verdict in verdicts if (verdict.status, verdict.reason) == (status, reason)]
        rule = same[0].rule
        line = f" {rule.name:<26} {reason or rule.statement}"
        on = [verdict.architecture for verdict in same if verdict.architecture]
        where = f" ({', '.join(on)})" if len(statuses) > 1 and on else ""
        echo(line + where, lead=f"  {status:<14}", fg=_COLORS[status])
        _show_findings([(finding, verdict.architecture) for verdict in same for finding in verdict.findings])


def _show_findings(findings: list[tuple[Finding, str | None]]) -> None:
    """Print what was seen, and once for all that are corrected alike what was expected and what to do."""
    for fix in dict.fromkeys(finding.fix for finding, _ in findings):
        alike = [(finding, where) for finding, where in findings if finding.fix == fix]
        for finding, where in alike:
            _part("seen", f"{where}: {finding.seen}" if where else finding.seen)
        _part("expected", alike[0][0].expected)
        _part("fix", fix)


def _part(label: str, text: str) -> None:
    echo(text, lead=f"      {label + ':':<10}", bold=True)
