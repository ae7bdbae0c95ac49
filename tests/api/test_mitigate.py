"""`mitigate`: a model of one's own, edited in place, measured before and after, saved and loaded again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import unmemorize
from unmemorize import ConfigError, DataError, UnmemorizeError
from unmemorize.registry.manager import Registry
from unmemorize.testing import ARCHITECTURES, tiny_model, tiny_sequences

METHODS = ("activations", "durable", "balanced_subnet", "extra")
STRONG = {
    "activations": {"ratio": 0.5},
    "durable": {"ratio": 0.3},
    "balanced_subnet": {"ratio": 0.3, "epochs": 3},
    "extra": {"epochs": 2, "learning_rate": 1e-3},
}


def own_words(model: torch.nn.Module, count: int = 6) -> list[list[int]]:
    """The model's own continuations of random prompts: they are extractable by construction."""
    ids = tiny_sequences(count, seed=5).tokens[:, :4]
    with torch.no_grad():
        for _ in range(8):
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
    return ids.tolist()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("method", METHODS)
def test_the_edited_model_keeps_its_keys_and_survives_saving(
    architecture: str, method: str, registry: Registry, tmp_path: Path
) -> None:
    model = tiny_model(architecture)
    keys = {name: (value.shape, value.dtype) for name, value in model.state_dict().items()}
    forget = own_words(model)
    mitigation = unmemorize.mitigate(
        model,
        method=method,
        forget=forget,
        retain=tiny_sequences(12, seed=6),
        prompt=4,
        registry=registry,
        **STRONG[method],
    )
    assert mitigation.model is model
    assert {name: (value.shape, value.dtype) for name, value in model.state_dict().items()} == keys
    extraction = mitigation.value("extraction", "forget")
    assert extraction.before == 100
    assert extraction.after is not None
    assert extraction.after < 100
    assert mitigation.edited > 0
    model.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    ids = torch.tensor(forget)
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_report_reads_well(registry: Registry) -> None:
    model = tiny_model("gpt2")
    mitigation = unmemorize.mitigate(
        model,
        method="durable",
        forget=own_words(model),
        retain=tiny_sequences(4, seed=1),
        registry=registry,
        ratio=0.05,
    )
    text = str(mitigation)
    assert text.startswith("durable: 204 of 8,080 parameters changed (2.525%)")
    assert "extraction@6+6" in text
    assert "->" in text


def test_texts_need_a_tokenizer(registry: Registry) -> None:
    with pytest.raises(DataError, match="forget, row 0: the row is text, and the model came without a tokenizer"):
        unmemorize.mitigate(tiny_model("gpt2"), method="durable", forget=["a b c"], registry=registry)


def test_ids_outside_the_vocabulary_are_named(registry: Registry) -> None:
    with pytest.raises(DataError, match=r"forget, row 1: tokens\[1\] is 29, outside(.|\n)*ids from 0 to 28"):
        unmemorize.mitigate(tiny_model("gpt2"), method="durable", forget=[[3, 4, 5], [3, 29, 4]], registry=registry)


def test_a_prompt_that_leaves_no_suffix_is_refused(registry: Registry) -> None:
    with pytest.raises(DataError, match="too few for a prompt of 9"):
        unmemorize.mitigate(tiny_model("gpt2"), method="durable", forget=[[3, 4, 5]], prompt=9, registry=registry)


@pytest.mark.parametrize(
    ("method", "reason", "expected", "fixes"),
    [
        ("balanced_subnet", "needs the retain set", "a retain set", ["retain=... to mitigate", "--retain FILE"]),
        ("extra", "needs the extra set", "a retain set, which is also its `extra`", ["retain=... to", "--retain FILE"]),
        ("clean", "needs the clean set", "a clean counterpart of each row", ["`clean_text` or `clean_tokens`"]),
        ("both", "needs the clean set", "of each row of forget and a retain set", ["`clean_text`", "--retain FILE"]),
        ("loss_truncation", "acts during training", "a trained model", ["unmemorize run quick --methods loss_trunc"]),
        ("spectral_norm", "acts during training", "a trained model", ["unmemorize run quick --methods spectral_norm"]),
    ],
)
def test_a_method_that_does_not_apply_says_why_and_what_to_give(
    method: str, reason: str, expected: str, fixes: list[str], registry: Registry
) -> None:
    with pytest.raises(ConfigError, match=f"method '{method}' cannot act here: it {reason}") as error:
        unmemorize.mitigate(tiny_model("gpt2"), method=method, forget=[[3, 4, 5, 6]], registry=registry)
    assert expected in error.value.expected
    assert all(fix in error.value.fix for fix in fixes)


def test_clean_counterparts_in_the_rows_are_what_clean_asks_for(registry: Registry) -> None:
    rows = [{"tokens": [3, 4, 5, 6], "clean_tokens": [3, 4, 7, 8]}]
    assert unmemorize.mitigate(tiny_model("gpt2"), method="clean", forget=rows, registry=registry, epochs=1).edited


def test_wrong_settings_and_names_are_three_part_errors(registry: Registry) -> None:
    with pytest.raises(UnmemorizeError, match=r"raito(.|\n)*ratio"):
        unmemorize.mitigate(tiny_model("gpt2"), method="durable", forget=[[3, 4]], registry=registry, raito=0.1)
    with pytest.raises(UnmemorizeError, match=r"durabel(.|\n)*durable"):
        unmemorize.mitigate(tiny_model("gpt2"), method="durabel", forget=[[3, 4]], registry=registry)


def test_after_a_failure_the_model_is_as_it_was(registry: Registry) -> None:
    registry.add_file(Path(__file__).parents[1] / "assets" / "toy.py")
    model = tiny_model("llama")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="half-way"):
        unmemorize.mitigate(model, method="toy_breaks", forget=[[3, 4, 5, 6]], registry=registry)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("metric", "on"), [("extraction", "forget"), ("accuracy", "holdout")])
def test_one_metric_is_enough_for_a_method_that_trains(metric: str, on: str, registry: Registry) -> None:
    model = tiny_model("gpt2")
    options = {"method": "extra", "epochs": 2, "retain": tiny_sequences(12, seed=6), "registry": registry}
    mitigation = unmemorize.mitigate(model, forget=own_words(model), metrics=[metric], **options)
    label = mitigation.value(metric, on).metric
    assert {value.metric for value in mitigation.values} == {label}
    assert [set(point) for point in mitigation.curve] == [{"epoch", label}] * 2


def test_an_architecture_without_a_layout_is_named(registry: Registry) -> None:
    from transformers import AutoConfig

    config = AutoConfig.for_model("mamba", vocab_size=29, hidden_size=16, num_hidden_layers=1, state_size=4)
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(
        ConfigError, match=r"no layout is registered for model type 'mamba'.* act on this model, with"
    ) as error:
        unmemorize.mitigate(model, method="durable", forget=[[3, 4, 5, 6]], registry=registry)
    assert "acts on this model, with its data: both (clean, extra), clean (clean), extra (extra" in error.value.expected
    assert error.value.fix == "method='both' in mitigate(...), --method both on its command line"
    with pytest.raises(ConfigError, match="acts on this model, with its data: both") as error:
        unmemorize.mitigate(model, method="random_neurons", forget=[[3, 4, 5, 6]], registry=registry)
    assert error.value.what.startswith("method 'random_neurons' cannot act here: no layout is registered")


@pytest.mark.parametrize("switch", ["checkpointing", "offload"])
def test_saving_memory_changes_no_number(registry: Registry, switch: str) -> None:
    plain, saving = tiny_model("gpt2"), tiny_model("gpt2")
    common = {"method": "balanced_subnet", "ratio": 0.3, "epochs": 2, "prompt": 4, "registry": registry}
    forget, retain = own_words(plain), tiny_sequences(12, seed=6)
    unmemorize.mitigate(plain, forget=forget, retain=retain, **common)
    unmemorize.mitigate(saving, forget=forget, retain=retain, **common, **{switch: True})
    assert all(torch.equal(value, saving.state_dict()[key]) for key, value in plain.state_dict().items())
