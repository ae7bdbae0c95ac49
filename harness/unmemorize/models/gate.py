"""The one gate of every model: what it is, what is done with it, or why nothing can be, before anything is computed.

Two tables of kinds. `_FILES`: what the files of a folder or of the hub show before a weight is read. `_OBJECTS`: what a
model in memory shows. A kind has a recogniser, and either what is done with it or what is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unmemorize.errors import DataError, nearest
from unmemorize.files.error_reasons import reason_of
from unmemorize.models.adapters import MODELS, holds_adapters, is_a, merged_copy, names_of
from unmemorize.models.origins import CONFIG, Origin, config_of, is_pointer
from unmemorize.models.stored import odd_weights
from unmemorize.models.versions import evaluation_mode

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


class Kind(NamedTuple):
    """A kind of model that cannot be taken as it is."""

    seen: Callable[..., str | None]
    """Says what shows that a model is of this kind, as the end of a sentence about it; or nothing."""
    expected: str
    fix: str = ""
    done: Callable[[Any], Any] | None = None
    """Makes a model of it that can be taken; without it the kind is refused."""


@dataclass(frozen=True)
class Files:
    """What is known of a model before its weights are read."""

    origin: Origin
    trusted: bool
    """Whether Python files that come with it may be run."""

    @cached_property
    def config(self) -> dict[str, Any]:
        """What its config.json holds."""
        return config_of(self.origin)


def admitted(model: Any, name: str = "the model", *, in_place: bool = False) -> PreTrainedModel:
    """Return the causal language model that `model` is or wraps, ready to be read, trained and edited.

    `torch.compile`, `DataParallel` and `DistributedDataParallel` are taken off: what is inside shares its weights with
    the wrapper. The adapters of a PEFT model are merged into a copy: the model itself stays as it is.

    Args:
        model: what a user or a provider gives.
        name: what errors call it.
        in_place: for edits of the very weights that were given: adapters are then refused, and nothing is computed.

    Raises:
        DataError: it is of a kind with which nothing right can be done; it says which, and what to type.

    Cost: two passes over a row of 8 tokens.
    """
    for kind in _OBJECTS:
        if in_place and kind.seen is _runs:
            continue
        while said := kind.seen(model):
            if kind.done is None or (in_place and kind.done is merged_copy):
                raise DataError(f"{name} {said}", expected=kind.expected, fix=kind.fix)
            model = kind.done(model)
    return model


def check_pulled(origin: Origin) -> None:
    """Refuse a folder in which git-lfs left pointers.

    Raises:
        DataError: there are some, also if only one shard is one.
    """
    pointers = [file.name for file in origin.files() if is_pointer(file)]
    if pointers:
        raise DataError(
            f"model = {origin.name!r} holds git-lfs pointers instead of files: {', '.join(pointers)}",
            expected="the files themselves: a pointer says in three lines where the file is",
            fix="type `git lfs pull` in that folder, or download the files again",
        )


def check_files(files: Files) -> None:
    """Refuse, before any weight is read, a model whose files say that it cannot be taken.

    Raises:
        DataError: an unknown architecture, code of its own that nobody trusted, no causal language model, or
            quantized weights.
    """
    for kind in _FILES:
        said = kind.seen(files)
        if said:
            like = ", ".join(_like(str(files.config.get("model_type"))))
            raise DataError(
                f"model = {files.origin.name!r} {said}", expected=kind.expected.format(like=like), fix=kind.fix
            )


def check_vocabulary(model: PreTrainedModel, tokenizer: Any, name: str = "the model") -> None:
    """Refuse a tokenizer of another model: its vocabulary, without what was added to it, has to fit.

    Raises:
        DataError: it has more entries than the model has embeddings.
    """
    embedding: Any = model.get_input_embeddings()
    entries, rows = getattr(tokenizer, "vocab_size", None), int(embedding.weight.shape[0])
    if isinstance(entries, int) and entries > rows:
        raise DataError(
            f"the tokenizer of {name} has {entries} entries, and the model has embeddings for {rows} tokens",
            expected="the tokenizer that the model was trained with",
            fix="save the model's own tokenizer beside it; or model.resize_token_embeddings(len(tokenizer)), if the "
            "model was trained further with this one",
        )


# What files show.


def _needs_consent(files: Files) -> str | None:
    auto = files.config.get("auto_map") or {}
    if auto and not files.trusted and not _is_known(files):
        return f"needs Python files that come with it ({', '.join(sorted(auto))})"
    return None


def _is_unknown(files: Files) -> str | None:
    if _is_known(files) or files.config.get("auto_map"):
        return None
    return f"is of the type {files.config.get('model_type')!r} (in its {CONFIG}), which transformers does not know"


def _is_not_causal(files: Files) -> str | None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config, model_type = files.config, str(files.config.get("model_type"))
    if config.get("is_encoder_decoder"):
        return f"is of type {model_type!r}, an encoder and a decoder, which is no causal language model"
    if model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or "AutoModelForCausalLM" in (config.get("auto_map") or {}):
        return None
    return f"is of type {model_type!r}, which is no causal language model"


def _is_packed(files: Files) -> str | None:
    return _quantization(files.config.get("quantization_config"))


def _is_known(files: Files) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return files.config.get("model_type") in CONFIG_MAPPING


def _like(model_type: str) -> list[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return nearest(model_type, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


_PLAIN = "weights of 16 or 32 bits: packed ones can be neither trained nor edited nor saved"


def _holds_no_floats(files: Files) -> str | None:
    odd = next(odd_weights(Path(files.origin.name)), None) if files.origin.kind == "folder" else None
    return None if odd is None else f"holds {odd.kind} in place of weights: {odd.name} in {odd.file}"


_FILES = (
    Kind(_needs_consent, "an architecture that transformers knows, or your consent to run those files",
         "read them, then set trust_remote_code = true, or `unmemorize mitigate` and `unmemorize find` with "
         "--trust-remote-code"),
    Kind(_is_unknown, "a causal language model: {like}, ...",
         "pip install --upgrade transformers, or name another model"),
    Kind(_is_not_causal, "a model that predicts the next token: {like}, ...", "name another model"),
    Kind(_is_packed, _PLAIN, "name the model that it was quantized from, with dtype = 'bfloat16' where memory is short "
         "(`unmemorize mitigate` and `unmemorize find`: --dtype bfloat16); or in Python load it, call "
         "model.dequantize(), and save that into a folder"),
    Kind(_holds_no_floats, "weights of float32, bfloat16 or float16, none of them sparse: others would be rounded",
         "save the model again, e.g. model.float().save_pretrained(FOLDER)"),
)  # fmt: skip


# What a model in memory shows.


_WRAPPERS = {
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
}
"""Wrappers that share their weights with what they wrap, and where that is."""


def _is_wrapped(model: object) -> str | None:
    return next((wrapper for wrapper in _WRAPPERS if is_a(model, wrapper)), None)


def _unwrapped(model: Any) -> Any:
    return getattr(model, _WRAPPERS[str(_is_wrapped(model))])


def _is_foreign(model: object) -> str | None:
    from transformers import PreTrainedModel

    known = isinstance(model, PreTrainedModel) or is_a(model, *MODELS)
    return None if known else f"is of class {_name(model)}"


_QUANTIZERS = {
    "bitsandbytes": "bitsandbytes", "optimum.quanto": "quanto", "torchao": "torchao", "gptqmodel": "GPTQ",
    "auto_gptq": "GPTQ", "awq": "AWQ", "hqq": "HQQ", "eetq": "EETQ", "aqlm": "AQLM", "vptq": "VPTQ", "quark": "Quark",
    "compressed_tensors": "compressed-tensors", "torch.ao.nn": "torch.ao", "torch.nn.quantized": "torch.ao",
}  # fmt: skip
"""The packages whose modules and tensors are quantized, and what they are called."""


def _is_quantized(model: Any) -> str | None:
    from torch import nn

    for where, part in _parts(model):
        home = f"{type(part).__module__}."
        method = next((name for package, name in _QUANTIZERS.items() if home.startswith(f"{package}.")), None)
        if method is not None:
            return f"is quantized with {method}, the first such part is {where}"
        if isinstance(part, nn.Parameter) and (not part.is_floating_point() or part.element_size() < 2):
            return f"is quantized: the weight {where} is of {part.dtype}"
    return _quantization(getattr(getattr(model, "config", None), "quantization_config", None))


def _parts(model: nn.Module) -> Iterator[tuple[str, object]]:
    """Yield modules, parameters and buffers, by name."""
    yield from model.named_modules()
    yield from model.named_parameters()
    yield from model.named_buffers()


def _quantization(config: Any) -> str | None:
    """Say how a model is quantized, from `quantization_config` as an object or as it stands in a file."""
    if config is None:
        return None
    said: dict[str, Any] = config if isinstance(config, dict) else config.to_dict()
    method = said.get("quant_method", "an unnamed method")
    return f"is quantized with {getattr(method, 'value', method)} (quantization_config in its {CONFIG})"


def _is_elsewhere(model: nn.Module) -> str | None:
    absent = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta]
    if not absent:
        return None
    return f"has {len(absent)} weights that are not in memory (meta, offloaded), the first is {absent[0]}"


_SHARDED = (
    "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel",
    "deepspeed.runtime.engine.DeepSpeedEngine",
)
"""Wrappers that leave only a part of the weights in each process."""


def _is_sharded(model: Any) -> str | None:
    if is_a(model, *_SHARDED):
        return f"is spread over several processes ({_name(model)})"
    for name, parameter in model.named_parameters() if hasattr(model, "named_parameters") else ():
        if type(parameter.data).__name__ == "DTensor" or hasattr(parameter, "ds_id"):
            return f"is spread over several processes: {name} holds only a part of its weights here"
    return None


def _is_frozen_for_inference(model: nn.Module) -> str | None:
    name = next((name for name, parameter in model.named_parameters() if parameter.is_inference()), None)
    return f"was made under torch.inference_mode: {name} can never take a gradient" if name else None


def _is_computed(model: nn.Module) -> str | None:
    """Whether a weight is computed from others in every pass: what is written into it would not last."""
    ends = ("weight_orig", "weight_g", "weight_v")
    for name, _ in model.named_parameters():
        if ".parametrizations." in name or name.endswith(ends):
            return f"computes weights in every pass (parametrized or pruned): {name}"
    return None


def _is_compiled_within(model: nn.Module) -> str | None:
    name = next((name for name, _ in model.named_parameters() if "_orig_mod." in name), None)
    return f"has parts that torch.compile wrapped: {name}" if name else None


def _adapted(model: Any) -> str | None:
    return f"holds PEFT adapters ({', '.join(names_of(model))})" if holds_adapters(model) else None


def _runs(model: PreTrainedModel) -> str | None:
    """Run it on tokens: it has to give logits for each, and none that depends on what follows."""
    if getattr(model.config, "is_encoder_decoder", False):
        return f"({_name(model)}) is an encoder and a decoder, and no causal language model"
    import torch

    embedding: Any = model.get_input_embeddings()
    rows = int(embedding.weight.shape[0])
    ids = torch.arange(8).repeat(2, 1)
    ids[1, -1] += 1
    ids = (ids % rows).to(embedding.weight.device)
    try:  # row by row: classifiers refuse batches without padding, and would not be known as what they are
        with evaluation_mode(model), torch.no_grad():
            passes = [
                model(input_ids=row, attention_mask=torch.ones_like(row), use_cache=False) for row in ids.split(1)
            ]
    except Exception as error:  # whatever a model of any class raises
        return f"({_name(model)}) cannot be run on plain token ids: {reason_of(error)}"
    given = [each.logits for each in passes if getattr(each, "logits", None) is not None]
    logits = torch.cat(given) if given else torch.empty(0)
    if logits.shape[:-1] != ids.shape or (model.get_output_embeddings() is None and logits.shape[-1] != rows):
        return f"({_name(model)}) has no language-model head: it gives no logits over its vocabulary"
    if _looks_ahead(logits.float(), torch.finfo(logits.dtype).eps):
        return f"({_name(model)}) reads in both directions: what follows a token changes its logits"
    return None


def _looks_ahead(logits: Tensor, precision: float) -> bool:
    """Whether the logits (2, T, V) of two rows differ at every position, where only the last tokens of the rows do."""
    apart = (logits[0, :-1] - logits[1, :-1]).abs().amax(-1).min()
    return bool(apart > 8 * precision * logits.abs().amax())


def _name(thing: object) -> str:
    return type(thing).__qualname__


_OBJECTS = (
    Kind(_is_wrapped, "", done=_unwrapped),
    Kind(_is_sharded, "a model that is whole in this process", "save it with its trainer, and pass that folder"),
    Kind(_is_foreign, "a causal language model of transformers (a PreTrainedModel)",
         "pass AutoModelForCausalLM.from_pretrained(...); or what is inside: pipeline.model, wrapper.pretrained_model"),
    Kind(_is_quantized, _PLAIN,
         "load it without quantization_config, with dtype=torch.bfloat16 where memory is short; or pass "
         "model.dequantize(), where its method has that"),
    Kind(_is_elsewhere, "every weight in the memory of a device",
         "load it with dtype bfloat16, on more or larger devices, or without device_map"),
    Kind(_is_frozen_for_inference, "a model whose weights can take gradients",
         "load it outside torch.inference_mode(), or pass copy.deepcopy(model) made outside it"),
    Kind(_is_computed, "weights that are parameters of their own",
         "torch.nn.utils.parametrize.remove_parametrizations(module, 'weight') or torch.nn.utils.prune.remove(module, "
         "'weight'), and pass the model then"),
    Kind(_is_compiled_within, "a model that is compiled as a whole, or not at all",
         "pass the model before its parts are compiled, and compile them again afterwards"),
    Kind(_adapted, "the weights themselves, without adapters", "model = model.merge_and_unload()", merged_copy),
    Kind(_runs, "a causal language model (decoder-only, with its language-model head)",
         "AutoModelForCausalLM.from_pretrained(...) of a model such as GPT-2, GPT-NeoX or Llama"),
)  # fmt: skip
"""In this order: what wraps a model comes off first, and what cannot be merged is told before anything is merged."""
