"""The options that several commands share: suite, parts of it, plugins, results folder, and how a command behaves."""

from __future__ import annotations

import functools
import math
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click

from unmemorize.cli.echo import echo
from unmemorize.contracts.config import LARGEST

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from unmemorize.registry import Registry
    from unmemorize.suite import Suite

RESULTS = Path("unmemorize-results")
"""Where results folders are made, one per suite."""

SEED = click.IntRange(0, LARGEST)
"""What a seed may be."""
_SHOWN = 60
"""Characters of a wrong value that an error shows."""


def names(value: str) -> tuple[str, ...]:
    """Split a comma list; commas inside the brackets of a grid point, `noise[layers=2,size=quick]`, stay."""
    parts = re.split(r",(?![^\[]*\])", value)
    found = tuple(part.strip() for part in parts if part.strip())
    if not found:
        raise click.BadParameter("write one name or more, with commas between them: a,b")
    return found


def seeds(value: str) -> tuple[int, ...]:
    """Read a comma list of seeds; the suite says which of them it takes."""
    if not re.fullmatch(r" *-?[0-9]{1,30} *(, *-?[0-9]{1,30} *)*", value):
        raise click.BadParameter(f"{value[:_SHOWN]!r} is not a list of seeds; write e.g. 0,1,2")
    return tuple(map(int, value.split(",")))


def _with(read: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    return lambda _context, _parameter, value: None if value is None else read(value)


@dataclass(frozen=True, slots=True)
class SuiteChoice:
    """What was asked for on the command line."""

    suite: str
    overrides: tuple[str, ...] = ()
    methods: tuple[str, ...] | None = None
    metrics: tuple[str, ...] | None = None
    testbeds: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None
    executor: str | None = None
    plugins: tuple[Path, ...] = ()
    results: Path | None = None

    def load(self, registry: Registry) -> Suite:
        """Add the plugin files to `registry`, and return the chosen suite."""
        from unmemorize.suite import load_suite

        for file in self.plugins:
            registry.add_file(file)
        return load_suite(
            self.suite,
            registry,
            overrides=self.overrides,
            methods=self.methods,
            metrics=self.metrics,
            testbeds=self.testbeds,
            seeds=self.seeds,
            executor=self.executor,
        )

    def folder(self, suite: Suite) -> Path:
        """Return the results folder."""
        return RESULTS / suite.name if self.results is None else self.results


class Seconds(click.FloatRange):
    """A finite number of seconds, more than none."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; NaN and infinity are no limits."""
        seconds = float(super().convert(value, param, ctx))
        if not math.isfinite(seconds):
            self.fail(f"{value} is not a finite number of seconds", param, ctx)
        return seconds


class SystemPath(click.Path):
    """A path that the system takes, whether or not anything is there: refused before any work starts."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path; a name that is too long, or in nobody's home, is an error in three parts."""
        from unmemorize.files.places import named

        named(value, param.opts[0] if param else "the path")
        return super().convert(value, param, ctx)


plugin_option = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    type=SystemPath(path_type=Path),
    metavar="FILE.py",
    help="A Python file that is a plugin; may be given several times.",
)

_SUITE_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.argument("suite"),
    click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="PATH=VALUE",
        help="Override a setting: --set method.balanced_subnet.ratio=0.05; a list is a grid.",
    ),
    click.option(
        "--methods",
        callback=_with(names),
        metavar="A,B",
        help="Only these methods; others join with defaults.",
    ),
    click.option(
        "--metrics",
        callback=_with(names),
        metavar="A,B",
        help="Only these metrics; others join with defaults.",
    ),
    click.option("--testbeds", callback=_with(names), metavar="A,B", help="Only these testbeds."),
    click.option("--seeds", callback=_with(seeds), metavar="0,1", help="Seeds in place of the suite's own."),
    click.option(
        "--executor",
        metavar="NAME",
        help="Where cells run (`unmemorize list executors`); its settings: --set executor.workers=4.",
    ),
    plugin_option,
    click.option(
        "--results",
        type=SystemPath(path_type=Path, file_okay=False),
        metavar="FOLDER",
        help=f"The results folder; ./{RESULTS}/SUITE by default.",
    ),
)


def suite_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the argument SUITE and the options that choose from it, as one `choice: SuiteChoice`."""
    names = tuple(SuiteChoice.__dataclass_fields__)

    @functools.wraps(function)
    def wrapped(**arguments: Any) -> Any:
        choice = SuiteChoice(**{name: arguments.pop(name) for name in names})
        return function(choice=choice, **arguments)

    for option in reversed(_SUITE_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def reading_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for each of `SequenceSettings`; those that were set come as one dict, `reading`."""
    from unmemorize.data.settings import SequenceSettings

    @functools.wraps(function)
    def wrapped(**arguments: Any) -> Any:
        said = {name: arguments.pop(name) for name in SequenceSettings.model_fields}
        return function(reading={name: value for name, value in said.items() if value is not None}, **arguments)

    for name, field in reversed(SequenceSettings.model_fields.items()):
        wrapped = _option(name, field)(wrapped)
    return wrapped


def _option(name: str, field: FieldInfo) -> Callable[[Any], Any]:
    """Return the option of a setting: a switch, a choice of words, or a number from the least one that it may be."""
    annotation, default, description = field.annotation, field.default, field.description or ""
    flag, about = f"--{name.replace('_', '-')}", f"{description} [default: {default}]"
    if annotation is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", default=None, help=description)
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    if choices:
        return click.option(flag, type=click.Choice(choices), help=about)
    (bound,) = field.metadata or get_args(get_args(annotation)[0])[1].metadata  # of `int`, or of `int | None`
    return click.option(flag, type=click.IntRange(min=bound.ge), help=description if default is None else about)


def shared_options(
    *, json: str = "Print JSON.", quiet: str | None = None, verbose: bool = False, threads: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command --json and --traceback, and those of --quiet, --verbose and --threads that it has a use for.

    The command is passed `as_json`, and `quiet` where it has that; the others are taken care of here. With --json all
    that anybody prints goes to standard error, but for `print_json`.

    Args:
        json: help of --json.
        quiet: help of --quiet, where there is something to be quiet about.
        verbose: whether libraries that it uses log something.
        threads: whether it computes, on as many threads as it is given.
    """
    options: list[Callable[[Any], Any]] = [click.option("--json", "as_json", is_flag=True, help=json)]
    if quiet is not None:
        options.append(click.option("-q", "--quiet", is_flag=True, help=quiet))
    if verbose:
        options.append(_eager("-v", "--verbose", is_flag=True, callback=_show_logs, help="Show what libraries log."))
    if threads:
        options.append(_eager("--threads", type=click.IntRange(1, 4096), callback=_limit_threads, metavar="N",
                              help="Threads to compute on; by default as many as there are cores."))  # fmt: skip
    options.append(_eager("--traceback", is_flag=True, help="Show the whole traceback of an error."))

    def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(**arguments: Any) -> Any:
            from unmemorize.cli.screen import only_json

            with only_json() if arguments["as_json"] else nullcontext():
                return function(**arguments)

        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped

    return decorated


def _eager(*names: str, **settings: Any) -> Callable[[Any], Any]:
    return click.option(*names, is_eager=True, expose_value=False, **settings)


def _show_logs(_context: click.Context, _parameter: click.Parameter, verbose: bool) -> None:
    import logging

    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        for library in ("TRANSFORMERS", "DATASETS"):
            os.environ.setdefault(f"{library}_VERBOSITY", "info")


def _limit_threads(_context: click.Context, _parameter: click.Parameter, threads: int | None) -> None:
    """Say it to the libraries that are imported later, and to torch where it is here already."""
    if threads is not None:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS"):
            os.environ[name] = str(threads)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)


@contextmanager
def interruptible(kept: Callable[[], str]) -> Iterator[None]:
    """At Ctrl-C or SIGTERM, say what was kept and how to go on, and end with status 130, or 143."""
    terminated = False

    def terminate(_number: int, _frame: object) -> None:
        nonlocal terminated
        terminated = True
        raise KeyboardInterrupt

    try:
        with _handled(signal.SIGTERM, terminate):
            yield
    except KeyboardInterrupt:
        echo(f"\ninterrupted: {kept()}", err=True)
        raise SystemExit(143 if terminated else 130) from None


@contextmanager
def _handled(number: signal.Signals, handler: Callable[[int, object], None]) -> Iterator[None]:
    """Handle a signal inside, in the main thread, if nothing but the system handles it."""
    mine = threading.current_thread() is threading.main_thread() and signal.getsignal(number) is signal.SIG_DFL
    if mine:
        signal.signal(number, handler)
    try:
        yield
    finally:
        if mine:
            signal.signal(number, signal.SIG_DFL)


def load_registry(plugins: tuple[Path, ...]) -> Registry:
    """Return the registry of what is installed and of the given plugin files."""
    from unmemorize.registry import Registry

    registry = Registry.load()
    for file in plugins:
        registry.add_file(file)
    return registry
