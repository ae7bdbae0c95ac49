"""What every built-in method declares to cost is what it takes: tokens exactly, memory within a factor of two."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from unmemorize import Context, Method, Sequences, Testbed, TrainingRecipe, Window
from unmemorize.execution.estimate import needed
from unmemorize.registry.manager import Registry
from unmemorize.testing import ARCHITECTURES, tiny_model
from unmemorize.testing.models import known_mlps
from unmemorize.toolkit import train

REGISTRY = Registry.load("none")
METHODS = REGISTRY.names("method")
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "zero_out": [{"batch_size": 4}, {"estimator": "taylor", "batch_size": 4}],
    "integrated_gradients": [{"steps": 3, "batch_size": 4}, {"steps": 2, "samples": 3, "positions": 3}],
    "slimming": [{"max_steps": 4, "batch_size": 4}],
    "hard_concrete": [{"max_steps": 3, "batch_size": 4}],
    "greedy": [{"steps": 5, "batch_size": 3}, {"ratio": 0.002, "steps": None}],
    "second_order": [{"batch_size": 4}, {"memory": 1e-9, "samples": 4}],
    "subnet": [{"epochs": 2, "batch_size": 4}],
    "balanced_subnet": [{"epochs": 2, "batch_size": 5}],
    "extra": [{"epochs": 2}, {"max_steps": 2, "batch_size": 5}],
}
CASES = [(name, settings) for name in METHODS for settings in SETTINGS.get(name, [{}])]
TRAINING = 20


def rows(count: int, *, first: int, length: int = 12, vocabulary: int = 29) -> Sequences:
    generator = torch.Generator().manual_seed(first)
    return Sequences.from_rows(
        torch.randint(3, vocabulary, (count, length), generator=generator), prompt=5, pad_id=2, first_id=first
    )


def even_testbed(model: Any) -> Testbed:
    """Rows of equal length, so that no batch holds more padding than another."""
    return Testbed(
        name="even", model=model, forget=rows(6, first=0), retain=rows(10, first=100), extra=rows(10, first=200),
        clean=rows(4, first=300), window=Window(5, 7), pad_id=2, trainable=True,
        recipe=TrainingRecipe(epochs=2, batch_size=5), mlps=known_mlps(model, REGISTRY),
        facts={"training_tokens": 2 * TRAINING * 12, "training_sequences": TRAINING, "epochs": 2, "steps": 8},
    )  # fmt: skip


def configured(name: str, settings: dict[str, Any]) -> Method:
    """A method that selects something in models as small as these."""
    kind = REGISTRY.method(name)
    small = {"ratio": 0.1} if "ratio" in kind.Config.model_fields else {}
    return kind(**small | settings)


class Tally(NamedTuple):
    """Tokens through an MLP, summed over all of them."""

    forward: list[int]
    backward: list[int]


@contextmanager
def counted(testbed: Testbed) -> Iterator[Tally]:
    tally = Tally([], [])

    def count(_: object, inputs: tuple[torch.Tensor, ...], __: object) -> None:
        (tally.backward if torch.is_grad_enabled() else tally.forward).append(inputs[0].shape[:-1].numel())

    handles = [mlp.up.module.register_forward_hook(count) for mlp in testbed.mlps]
    try:
        yield tally
    finally:
        for handle in handles:
            handle.remove()


def apply(method: Method, testbed: Testbed, *, offload: bool = False) -> None:
    """Let a method act; one that trains again trains the same model."""
    context = Context(seed=0, offload=offload)

    def train_again(regularizer: Any) -> None:
        train(testbed.model, rows(TRAINING, first=400), testbed.recipe, context, regularizer=regularizer,
              mlps=testbed.mlps)  # fmt: skip

    context.train_again = train_again
    method.apply(testbed.shown_to(method.name, method.needs), context)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_declared_tokens_are_the_tokens_that_pass(name: str, settings: dict[str, Any], architecture: Any) -> None:
    testbed = even_testbed(tiny_model(architecture))
    method = configured(name, settings)
    declared = method.cost(testbed.shown_to(name, method.needs))
    assert declared is not None
    with counted(testbed) as tally:
        apply(method, testbed)
    layers = len(testbed.mlps)
    assert sum(tally.forward) / layers == pytest.approx(declared.forward_tokens)
    assert sum(tally.backward) / layers == pytest.approx(declared.backward_tokens + declared.training_tokens)


@pytest.mark.parametrize("name", METHODS)
def test_a_cost_is_declared_from_what_the_method_may_see_and_nothing_is_run(name: str) -> None:
    testbed = even_testbed(tiny_model("llama"))
    before = copy.deepcopy(testbed.model.state_dict())
    method = REGISTRY.method(name)()
    with counted(testbed) as tally:
        declared = method.cost(testbed.shown_to(name, method.needs))
    assert declared is not None
    assert not tally.forward
    assert not tally.backward
    assert all(torch.equal(value, before[key]) for key, value in testbed.model.state_dict().items())


def test_regularizers_need_the_facts_of_the_first_training() -> None:
    testbed = dataclasses.replace(even_testbed(tiny_model("gpt2")), facts={})
    assert all(
        REGISTRY.method(name)().cost(testbed) is None for name in METHODS if REGISTRY.method(name).stage == "train"
    )


WIDE = 8192
"""Neurons of a model whose MLP weights dwarf everything else."""
LARGE: dict[str, dict[str, Any]] = {
    "durable": {},
    "durable_aggregate": {},
    "greedy": {"steps": 2},
    "subnet": {"epochs": 1},
    "balanced_subnet": {"epochs": 1},
    "second_order": {"block": 8, "memory": 0.25},
    "random_weights": {},
    "extra": {"epochs": 1},
    "slimming": {"max_steps": 1},
    "zero_out": {"estimator": "taylor"},
}


def wide_testbed() -> Testbed:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=29, n_positions=64, n_embd=128, n_layer=2, n_head=2, n_inner=WIDE, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config).eval()
    testbed = even_testbed(model)
    return dataclasses.replace(testbed, forget=rows(4, first=0, length=40), retain=rows(4, first=50, length=40))


class LargeTensors(TorchDispatchMode):
    """The bytes of large storages that are made inside and alive together: what a device would have to hold."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.peak = 0
        self._model = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **kwargs or {})
        tree_map_only(torch.Tensor, self._see, result)
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return result

    def _see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        known = key in self._model or (key in self._alive and not self._alive[key][0].expired())
        if storage.nbytes() > 2**16 and not known:
            self._alive[key] = StorageWeakRef(storage), storage.nbytes()


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("name", LARGE)
def test_declared_memory_is_within_a_factor_of_the_measured(name: str, offload: bool) -> None:
    testbed = wide_testbed()
    method = REGISTRY.method(name)(**LARGE[name])
    declared = method.cost(testbed.shown_to(name, method.needs))
    assert declared is not None
    need = needed(testbed, declared, Context(offload=offload))
    with LargeTensors(testbed.model) as measured:
        apply(method, testbed, offload=offload)
    assert 0.6 < measured.peak / (need.device + need.cpu) < 1.5
