"""`mitigate`, `find` and `apply_edits`: whatever a model is wrapped in and whatever the caller left on, and back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from model_folders import save, toy_tokenizer

import unmemorize
from unmemorize import Context, DataError, Mitigation, ModelProvider, Testbed
from unmemorize.execution.runtime import load_testbed
from unmemorize.registry.manager import Registry
from unmemorize.testing import tiny_model, tiny_sequences

METHODS: dict[str, dict[str, Any]] = {
    "durable": {"ratio": 0.3},
    "integrated_gradients": {"ratio": 0.3},
    "balanced_subnet": {"ratio": 0.3, "epochs": 2},
    "extra": {"epochs": 2, "learning_rate": 1e-3},
}
FORGET, RETAIN = [list(range(3, 15)), list(range(15, 27))], tiny_sequences(8, seed=6)


def mitigated(model: Any, registry: Registry, method: str = "durable", **more: Any) -> Mitigation:
    return unmemorize.mitigate(
        model, method=method, forget=FORGET, retain=RETAIN, prompt=4, registry=registry,
        **METHODS[method] | more,
    )  # fmt: skip


@contextlib.contextmanager
def _default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def _nothing(model: Any) -> Any:
    return contextlib.nullcontext()


def _gradients(model: Any) -> Any:
    model(torch.arange(3, 9)[None]).logits.sum().backward()
    return contextlib.nullcontext()


def _partly_in_train_mode(model: Any) -> Any:
    model.train()
    model.model.layers[1].eval()
    return contextlib.nullcontext()


def _compiled_in_place(model: Any) -> Any:
    model.compile(backend="eager")
    model(torch.arange(3, 9)[None])
    return contextlib.nullcontext()


LEFT_ON: dict[str, Callable[[Any], Any]] = {
    "frozen": lambda model: contextlib.nullcontext(model.requires_grad_(requires_grad=False)),
    "partly frozen": lambda model: contextlib.nullcontext(model.model.layers.requires_grad_(requires_grad=False)),
    "gradients": _gradients,
    "no_grad": lambda model: torch.no_grad(),
    "inference_mode": lambda model: torch.inference_mode(),
    "autocast": lambda model: torch.autocast("cpu", torch.bfloat16),
    "float64": lambda model: _default_dtype(torch.float64),
    "bfloat16": lambda model: _default_dtype(torch.bfloat16),
    "default device": lambda model: _default_device("meta"),
    "train mode": _partly_in_train_mode,
    "checkpointing": lambda model: contextlib.nullcontext(model.train().gradient_checkpointing_enable()),
    "compiled in place": _compiled_in_place,
}


def _state(model: Any) -> list[Any]:
    return [
        torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"),
        [module.training for module in model.modules()],
        [getattr(module, "gradient_checkpointing", None) for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [None if parameter.grad is None else parameter.grad.sum().item() for parameter in model.parameters()],
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:`(gradient_checkpointing_enable|is_gradient_checkpointing)` is deprecated")
@pytest.mark.parametrize("leave", LEFT_ON.values(), ids=LEFT_ON)
@pytest.mark.parametrize("method", METHODS)
def test_what_the_caller_left_on_changes_no_number_and_stays_on(
    method: str, leave: Callable[[Any], Any], registry: Registry
) -> None:
    expected = mitigated(tiny_model("llama"), registry, method)
    model = tiny_model("llama")
    with leave(model):
        before = _state(model)
        made = mitigated(model, registry, method)
        assert _state(model) == before
    assert [value.after for value in made.values] == [value.after for value in expected.values]
    assert made.model is model
    assert made.edits.keys() == expected.edits.keys()
    assert all(torch.equal(value, made.model.state_dict()[name]) for name, value in expected.model.state_dict().items())


def test_a_model_made_under_inference_mode_is_refused(registry: Registry) -> None:
    with torch.inference_mode():
        model = tiny_model("llama")
        with pytest.raises(DataError, match="was made under"):
            mitigated(model, registry)


@pytest.mark.parametrize("wrap", [lambda m: torch.compile(m, backend="eager"), torch.nn.DataParallel])
def test_a_wrapped_model_is_edited_within_and_its_files_name_the_weights(
    wrap: Callable[[Any], Any], registry: Registry, tmp_path: Path
) -> None:
    model = tiny_model("llama")
    wrapped = wrap(model)
    wrapped(torch.arange(3, 9)[None])
    made = mitigated(wrapped, registry)
    assert made.model is model
    made.save(tmp_path / "saved")
    other = wrap(tiny_model("llama"))
    assert unmemorize.apply_edits(other, tmp_path / "saved/edits.safetensors") == made.edited
    ids = torch.arange(3, 13)[None]
    assert torch.equal(other(ids).logits, model(ids).logits)
    assert torch.equal(wrapped(ids).logits, model(ids).logits)


def test_a_model_can_be_named(registry: Registry, tmp_path: Path) -> None:
    folder = save(tiny_model("llama"), tmp_path / "model")
    made = mitigated(str(folder), registry, device="cpu")
    expected = mitigated(tiny_model("llama"), registry)
    assert all(torch.equal(value, made.model.state_dict()[name]) for name, value in expected.model.state_dict().items())
    assert made.model.generation_config.pad_token_id == expected.model.generation_config.pad_token_id


def test_both_models_of_a_search_pass_the_gate(tmp_path: Path) -> None:
    texts, tokenizer = [" ".join(f"w{number}" for number in range(3, 27))], toy_tokenizer()
    model = torch.compile(tiny_model("llama"), backend="eager")
    settings: dict[str, Any] = {"tokenizer": tokenizer, "prompt": 4, "suffix": 2, "stride": 1}
    found = unmemorize.find(model, texts, **settings)
    assert found.checked == 19
    with pytest.raises(DataError, match="the control is of class Linear"):
        unmemorize.find(model, texts, control=torch.nn.Linear(2, 2), **settings)
    with pytest.raises(DataError, match=r"has no language-model head"):
        unmemorize.find(tiny_model("llama").model, texts, **settings)


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (torch.nn.DataParallel, ""),
        (lambda model: model.model, "the model of the testbed 'mine' .LlamaModel. has no language-model head"),
    ],
)
def test_the_model_of_any_provider_passes_the_gate(wrap: Callable[[Any], Any], said: str, registry: Registry) -> None:
    model = tiny_model("llama")

    class Wraps(ModelProvider):
        """Gives its model as it came."""

        name = "wraps"

        def fingerprint(self) -> dict[str, str]:
            return {}

        def load(self, context: Context) -> Testbed:
            return Testbed(name=self.name, model=wrap(model), forget=RETAIN)

    with contextlib.nullcontext() if not said else pytest.raises(DataError, match=said):
        assert load_testbed(Wraps(Wraps.Config()), "mine", Context(), registry).model is model
