"""What a plugin leaves behind is seen, named, and put right."""

from __future__ import annotations

import io
import locale
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch

from unmemorize.contracts.process_state import ProcessState
from unmemorize.errors import listed
from unmemorize.testing import tiny_model
from unmemorize.testing.state import ModelState, alone, differences

GLOBAL: list[tuple[Callable[[], object], str]] = [
    (lambda: torch.rand(1), "torch's global random generator was used"),
    (np.random.rand, "numpy's global random generator was used"),
    (random.random, "Python's global random generator was used"),
    (lambda: torch.set_default_dtype(torch.float64), "torch's default dtype was changed"),
    (lambda: torch.set_default_device("meta"), "torch's default device was changed"),
    (lambda: torch.set_grad_enabled(False), "torch's grad mode was changed"),
    (lambda: torch.set_num_threads(2), "torch's number of threads was changed"),
    (lambda: torch.use_deterministic_algorithms(True), "torch's switch for deterministic algorithms was changed"),
    (lambda: torch.set_float32_matmul_precision("medium"), "torch's precision of matrix products was changed"),
    (lambda: torch.autograd.set_detect_anomaly(True, check_nan=True), "torch's anomaly detection was changed"),
    (lambda: setattr(torch.nn.functional, "gelu", print), "torch.nn.functional.gelu was replaced"),
    (lambda: os.environ.update(NEW_HERE="1"), "the environment variable NEW_HERE was changed"),
    (lambda: os.chdir("/"), "the working folder was changed"),
    (lambda: setattr(sys, "stdout", io.StringIO()), "sys.stdout was replaced"),
    (lambda: warnings.simplefilter("ignore"), "filters for all warnings were set"),
    (lambda: signal.signal(signal.SIGINT, signal.SIG_IGN), "the handler of SIGINT was replaced"),
    (lambda: locale.setlocale(locale.LC_ALL, "C"), "the locale was changed"),
    (
        lambda: torch.nn.modules.module.register_module_forward_hook(print),
        "hooks on all modules (torch.nn.modules.module) were left behind",
    ),
]


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize(("change", "name"), GLOBAL, ids=[name for _, name in GLOBAL])
def test_a_global_change_is_seen_and_undone(change: Callable[[], object], name: str) -> None:
    locale.setlocale(locale.LC_ALL, "C.UTF-8")
    before = ProcessState()
    with alone() as snapshot:
        change()
        assert snapshot.changes() == [name]
    assert before.changes() == []


def test_what_happens_inside_is_the_same_each_time() -> None:
    drawn = []
    for _ in range(2):
        with alone():
            drawn.append((torch.rand(1).item(), random.random(), np.random.rand(), torch.get_num_threads()))
    assert drawn[0] == drawn[1]
    assert drawn[0][3] == 1


MODEL: list[tuple[Callable[[torch.nn.Module], object], str]] = [
    (lambda module: module.register_forward_hook(print), "a forward hook on lm_head"),
    (lambda module: module.register_forward_pre_hook(print), "a forward pre hook on lm_head"),
    (lambda module: module.register_full_backward_hook(print), "a backward hook on lm_head"),
    (lambda module: setattr(module, "forward", print), "a replaced `forward` on lm_head"),
    (
        torch.nn.utils.parametrizations.weight_norm,
        "another class (a parametrization or a wrapper) of lm_head",
    ),
]


@pytest.mark.parametrize(("change", "name"), MODEL, ids=[name for _, name in MODEL])
def test_what_is_left_on_a_model_is_named(change: Callable[[torch.nn.Module], object], name: str) -> None:
    model = tiny_model("llama")
    before = ModelState.of(model)
    change(model.get_submodule("lm_head"))
    assert name in differences(before.hooks, ModelState.of(model).hooks)


def test_hooks_of_weights_and_modes_are_named() -> None:
    model = tiny_model("gpt2")
    before = ModelState.of(model)
    weight = model.get_parameter("transformer.wte.weight")
    weight.register_hook(print)
    weight.register_post_accumulate_grad_hook(print)
    model.get_parameter("transformer.wpe.weight").requires_grad_(False)
    weight.grad = torch.ones_like(weight)
    model.config.use_cache = False
    after = ModelState.of(model)
    assert differences(before.hooks, after.hooks) == [
        "a backward hook on the weight transformer.wte.weight",
        "a post accumulate grad hook on the weight transformer.wte.weight",
    ]
    assert differences(before.modes, after.modes) == [
        "a gradient left in transformer.wte.weight",
        "requires_grad of transformer.wpe.weight",
        "the model's config",
    ]


def test_long_lists_are_cut() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
