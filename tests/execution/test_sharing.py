"""Runs that share a folder, bases whose data changed, and plugins that change under a run."""

from __future__ import annotations

import importlib
import threading
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import unmemorize
from unmemorize.errors import ProvenanceError
from unmemorize.execution.plan import plan
from unmemorize.execution.provenance import check_origins
from unmemorize.execution.supervisor import CLAIMS
from unmemorize.files.claims import Claim
from unmemorize.files.digests import source_digest
from unmemorize.registry.manager import Registry
from unmemorize.suite.load import load_suite

TOY = (Path(__file__).parents[1] / "assets" / "toy.py").read_text()
UNSTEADY = (
    TOY.replace('architecture: str = "gpt2"', 'data: str = ""\n    """A file."""\n    architecture: str = "gpt2"')
    .replace(
        "        rows = said",
        '        shift = int(__import__("pathlib").Path(self.config.data).read_text())\n        rows = said',
    )
    .replace("seed=1, first_id=200", "seed=1 + shift, first_id=200")
)


def run(folder: Path, methods: dict[str, Any], *, plugin: str = TOY, **options: Any) -> unmemorize.Results:
    registry = Registry.load("none")
    (folder / "toy.py").write_text(plugin)
    registry.add_file(folder / "toy.py")
    for also in options.pop("plugins", ()):
        registry.add(also)
    suite = {
        "name": "shared",
        "description": "d",
        "testbed": {"toy": {"provider": "toy", **options.pop("testbed", {})}},
        "metric": {"extraction": {}, "accuracy": {}},
        "method": methods,
    }
    return unmemorize.run(suite, registry=registry, results=folder / "results", device="cpu", **options)


def test_a_cell_that_another_run_is_at_is_left_to_it(tmp_path: Path) -> None:
    first = run(tmp_path, {"durable": {}})
    assert first.report is not None
    planned = run(tmp_path, {"durable": {"ratio": [0.05, 0.1]}})
    (mine,) = set(planned.frame["key"]) - set(first.frame["key"])
    for shard in sorted((tmp_path / "results" / "records").glob("*"))[1:]:
        shard.unlink()
    claim = Claim.take(tmp_path / "results" / CLAIMS / mine)
    assert claim is not None
    found: list[unmemorize.Results] = []
    other = threading.Thread(target=lambda: found.append(run(tmp_path, {"durable": {"ratio": [0.05, 0.1]}})))
    other.start()
    other.join(3.0)
    assert other.is_alive()
    assert found == []
    claim.release()
    other.join(60.0)
    assert [results.report.done for results in found if results.report] == [1]
    assert not (tmp_path / "results" / CLAIMS).exists()


@pytest.mark.parametrize("executor", ["inline", "processes"])
def test_a_base_whose_data_changed_is_measured_again_with_all_that_was_compared_to_it(
    tmp_path: Path, executor: str
) -> None:
    data = tmp_path / "data"
    data.write_text("0")
    options: dict[str, Any] = {"plugin": UNSTEADY, "testbed": {"data": str(data)}, "executor": executor}
    run(tmp_path, {"durable": {}}, **options)
    data.write_text("1")
    results = run(tmp_path, {"durable": {}, "activations": {}}, **options)
    assert results.report is not None
    assert (results.report.done, results.report.cached, results.report.failed) == (3, 0, 0)
    assert results.frame["data_digest"].n_unique() == 1
    assert set(results.frame["status"]) == {"done"}


def test_a_plugin_that_changes_under_a_run_is_refused(tmp_path: Path) -> None:
    registry = Registry.load("none")
    (tmp_path / "toy.py").write_text(TOY)
    registry.add_file(tmp_path / "toy.py")
    (tmp_path / "toy.py").write_text(TOY + "\n# changed\n")
    suite = {"name": "s", "description": "d", "testbed": {"toy": {"provider": "toy"}},
             "metric": {"extraction": {}, "accuracy": {}}, "method": {"durable": {}}}  # fmt: skip
    results = unmemorize.run(suite, registry=registry, results=tmp_path / "results", device="cpu", executor="processes")
    assert set(results.frame["status"]) == {"failed"}
    reason = results.frame.filter(pl.col("method") == "base")["reason"].item()
    assert "the provider 'toy' is (toy, toy.py" in reason
    assert "when the run was planned" in reason


def test_code_of_a_package_that_changes_under_a_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "toys_of_others"
    package.mkdir()
    (package / "__init__.py").write_text(TOY)
    module = importlib.import_module("toys_of_others")
    registries = []
    for more in ("", "VALUE = 1\n"):
        (package / "more.py").write_text(more)
        source_digest.cache_clear()  # as in another process
        registries.append(Registry.load("none"))
        registries[-1].add(module, name="toys", distribution="toys-of-others", version="1")
    suite = {"name": "s", "description": "d", "testbed": {"toy": {"provider": "toy"}},
             "metric": {"extraction": {}, "accuracy": {}}}  # fmt: skip
    (cell,) = plan(load_suite(suite, registries[0]), registries[0])
    check_origins(cell, registries[0])
    with pytest.raises(
        ProvenanceError, match=r"the provider 'toy' is .* where it runs, and was .* when the run was pla"
    ):
        check_origins(cell, registries[1])


@pytest.mark.parametrize("executor", ["inline", "processes"])
def test_a_cell_that_another_run_finished_meanwhile_is_not_run_again(tmp_path: Path, executor: str) -> None:
    class Hurries:
        """Another run overtakes this one when its base is measured."""

        @unmemorize.hookimpl
        def cell_finished(self, event: unmemorize.CellEvent) -> None:
            if event.method == "base":
                run(tmp_path, methods, executor="inline")

    methods: dict[str, Any] = {"durable": {}, "activations": {}}
    results = run(tmp_path, methods, executor=executor, plugins=[Hurries()])
    assert results.frame["method"].sort().to_list() == ["activations", "base", "durable"]
    assert results.report is not None
    assert (results.report.done, results.report.cached) == (1, 2)
    written = (tmp_path / "results" / "records").glob("*.jsonl")
    assert sum(len(shard.read_text().splitlines()) for shard in written) == 3
