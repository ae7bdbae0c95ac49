"""One act: nothing of what a method does to a model and a process is left where it failed, or in later cells."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn.utils import parametrizations
from transformers import PreTrainedModel

from unmemorize import Context, Method
from unmemorize.contracts.process_state import ProcessState
from unmemorize.errors import DataChangedError, DivergedError, LeftBehindError, NoOpError, PluginError, StateDictError
from unmemorize.execution.act import act
from unmemorize.execution.reference import Reference
from unmemorize.execution.session import LoadedTestbed
from unmemorize.testing import tiny_model, tiny_testbed
from unmemorize_plugins.metrics.extraction import Extraction


def weight_of(model: PreTrainedModel) -> torch.nn.Parameter:
    return next(model.parameters())


def swap(model: PreTrainedModel) -> None:
    model.transformer.h[0].mlp = torch.nn.Identity()


def widen(model: PreTrainedModel) -> None:
    weight_of(model).data = weight_of(model).data.double()


def add_buffer(model: PreTrainedModel) -> None:
    model.register_buffer("mask", torch.ones(2))


MESSES: dict[str, Callable[[PreTrainedModel], object]] = {
    "weights": lambda model: weight_of(model).data.mul_(2),
    "nan": lambda model: weight_of(model).data.fill_(torch.nan),
    "dtype": widen,
    "buffer": add_buffer,
    "module": swap,
    "hook": lambda model: model.transformer.h[0].register_forward_hook(lambda *_: None),
    "weight hook": lambda model: weight_of(model).register_hook(lambda gradient: gradient * 0),
    "forward": lambda model: setattr(model, "forward", print),
    "patched class": lambda model: setattr(type(model), "forward", print),
    "parametrization": lambda model: parametrizations.weight_norm(model.lm_head),
    "mode": lambda model: model.train(),
    "frozen": lambda model: weight_of(model).requires_grad_(False),
    "gradient": lambda model: setattr(weight_of(model), "grad", torch.ones_like(weight_of(model))),
    "config": lambda model: setattr(model.config, "attn_pdrop", 0.5),
    "default dtype": lambda _: torch.set_default_dtype(torch.float64),
    "grad mode": lambda _: torch.set_grad_enabled(False),
    "seeds": lambda _: (random.seed(1), np.random.seed(1), torch.manual_seed(1)),
}


class Messy(Method):
    """Leaves a mess, and may then fail."""

    name = "messy"
    stage = "unlearn"

    def __init__(self, mess: Callable[[PreTrainedModel], object], *, fails: bool) -> None:
        super().__init__()
        self.mess, self.fails = mess, fails

    def apply(self, testbed, context):
        self.mess(testbed.model)
        if self.fails:
            raise RuntimeError("half-way")


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("name", MESSES)
def test_the_next_cell_finds_everything_as_it_was(name: str, fails: bool) -> None:
    testbed = tiny_testbed(tiny_model("gpt2"))
    session = LoadedTestbed(testbed)
    process, model = ProcessState(), Reference(testbed.model)
    try:
        act(session, Messy(MESSES[name], fails=fails), Context())
        session.restore()
    except (RuntimeError, NoOpError, DivergedError, LeftBehindError, StateDictError):
        pass  # restored at once
    assert not process.changes()
    assert not model.differences(testbed.model).all()
    assert not model.changed_values(testbed.model)
    assert torch.isfinite(testbed.model(input_ids=testbed.forget.tokens).logits).all()


@pytest.mark.parametrize(
    ("mess", "error", "words"),
    [
        ("mode", NoOpError, "ended without changing"),
        ("hook", LeftBehindError, "a forward hook on transformer.h.0"),
        ("forward", LeftBehindError, "a replaced `forward` on the model"),
        ("patched class", LeftBehindError, "GPT2LMHeadModel.forward was replaced"),
        ("nan", DivergedError, "not finite in transformer.wte.weight"),
        ("buffer", StateDictError, "the state dict has new mask"),
        ("dtype", StateDictError, r"transformer.wte.weight is .* torch.float64, and was .* torch.float32"),
        ("module", StateDictError, "the state dict lost transformer.h.0.mlp.c_fc"),
    ],
)
def test_what_a_run_does_not_accept_is_named(mess: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        act(LoadedTestbed(tiny_testbed(tiny_model("gpt2"))), Messy(MESSES[mess], fails=False), Context())


def test_data_that_a_method_or_a_metric_changes_are_restored_and_named() -> None:
    testbed = tiny_testbed(tiny_model("gpt2"))
    before = testbed.data_digest()

    def shuffle(model: PreTrainedModel) -> None:
        weight_of(model).data.mul_(2)
        testbed.forget.tokens.copy_(testbed.forget.tokens.flip(1))

    class Zeroing(Extraction):
        def measure(self, evaluation):
            yield from super().measure(evaluation)
            evaluation.testbed.retain.tokens.zero_()

    with pytest.raises(DataChangedError, match="method 'messy' changed sequences in place: forget"):
        act(LoadedTestbed(testbed), Messy(shuffle, fails=False), Context())
    with pytest.raises(
        DataChangedError, match=r"metric 'extraction' \(class Zeroing\) changed sequences in place: retain"
    ):
        LoadedTestbed(testbed, [Zeroing()]).measure(Context())
    assert testbed.data_digest() == before


def test_a_plugin_that_exits_is_named() -> None:
    class Leaving(Extraction):
        def measure(self, evaluation):
            yield from super().measure(evaluation)
            raise SystemExit

    with pytest.raises(PluginError, match=r"method 'messy': `apply` called exit\(0\)"):
        act(LoadedTestbed(tiny_testbed(tiny_model("gpt2"))), Messy(lambda _: sys.exit(0), fails=False), Context())
    with pytest.raises(PluginError, match=r"metric 'extraction': `measure` called exit\(None\)"):
        LoadedTestbed(tiny_testbed(tiny_model("gpt2")), [Leaving()]).measure(Context())


def test_the_global_generators_are_seeded_by_the_cell() -> None:
    drawn = []

    def draw(model: PreTrainedModel) -> None:
        weight_of(model).data.mul_(0.5)
        drawn.append((torch.rand(()).item(), np.random.random(), random.random()))

    session = LoadedTestbed(tiny_testbed(tiny_model("gpt2")))
    for seed in (0, 0, 1):
        act(session, Messy(draw, fails=False), Context(seed=seed))
        session.restore()
    assert drawn[0] == drawn[1]
    assert all(one != other for one, other in zip(drawn[0], drawn[2], strict=True))
