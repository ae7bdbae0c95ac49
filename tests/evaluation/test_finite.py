"""Logits that are not finite are an error wherever something is measured, never a sign that nothing is memorized."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from model_folders import toy_tokenizer

import unmemorize
from unmemorize import hookimpl
from unmemorize.contracts.context import Context
from unmemorize.errors import DivergedError, NotFiniteError
from unmemorize.evaluation import Evaluation
from unmemorize.registry.manager import Registry
from unmemorize.testing import tiny_model, tiny_sequences, tiny_testbed

ROWS = [list(range(3, 15)), list(range(15, 27))]


def overflowing(dtype: torch.dtype) -> Any:
    """A model whose residual stream is beyond float16, and harmless in float32: the next layer norm takes it back."""
    model = tiny_model("gpt2")
    with torch.no_grad():
        for block in model.transformer.h:
            for linear in (block.attn.c_proj, block.mlp.c_proj):
                linear.weight.mul_(3e5)
        model.transformer.wte.weight.mul_(3e4)
        model.transformer.wpe.weight.mul_(3e4)
    return model.to(dtype)


def broken(dtype: torch.dtype) -> Any:
    model = tiny_model("llama").to(dtype)
    model.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("nan")
    return model


def infinite(dtype: torch.dtype) -> Any:
    model = tiny_model("llama").to(dtype)
    model.lm_head.register_forward_hook(lambda _, __, logits: logits.index_fill(-1, torch.tensor([3]), float("inf")))
    return model


KINDS: dict[str, tuple[Callable[[torch.dtype], Any], torch.dtype, str, str]] = {
    "float16": (overflowing, torch.float16, "float16", "--dtype float32"),
    "NaN": (broken, torch.float32, "hold NaN or infinity in model.layers.1.mlp.down_proj.weight", "again"),
    "infinity": (infinite, torch.float32, "float32", "name another"),
}


def _mitigate(model: Any) -> Any:
    return unmemorize.mitigate(
        model, method="durable", forget=ROWS, retain=tiny_sequences(4, seed=6), prompt=4,
        registry=Registry.load("none"), metrics=["extraction", "accuracy"],
    )  # fmt: skip


def _find(model: Any, **more: Any) -> Any:
    text = " ".join(f"w{number}" for number in range(3, 27))
    return unmemorize.find(model, [text], tokenizer=toy_tokenizer(), prompt=4, suffix=6, **more)


def _decode(model: Any) -> Any:
    testbed = tiny_testbed(model, mlps=())
    return Evaluation(testbed, Context()).extraction("forget", testbed.window, generate=True)


@pytest.mark.parametrize("measure", [_mitigate, _find, _decode])
@pytest.mark.parametrize(("make", "dtype", "said", "fix"), KINDS.values(), ids=KINDS)
def test_a_model_that_is_not_finite_is_an_error_before_any_method_acts(
    make: Any, dtype: torch.dtype, said: str, fix: str, measure: Callable[[Any], Any]
) -> None:
    with pytest.raises(NotFiniteError, match=rf"the model's (logits are not finite|own weights) .*{said}") as error:
        measure(make(dtype))
    assert fix in error.value.fix


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_no_row_touches_is_the_models_own_and_not_the_methods(value: float, registry: Registry) -> None:
    model = tiny_model("llama")
    model.model.embed_tokens.weight.data[28] = value
    with pytest.raises(NotFiniteError, match=r"own weights hold NaN or infinity in model.embed_tokens.weight") as error:
        unmemorize.mitigate(model, method="random_weights", forget=ROWS, prompt=4, ratio=0.1, registry=registry)
    assert "download the model again" in error.value.fix


def test_a_mask_of_infinities_that_a_model_comes_with_is_not_the_methods(registry: Registry) -> None:
    model = tiny_model("llama")
    model.register_buffer("mask", torch.full((2,), -float("inf")))
    assert unmemorize.mitigate(model, method="random_weights", forget=ROWS, prompt=4, ratio=0.1, registry=registry)


@pytest.mark.parametrize("measure", [_mitigate, _find])
def test_the_same_model_is_measured_where_its_numbers_fit(measure: Callable[[Any], Any]) -> None:
    measure(overflowing(torch.float32))
    measure(overflowing(torch.bfloat16))


def test_a_control_that_is_not_finite_is_an_error() -> None:
    model = tiny_model("llama")
    model.lm_head.weight.data.zero_()  # it says the first token, always
    text = " ".join(["w0"] * 24)
    settings: dict[str, Any] = {"tokenizer": toy_tokenizer(), "prompt": 4, "suffix": 6}
    assert unmemorize.find(model, [text], **settings).windows
    with pytest.raises(NotFiniteError, match="a window of 10 tokens"):
        unmemorize.find(model, [text], control=overflowing(torch.float16), **settings)


def test_logits_that_rule_tokens_out_are_finite() -> None:
    model = tiny_model("llama")
    model.lm_head.register_forward_hook(lambda _, __, logits: logits.index_fill(-1, torch.tensor([28]), -float("inf")))
    assert _find(model).checked


def test_a_method_that_leaves_logits_that_are_not_finite_has_diverged(registry: Registry) -> None:
    class Breaks(unmemorize.Method):
        """Leaves finite weights beyond what the next layer can add."""

        name = "breaks"
        stage = "unlearn"

        def apply(self, testbed: Any, context: Any) -> None:
            testbed.model.lm_head.weight.data.copy_(testbed.model.lm_head.weight.sign() * 1e38)

    registry.add(SimpleNamespace(register_methods=hookimpl(lambda: [Breaks])))
    with pytest.raises(DivergedError, match="method 'breaks' left values that are not finite in the logits"):
        unmemorize.mitigate(tiny_model("llama"), method="breaks", forget=ROWS, prompt=4, registry=registry)
