"""The gate: every kind of model is taken as what it is, or refused by name with what to type."""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from model_folders import lay_out_as_hub, save, toy_tokenizer
from torch import nn
from torch.nn.utils import prune
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from unmemorize import DataError
from unmemorize.models import adapters
from unmemorize.models.gate import admitted
from unmemorize.testing import ARCHITECTURES, tiny_model
from unmemorize.toolkit import ModelSource, model_fingerprint, open_model

IDS = torch.arange(3, 13)[None]
SMALL = {
    "vocab_size": 29, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "max_position_embeddings": 32, "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip
TARGETS = {"gpt2": ["c_fc", "c_attn"], "llama": ["down_proj", "q_proj"], "gpt_neox": ["dense", "dense_4h_to_h"]}


@pytest.fixture(autouse=True)
def _warnings_of_others() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="(peft|torchao|optimum|bitsandbytes|torch)")
        warnings.filterwarnings(
            "ignore", message=".*(fan_in_fan_out|is_gradient_checkpointing|torch.ao.quantization|torch.jit).*"
        )
        yield


def causal(model_type: str, **settings: Any) -> Any:
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **SMALL, **settings)).eval()


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.FileStore(str(tmp_path / "s"), 1), rank=0,
                                         world_size=1)  # fmt: skip
    yield
    torch.distributed.destroy_process_group()


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda model: model,
    "torch.compile": lambda model: torch.compile(model, backend="eager"),
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": nn.parallel.DistributedDataParallel,
    "both": lambda model: nn.DataParallel(torch.compile(model, backend="eager")),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.usefixtures("process_group")
def test_a_wrapper_comes_off_and_the_weights_are_the_callers(wrap: Callable[[Any], Any]) -> None:
    model = tiny_model("gpt2").train()
    model.transformer.h[0].eval()
    assert admitted(wrap(model)) is model
    assert admitted(wrap(model), in_place=True) is model
    assert model.training
    assert not model.transformer.h[0].training


@pytest.mark.usefixtures("process_group")
def test_a_model_of_several_processes_is_refused() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = fully_shard(tiny_model("llama"), mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(DataError, match=r"is spread over several processes: model.embed_tokens") as error:
        admitted(model)
    assert "pass that folder" in error.value.fix


def _inference() -> Any:
    with torch.inference_mode():
        return tiny_model("llama")


def _with(change: Callable[[Any], Any], architecture: Any = "llama") -> Any:
    model = tiny_model(architecture)
    change(model)
    return model


def _float8(model: Any) -> None:
    weight = model.model.layers[0].mlp.down_proj.weight.data
    model.model.layers[0].mlp.down_proj.weight = nn.Parameter(weight.to(torch.float8_e4m3fn), requires_grad=False)


def _compile_a_block(model: Any) -> None:
    model.model.layers[0] = torch.compile(model.model.layers[0], backend="eager")


def _meta() -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(tiny_model("gpt2").config)


def _seq2seq() -> Any:
    config = AutoConfig.for_model("t5", vocab_size=29, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return AutoModelForSeq2SeqLM.from_config(config)


REFUSED: dict[str, tuple[Callable[[], Any], str, str]] = {
    "no model": (lambda: "gpt2", "is of class str", "AutoModelForCausalLM.from_pretrained"),
    "another module": (lambda: nn.Linear(2, 2), "is of class Linear", "pipeline.model"),
    "meta": (_meta, r"has \d+ weights that are not in memory \(meta, .*, the first is transformer.wte", "bfloat16"),
    "inference tensors": (_inference, "was made under torch.inference_mode: model.embed", "copy.deepcopy"),
    "parametrized": (
        lambda: _with(lambda m: nn.utils.parametrizations.weight_norm(m.model.layers[0].mlp.down_proj)),
        "computes weights in every pass .*down_proj", "remove_parametrizations",
    ),
    "pruned": (
        lambda: _with(lambda m: prune.random_unstructured(m.lm_head, "weight", 0.5)),
        "computes weights in every pass .*lm_head.weight_orig", "prune.remove",
    ),
    "a compiled block": (lambda: _with(_compile_a_block), "has parts that torch.compile wrapped", "before its parts"),
    "float8": (lambda: _with(_float8), "is quantized: the weight .*down_proj.weight is of torch.float8", "dequantize"),
    "torch.ao": (
        lambda: torch.ao.quantization.quantize_dynamic(tiny_model("llama"), {nn.Linear}, dtype=torch.qint8),
        "is quantized with torch.ao", "dequantize",
    ),
    "says so itself": (
        lambda: _with(lambda m: m.config.update({"quantization_config": {"quant_method": "awq"}})),
        "is quantized with awq", "dequantize",
    ),
    "no head": (
        lambda: AutoModel.from_config(tiny_model("gpt2").config), r"\(GPT2Model\) has no language-model head",
        "AutoModelForCausalLM",
    ),
    "another head": (
        lambda: _others("GPT2ForTokenClassification"), r"\(GPT2ForTokenClassification\) has no language-model head",
        "AutoModelForCausalLM",
    ),
    "classifier": (
        lambda: _others("GPT2ForSequenceClassification"),
        r"\(GPT2ForSequenceClassification\) has no language-model head", "AutoModelForCausalLM",
    ),
    "encoder": (lambda: causal("bert"), r"\(BertLMHeadModel\) reads in both directions", "AutoModelForCausalLM"),
    "masked": (lambda: _others("RobertaForMaskedLM"), r"\(RobertaForMaskedLM\) reads in both directions", "AutoModel"),
    "seq2seq": (_seq2seq, r"\(T5ForConditionalGeneration\) is an encoder and a decoder", "AutoModelForCausalLM"),
}  # fmt: skip


def _others(name: str) -> Any:
    import transformers

    kind = next(kind for kind in ("gpt2", "llama", "roberta") if name.lower().startswith(kind))
    config: Any = AutoConfig.for_model(kind, **SMALL) if kind == "roberta" else _with(lambda _: None, kind).config
    return getattr(transformers, name)(config)


@pytest.mark.parametrize(("make", "said", "fix"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_taken_is_refused_by_name(make: Callable[[], Any], said: str, fix: str) -> None:
    with pytest.raises(DataError, match=f"the control {said}") as error:
        admitted(make(), "the control")
    assert fix in error.value.fix
    assert error.value.expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("model_type", [*ARCHITECTURES, "opt", "mixtral", "qwen3_moe", "gemma3_text"])
def test_causal_models_are_taken_in_every_precision(model_type: str, dtype: torch.dtype) -> None:
    model = tiny_model(model_type) if model_type in ARCHITECTURES else causal(model_type)  # type: ignore[arg-type]
    assert admitted(model.to(dtype)) is model


def test_an_encoder_that_was_made_a_decoder_is_taken() -> None:
    model = causal("bert", is_decoder=True)
    assert admitted(model) is model


@pytest.mark.parametrize("method", ["bitsandbytes", "quanto", "torchao"])
def test_quantized_models_are_refused_by_the_name_of_their_method(method: str) -> None:
    model = tiny_model("llama")
    if method == "quanto":
        quanto = pytest.importorskip("optimum.quanto")
        quanto.quantize(model, weights=quanto.qint8)
        quanto.freeze(model)
    elif method == "torchao":
        quantization = pytest.importorskip("torchao.quantization")
        quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    else:
        layer = model.model.layers[0].mlp
        layer.down_proj = pytest.importorskip("bitsandbytes").nn.Linear4bit(40, 16, bias=False)
    with pytest.raises(DataError, match=f"is quantized with {method}, the first such part is model.layers.0"):
        admitted(model)


# Adapters.


def lora(architecture: Any = "llama", **settings: Any) -> Any:
    """A tiny model with a LoRA adapter that changes what it says."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=TARGETS[architecture], task_type="CAUSAL_LM", **settings)
    model = peft.get_peft_model(tiny_model(architecture), config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.5, generator=generator)
    return model.eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_adapters_are_merged_into_a_copy(architecture: Any) -> None:
    model = lora(architecture)
    before, said = copy.deepcopy(model.state_dict()), model(IDS).logits
    merged = admitted(nn.DataParallel(model))
    assert type(merged) is type(tiny_model(architecture))
    assert merged.state_dict().keys() == tiny_model(architecture).state_dict().keys()
    assert all(parameter.requires_grad for parameter in merged.parameters())
    assert torch.allclose(merged(IDS).logits, said, atol=1e-4)
    assert not torch.allclose(merged(IDS).logits, tiny_model(architecture)(IDS).logits, atol=1e-2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(DataError, match=r"the model holds PEFT adapters \(default\)") as error:
        admitted(model, in_place=True)
    assert error.value.fix == "model = model.merge_and_unload()"


def test_an_adapter_that_is_off_is_left_out() -> None:
    model = lora()
    model.base_model.disable_adapter_layers()
    assert torch.equal(admitted(model)(IDS).logits, tiny_model("llama")(IDS).logits)


def test_an_adapter_that_transformers_holds_is_merged() -> None:
    peft = pytest.importorskip("peft")
    model = tiny_model("llama")  # as `model.add_adapter` leaves it, whatever version of peft that asks for
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["down_proj"], init_lora_weights=False), model)
    model._hf_peft_config_loaded = True
    merged = admitted(model)
    assert merged.state_dict().keys() == tiny_model("llama").state_dict().keys()
    assert torch.allclose(merged(IDS).logits, model(IDS).logits, atol=1e-4)
    assert not merged._hf_peft_config_loaded


def test_adapters_of_a_quantized_model_are_not_merged() -> None:
    model = lora()
    model.config.quantization_config = {"quant_method": "bitsandbytes"}
    with pytest.raises(DataError, match="the model is quantized with bitsandbytes"):
        admitted(model)


def test_prompts_that_were_learned_cannot_be_merged() -> None:
    peft = pytest.importorskip("peft")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(DataError, match="of type PROMPT_TUNING holds no weights") as error:
        admitted(peft.get_peft_model(tiny_model("llama"), config))
    assert "get_base_model()" in error.value.fix


@pytest.fixture
def adapter(folder: Path, tmp_path: Path) -> Path:
    """A folder with an adapter of the GPT-2 in `folder`."""
    model = lora("gpt2")
    model.peft_config["default"].base_model_name_or_path = str(folder)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_what_peft_asks_of_transformers_by_old_names_reaches_no_user(adapter: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        open_model(ModelSource(model=str(adapter)))


def test_an_adapter_folder_is_merged_into_the_base_that_it_names(adapter: Path, folder: Path) -> None:
    source = ModelSource(model=str(adapter))
    opened = open_model(source)
    assert torch.allclose(opened.model(IDS).logits, lora("gpt2")(IDS).logits, atol=1e-4)
    assert opened.tokenizer is None
    toy_tokenizer().save_pretrained(adapter)
    assert open_model(source).tokenizer("w3")["input_ids"] == [3]
    before = model_fingerprint(source)
    save(tiny_model("gpt2", seed=1), folder)
    assert model_fingerprint(source) != before


def test_an_adapter_of_the_hub_brings_its_base(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    base, snapshot = (lay_out_as_hub(tmp_path / "hub", name, "main", "a" * 40) for name in ("me/base", "me/adapter"))
    save(tiny_model("gpt2"), base)
    _rewrite(adapter, "adapter_config.json", base_model_name_or_path="me/base")
    shutil.copytree(adapter, snapshot, dirs_exist_ok=True)
    source = ModelSource(model="me/adapter")
    assert torch.allclose(open_model(source).model(IDS).logits, lora("gpt2")(IDS).logits, atol=1e-4)
    assert model_fingerprint(source) == f"me/adapter@{'a' * 40} on me/base@{'a' * 40}"


def _rewrite(folder: Path, name: str, **changes: Any) -> None:
    said = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(said | changes))


def test_an_adapter_whose_base_cannot_be_had_says_so(adapter: Path) -> None:
    _rewrite(adapter, "adapter_config.json", base_model_name_or_path="/not/here")
    with pytest.raises(DataError, match=r"is a PEFT adapter, and its base cannot be had: .*no file or folder 'here'"):
        open_model(ModelSource(model=str(adapter)))
    _rewrite(adapter, "adapter_config.json", base_model_name_or_path=None)
    with pytest.raises(DataError, match="names no base") as error:
        open_model(ModelSource(model=str(adapter)))
    assert "merge_and_unload()" in error.value.fix


def test_an_adapter_of_another_model_is_refused(adapter: Path, tmp_path: Path) -> None:
    other = save(tiny_model("llama"), tmp_path / "other")
    _rewrite(adapter, "adapter_config.json", base_model_name_or_path=str(other))
    with pytest.raises(DataError, match="cannot be merged into its base"):
        open_model(ModelSource(model=str(adapter)))


def test_an_adapter_folder_without_weights_names_the_file_before_its_base_is_loaded(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    _rewrite(adapter, "adapter_config.json", base_model_name_or_path="/not/here")
    with pytest.raises(DataError, match=r"adapter without weights: it has .* and no adapter_model.safetensors"):
        open_model(ModelSource(model=str(adapter)))
    torch.save({}, adapter / "adapter_model.bin")  # the older name
    with pytest.raises(DataError, match="its base cannot be had"):
        open_model(ModelSource(model=str(adapter)))


def test_peft_is_an_extra(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"is a PEFT adapter .* and peft is not installed") as error:
        open_model(ModelSource(model=str(adapter)))
    assert error.value.fix == "pip install peft"


# Folders.


def _pointer(file: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / file).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
    )


def _shards(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    tiny_model("gpt2").save_pretrained(folder, max_shard_size="10KB")
    _pointer("model-00002-of-00005.safetensors")(folder)


def _larger_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = models.WordLevel({f"w{number}": number for number in range(40)}, unk_token="w0")
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words)).save_pretrained(folder)


FOLDERS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "pointer": (_pointer("model.safetensors"), "git-lfs pointers instead of files: model.safetensors", "git lfs pull"),
    "tokenizer": (_pointer("tokenizer.json"), "git-lfs pointers instead of files: tokenizer.json", "git lfs pull"),
    "config": (_pointer("config.json"), "git-lfs pointers instead of files: config.json", "git lfs pull"),
    "shard": (_shards, "instead of files: model-00002-of-0000", "git lfs pull"),
    "vocabulary": (
        lambda folder: _rewrite(folder, "config.json", vocab_size=20),
        r"the weight transformer.wte.weight is \(29, 16\) in its files and \(20, 16\) by its config.json",
        "restore the config.json",
    ),
    "quantized": (
        lambda folder: _rewrite(folder, "config.json", quantization_config={"quant_method": "gptq", "bits": 4}),
        "is quantized with gptq", "--dtype bfloat16",
    ),
    "encoder and decoder": (
        lambda folder: _rewrite(folder, "config.json", is_encoder_decoder=True, model_type="bart"),
        "an encoder and a decoder", "name another model",
    ),
    "reads both ways": (lambda folder: save(causal("bert"), folder), "reads in both directions", "Llama"),
    "fewer layers": (
        lambda folder: _rewrite(folder, "config.json", n_layer=1),
        "its files hold 11 weights for which .* has no place: transformer.h.1.attn.c_attn.w", "restore the config",
    ),
    "fewer layers of Llama": (
        lambda folder: _rewrite(save(tiny_model("llama"), folder), "config.json", num_hidden_layers=1),
        r"its files hold 9 weights for which .* has no place: model.layers.1.input_layernorm", "restore the config",
    ),
    "two heads": (
        lambda folder: save(_others("GPT2DoubleHeadsModel"), folder), "hold 2 weights .*: multiple_choice_head",
        "save_pretrained",
    ),
    "classifier": (
        lambda folder: save(_others("GPT2ForSequenceClassification"), folder),
        r"is a GPT2ForSequenceClassification: it has no language-model head .*\(score.weight\)", "was trained from",
    ),
    "classifier without ties": (
        lambda folder: save(_others("LlamaForTokenClassification"), folder),
        r"is a LlamaForTokenClassification: it has no language-model head .*\(score.bias\)", "was trained from",
    ),
    "tokenizer of another": (
        _larger_tokenizer, "has 40 entries, and the model has embeddings for 29", "resize",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "said", "fix"), FOLDERS.values(), ids=FOLDERS)
def test_a_folder_that_cannot_be_taken_says_why(
    spoil: Callable[[Path], Any], said: str, fix: str, with_tokenizer: Path
) -> None:
    spoil(with_tokenizer)
    with pytest.raises(DataError, match=said) as error:
        open_model(ModelSource(model=str(with_tokenizer)))
    assert fix in error.value.fix


@pytest.mark.parametrize("architectures", [None, ["GPT2Model"], ["MyOwnModel"], ["GPT2ForSequenceClassification"]])
def test_a_folder_is_taken_by_its_weights_and_not_by_the_class_that_it_names(architectures: Any, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = tiny_model("gpt2")
    save(model.transformer, folder)  # the base alone: its embedding is the head
    masks = {"h.0.attn.bias": torch.ones(1, 1, 8, 8), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    save_file(load_file(folder / "model.safetensors") | masks, folder / "model.safetensors", {"format": "pt"})
    _rewrite(folder, "config.json", architectures=architectures)
    assert torch.equal(open_model(ModelSource(model=str(folder))).model(IDS).logits, model(IDS).logits)
