"""What is left on a model is named, whatever it is, and restored bit by bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from unmemorize.contracts.bits import Fingerprint, same_bits
from unmemorize.execution.reference import Reference
from unmemorize.testing import tiny_model

Change = Callable[[PreTrainedModel], object]


def first(model: PreTrainedModel) -> torch.nn.Parameter:
    return model.get_parameter("transformer.wte.weight")


def share(model: PreTrainedModel) -> None:
    one, two = (block.mlp.c_fc for block in model.transformer.h)
    one.weight.data = two.weight.data


def untie(model: PreTrainedModel) -> None:
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())


HEAD = "lm_head"
CHANGES: dict[str, list[tuple[Change, str]]] = {
    "hooks": [
        (lambda model: model.lm_head.register_forward_hook(print), "a forward hook on lm_head"),
        (lambda model: model.lm_head.register_forward_pre_hook(print), "a forward pre hook on lm_head"),
        (lambda model: model.lm_head.register_full_backward_hook(print), "a backward hook on lm_head"),
        (lambda model: model.lm_head.register_state_dict_post_hook(lambda *_: None), "a state dict hook on lm_head"),
        (lambda model: setattr(model.lm_head, "forward", print), "a replaced `forward` on lm_head"),
        (
            lambda model: torch.nn.utils.parametrizations.weight_norm(model.lm_head),
            "another class (a parametrization or a wrapper) of lm_head",
        ),
        (lambda model: setattr(model, "more", torch.nn.Identity()), "a new module more"),
        (lambda model: delattr(model.transformer.h[0].mlp, "act"), "no module transformer.h.0.mlp.act"),
        (lambda model: first(model).register_hook(print), "a backward hook on the weight transformer.wte.weight"),
        (
            lambda model: first(model).register_post_accumulate_grad_hook(print),
            "a post accumulate grad hook on the weight transformer.wte.weight",
        ),
    ],
    "attributes": [
        (lambda model: setattr(model.transformer.ln_f, "eps", 5.0), "`eps` of transformer.ln_f"),
        (lambda model: setattr(model, "mark", 1), "`mark` of the model"),
        (lambda model: setattr(model.config, "use_cache", False), "`use_cache` of the model's config"),
        (lambda model: model.config.id2label.update({7: "seven"}), "`id2label` of the model's config"),
        (
            lambda model: setattr(model.generation_config, "repetition_penalty", 3.0),
            "`repetition_penalty` of the model's generation config",
        ),
    ],
    "modes": [
        (lambda model: model.lm_head.train(), "training mode of lm_head"),
        (lambda model: first(model).requires_grad_(False), "requires_grad of transformer.wte.weight"),
        (lambda model: setattr(first(model), "grad", first(model) * 0), "a gradient left in transformer.wte.weight"),
        (
            lambda model: setattr(model.transformer.h[0], "gradient_checkpointing", True),
            "gradient checkpointing of transformer.h.0",
        ),
    ],
}
VALUES: dict[str, Change] = {
    "zeros": lambda model: first(model).data.zero_(),
    "nan": lambda model: first(model).data.fill_(torch.nan),
    "the sign of zero": lambda model: model.transformer.h[0].mlp.c_fc.bias.data.mul_(-1.0),
    "another dtype": lambda model: model.half(),
    "another shape": lambda model: setattr(first(model), "data", torch.zeros(2, 2)),
    "strides": lambda model: setattr(first(model), "data", first(model).data.T.contiguous().T),
    "shared memory": share,
    "a tie": untie,
    "a buffer that is not saved": lambda model: [buffer.zero_() for buffer in model.buffers()],
    "a new buffer": lambda model: model.register_buffer("more", torch.ones(1), persistent=False),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_what_is_left_is_named_and_restored(kind: str) -> None:
    for change, words in CHANGES[kind]:
        model = tiny_model("gpt2")
        reference, known = Reference(model), Reference(model, values=False)
        change(model)
        assert words in getattr(known.differences(model), kind)
        assert reference.restore() == []
        assert known.differences(model).all() == []


@pytest.mark.parametrize("name", VALUES)
def test_values_are_restored_bit_by_bit(name: str) -> None:
    model = tiny_model("gpt2")
    model.transformer.h[0].mlp.c_fc.bias.data.zero_()
    model.register_buffer("table", torch.ones(3), persistent=False)
    reference = Reference(model)
    places = [(weight.data_ptr(), weight.stride()) for weight in model.parameters()]
    VALUES[name](model)
    assert reference.changed_values(model) or name in ("strides", "a tie")
    assert reference.restore() == []
    assert reference.changed_values(model) == []
    assert places == [(weight.data_ptr(), weight.stride()) for weight in model.parameters()]
    assert model.lm_head.weight is first(model)
    assert reference.other_shape(model) == ""


@pytest.mark.parametrize(("change", "words"), [(share, "transformer.h.1.mlp.c_fc.weight"), (untie, "lm_head.weight")])
def test_ties_belong_to_the_shape(change: Change, words: str) -> None:
    model = tiny_model("gpt2")
    reference = Reference(model)
    change(model)
    assert reference.other_shape(model) == f"other tensors share their memory than did: {words}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.bool, torch.complex64])
@pytest.mark.parametrize("size", [1, 7, 1024, 5000])
def test_a_fingerprint_shows_every_single_change(dtype: torch.dtype, size: int) -> None:
    tensor = torch.zeros(size, dtype=dtype)
    before = Fingerprint.of(tensor)
    assert Fingerprint.of(tensor.clone()) == before
    for place in {0, size // 2, size - 1}:
        changed = tensor.clone()
        changed[place] = 1
        assert Fingerprint.of(changed) != before
        assert not same_bits(changed, tensor)
    assert Fingerprint.of(tensor[: size - 1]) != before


def test_rows_that_change_places_show() -> None:
    table = torch.randn(64, 1024)
    assert Fingerprint.of(table.flip(0)) != Fingerprint.of(table)
    assert Fingerprint.of(table.flip(1)) != Fingerprint.of(table)
