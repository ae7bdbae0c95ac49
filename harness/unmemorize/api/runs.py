"""Run a suite, load its results, write one of its testbeds to a folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmemorize.files.places import cache_folder

if TYPE_CHECKING:
    import polars as pl

    from unmemorize.contracts.context import Progress
    from unmemorize.execution.runner import RunReport
    from unmemorize.leaderboard.board import Board
    from unmemorize.registry.manager import Registry
    from unmemorize.suite.model import Suite

RESULTS = Path("unmemorize-results")
"""Where results folders are made, one per suite."""


@dataclass(frozen=True, slots=True)
class Results:
    """Records as a polars frame, and the leaderboard over them."""

    frame: pl.DataFrame
    """One row per cell, the latest record of each."""
    folder: Path
    report: RunReport | None = None
    """What the run did, where there was one."""
    set_aside: tuple[str, ...] = ()
    """Damaged and impossible records, which no number here stands on: where each is, and what is wrong with it."""

    @property
    def board(self) -> Board:
        """The leaderboard over these records."""
        from unmemorize.leaderboard.board import build_board

        return build_board(self.frame, set_aside=self.set_aside)


def run(  # noqa: PLR0913  as `find`: keywords
    suite: str | Path | Mapping[str, Any] | Suite,
    *,
    methods: Sequence[str] | None = None,
    overrides: Iterable[str] = (),
    plugins: Iterable[str | Path | object] = (),
    results: str | Path | None = None,
    device: str | None = None,
    executor: str | None = None,
    deadline: float | None = None,
    memory: int | str | None = None,
    retry: bool = False,
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> Results:
    """Run a suite, or what is missing of it, and return its records.

    Args:
        suite: the name of a registered suite, the path of a TOML file, a mapping of the same shape, or a loaded suite.
        methods: run only these; a registered method that the suite does not list is added with its defaults.
        overrides: settings as on the command line, e.g. `"method.balanced_subnet.ratio=0.05"`.
        plugins: files, or objects with `hookimpl` functions, beside the installed plugins.
        results: the results folder; `./unmemorize-results/SUITE` by default.
        device: `cpu`, `cuda`, `cuda:1`, `mps`; the suite's own by default, or the best one there is.
        executor: where cells run: `inline` (this process), or a registered executor, in worker processes; the suite's
            own by default, or the one that UNMEMORIZE_EXECUTOR names, or worker processes on this machine.
        deadline: seconds that a cell may take, once its testbed is loaded; a worker process that goes on is ended.
        memory: bytes of main memory that a worker process may hold (`"4GiB"`); inline, nothing is limited.
        retry: try cells again in which worker processes died twice, too.
        registry: a registry of one's own, instead of what is installed and `plugins`.
        progress: where progress is shown; nowhere by default.

    Raises:
        UnmemorizeError: the suite does not validate, or the results folder cannot be used. Errors of single cells are
            recorded, not raised.
    """
    import polars as pl
    import torch

    from unmemorize.contracts.context import Silent
    from unmemorize.execution.environment import chosen_device
    from unmemorize.execution.runner import HowToRun, run_suite
    from unmemorize.execution.runtime import Runtime
    from unmemorize.suite.error_messages import called
    from unmemorize.suite.load import load_suite
    from unmemorize.suite.model import INLINE, Suite

    registry = _with_plugins(registry, plugins)
    methods = [methods] if isinstance(methods, str) else methods
    loaded = (
        suite
        if isinstance(suite, Suite)
        else load_suite(suite, registry, overrides=overrides, methods=methods, executor=executor)
    )
    said = called("run", loaded.run, device=device, deadline=deadline, memory=memory)
    name = executor or loaded.run.executor or INLINE
    kind = None if name == INLINE else registry.executor(name)
    runtime = Runtime(
        device=said.device if kind is not None and kind.elsewhere else chosen_device(said.device),
        deadline=said.deadline,
        memory=said.memory,
        cache=cache_folder(),
        progress=progress or Silent(),
        checkpointing=loaded.run.checkpointing,
        offload=loaded.run.offload,
    )
    own = loaded.run.executor_config if name == loaded.run.executor else {}
    factory = None if kind is None else kind(kind.Config(**own))  # as an object: a setting may be called `config`
    folder = Path(results) if results is not None else RESULTS / loaded.name
    report = run_suite(loaded, registry, folder, runtime, HowToRun(factory, torch.get_num_threads(), retry))
    found = load_results(folder)
    return replace(found, frame=found.frame.filter(pl.col("key").is_in(report.keys)), report=report)


def export(
    suite: str | Path | Mapping[str, Any] | Suite,
    testbed: str,
    *,
    folder: str | Path,
    seed: int | None = None,
    device: str | None = None,
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Make a testbed of a suite and write it to a new folder: the model, its sets as JSON lines, where it is from.

    Args:
        suite: as for `run`.
        testbed: the name of one of its testbeds.
        folder: a new folder.
        seed: the testbed's seed; the suite's first by default.
        device: as for `run`.
        registry: a registry of one's own, instead of what is installed.
        progress: where progress is shown; nowhere by default.

    Raises:
        UnmemorizeError: the suite does not validate, the testbed cannot be made, or the folder cannot be written.
    """
    from unmemorize.contracts.context import Silent
    from unmemorize.errors import UnknownNameError
    from unmemorize.execution.environment import chosen_device
    from unmemorize.execution.export import export_testbed
    from unmemorize.execution.runtime import Runtime
    from unmemorize.suite.error_messages import called
    from unmemorize.suite.load import load_suite
    from unmemorize.suite.model import Suite

    registry = registry or load_registry()
    loaded = suite if isinstance(suite, Suite) else load_suite(suite, registry)
    entries = {entry.name: entry for entry in loaded.testbeds}
    if testbed not in entries:
        raise UnknownNameError(
            "testbed", testbed, entries, where=loaded.source, fix=f"name one of them: {next(iter(entries))}"
        )
    said = called("export", loaded.run, device=device, seed=loaded.seeds[0] if seed is None else seed)
    runtime = Runtime(device=chosen_device(said.device), cache=cache_folder(), progress=progress or Silent())
    return export_testbed(entries[testbed], said.seed, registry, runtime, Path(folder))


def _with_plugins(registry: Registry | None, plugins: Iterable[str | Path | object]) -> Registry:
    from unmemorize.errors import ConfigError

    if registry is None:
        return load_registry(plugins)
    if plugins != ():
        raise ConfigError(
            "run() got both plugins and a registry",
            expected="one of the two: a registry holds its plugins already",
            fix="add them to it: registry.add_file('my_plugin.py'), or registry.add(plugin)",
        )
    return registry


def load_registry(plugins: Iterable[str | Path | object] = ()) -> Registry:
    """Return the installed plugins together with the given files and objects."""
    from unmemorize.registry.manager import Registry

    registry = Registry.load()
    for plugin in [plugins] if isinstance(plugins, (str, Path)) else plugins:
        if isinstance(plugin, (str, Path)):
            registry.add_file(plugin)
        else:
            registry.add(plugin)
    return registry


def load_results(*folders: str | Path) -> Results:
    """Return the latest record of every cell in one or several results folders.

    Raises:
        StoreError: a folder holds no records.
    """
    from unmemorize.results.merge import latest, merge
    from unmemorize.results.store import Store

    paths = [Path(folder) for folder in folders] or [RESULTS]
    readings = [Store(path).read() for path in paths]
    frames = [reading.frame for reading in readings]
    names = [str(path) if len(paths) > 1 else "" for path in paths]
    return Results(
        frame=latest(frames[0]) if len(frames) == 1 else merge(frames).frame,
        folder=paths[0],
        set_aside=tuple(
            one.said(name) for name, reading in zip(names, readings, strict=True) for one in reading.set_aside
        ),
    )
