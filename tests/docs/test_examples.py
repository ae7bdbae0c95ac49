"""The example plugins of the docs work, through the registry, as their pages say; and the wrong ones are refused."""

from __future__ import annotations

import copy
import csv
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import CodeGenConfig, CodeGenForCausalLM

import unmemorize
from unmemorize.registry.files import read_plugin
from unmemorize.registry.hooks import hook_names
from unmemorize.registry.manager import Registry
from unmemorize.testing import check, memorizing_testbed
from writing.hooks import EXAMPLES, TRY
from writing.mistakes import MISTAKES, refusal

PLUGINS = {name: read_plugin(EXAMPLES / f"{name}.py").run() for name in hook_names()}


@pytest.fixture
def full(registry: Registry) -> Registry:
    """The plugins of this repository, and all examples."""
    for name, module in PLUGINS.items():
        registry.add(module, name=name)
    return registry


@pytest.mark.parametrize("name", PLUGINS)
def test_each_example_implements_its_hook_and_no_other(name: str) -> None:
    info = Registry().add(PLUGINS[name])
    assert [f"register_{kind}s" for kind in info.provides] == ([] if name.startswith("cell_") else [name])


@pytest.mark.parametrize(
    ("kind", "name"), [("method", "shrink"), ("metric", "first_token"), ("provider", "echo")], ids=lambda value: value
)
def test_what_can_be_checked_passes_the_conformance_suite(kind: Any, name: str, full: Registry) -> None:
    report = check(full.get(kind, name), architectures=["gpt2"], registry=full)
    assert report.passed, str(report)
    assert not report.rules("warning"), str(report)


def test_the_method_shrinks_what_neurons_say() -> None:
    testbed = memorizing_testbed("llama")
    before = testbed.mlps[0].down.weight.detach().clone()
    PLUGINS["register_methods"].Shrink(factor=0.5).apply(testbed, unmemorize.Context())
    assert torch.equal(testbed.mlps[0].down.weight, before / 2)


def test_the_metric_is_100_where_everything_is_regurgitated() -> None:
    evaluation = unmemorize.Evaluation(memorizing_testbed("gpt2"))
    values = list(PLUGINS["register_metrics"].FirstToken().measure(evaluation))
    assert [(value.set, value.value) for value in values] == [("forget", 100.0), ("forget_unseen", 100.0)]


def test_the_provider_regurgitates_its_forget_set() -> None:
    testbed = PLUGINS["register_providers"].Echo(rows=5).load(unmemorize.Context(seed=3))
    extraction = unmemorize.Evaluation(testbed).extraction("forget", testbed.window)
    assert extraction.extractable.tolist() == [True] * 5


def test_the_layout_makes_methods_work_on_codegen(full: Registry) -> None:
    config = CodeGenConfig(vocab_size=32, n_positions=16, n_embd=16, n_layer=2, n_head=4, rotary_dim=4, bos_token_id=1,
                           eos_token_id=1)  # fmt: skip
    model = CodeGenForCausalLM(config).eval()
    unconfirmed = unmemorize.mitigate(
        copy.deepcopy(model), method="durable", forget=[[3, 4, 5, 6]], registry=Registry.load("none")
    )
    assert "layout-by-structure" in unconfirmed.flags
    done = unmemorize.mitigate(model, method="durable", forget=[[3, 4, 5, 6]], registry=full)
    assert done.edited == unconfirmed.edited > 0
    assert "layout-by-structure" not in done.flags


def test_the_executor_gives_every_task_a_process_of_its_own(full: Registry) -> None:
    import os

    with full.executor("fresh_process")().create() as executor:
        numbers = {executor.submit(os.getpid).result() for _ in range(2)}
    assert len(numbers | {os.getpid()}) == 3


def test_the_suite_runs_and_the_trackers_are_told(
    full: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO, "unmemorize.cells"):
        results = unmemorize.run("echoes", registry=full, device="cpu")
    assert results.frame["status"].to_list() == ["done"] * 3
    assert [record.getMessage() for record in caplog.records] == [
        f"{number} of 3: {method} on echo, seed 0" for number, method in enumerate(["base", "shrink", "shrink"], 1)
    ]
    rows = list(csv.reader((tmp_path / "cells.csv").read_text().splitlines()))
    assert [row[:4] for row in rows] == [["echoes", method, "0", "done"] for method in ("base", "shrink", "shrink")]
    assert float(rows[0][4]) == 100.0


def test_every_hook_has_an_example_a_command_and_a_mistake() -> None:
    assert set(PLUGINS) == set(TRY) == set(MISTAKES)
    assert all(isinstance(module, ModuleType) for module in PLUGINS.values())


@pytest.mark.parametrize("source", [source for sources in MISTAKES.values() for source in sources])
def test_every_mistake_is_refused_in_three_parts(source: str) -> None:
    error = refusal(source)
    assert isinstance(error, unmemorize.PluginError)
    assert "unmemorize-mine" in error.what
    assert error.expected
    assert error.fix


def test_a_plugin_that_is_right_is_no_mistake() -> None:
    with pytest.raises(AssertionError, match="nobody minds"):
        refusal("@hookimpl\ndef register_methods():\n    return []")
