"""Pre-trained causal language models: from a hub, a folder, a GGUF file, or a file that comes in a package."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Field, ValidationError

from unmemorize.contracts.config import StrictConfig
from unmemorize.data.tokenization import Bounds, Tokenization, bounds_of
from unmemorize.errors import DataError
from unmemorize.files.digests import remembered_digest
from unmemorize.models.adapters import Adapter, adapter_at, check_usable, merged_onto, no_base
from unmemorize.models.devices import checked_device, checked_map
from unmemorize.models.gate import Files, admitted, check_files, check_pulled, check_vocabulary
from unmemorize.models.gguf import unpacked
from unmemorize.models.loading import load_tokenizer, load_weights, quiet
from unmemorize.models.origins import find_origin

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel


AnyModel: TypeAlias = "PreTrainedModel | OpenedModel | ModelSource | str | Path"
"""A model that is there already, or where one is."""


class ModelLoading(StrictConfig):
    """How a causal language model is loaded, wherever it comes from."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """The weights' type; `auto` is the type they are saved in (float32 for GGUF, which is unpacked)."""
    device_map: str | dict[str, int | str] | None = None
    """How the model is spread over devices (`auto`, `balanced`, or a map from modules to devices); needs accelerate."""
    attn_implementation: str | None = None
    """The attention kernel (`eager`, `sdpa`, `flash_attention_2`); transformers chooses by default."""
    trust_remote_code: bool = False
    """Whether Python files that come with the model may be run. Read them first."""


class _ModelName(StrictConfig):
    model: Annotated[str, Field(min_length=1)]
    """A hub id (`EleutherAI/pythia-70m`), a folder, a GGUF file, or either in a package: `package:NAME/path`."""
    revision: str | None = None
    """Branch, tag or commit on the hub; its main branch by default. Ignored by folders and files."""


class ModelSource(ModelLoading, _ModelName):
    """Where a causal language model comes from, and how it is loaded."""


def source_of(model: str, **loading: Any) -> ModelSource:
    """Return where the model called `model` comes from, and how it is loaded.

    Raises:
        DataError: no model can be called that, as with the name of a folder that is not UTF-8.
    """
    try:
        return ModelSource(model=model, **loading)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise DataError(
            f"{'.'.join(map(str, wrong['loc']))} = {wrong['input']!r}: {wrong['msg'].lower()}",
            expected="a hub id, or the path of a folder or GGUF file, in UTF-8",
            fix="correct it, or make a link of another name to the model: ln -s FOLDER model",
        ) from None


@dataclass(slots=True)
class OpenedModel:
    """A model that is ready to be measured and edited, and its tokenizer."""

    model: PreTrainedModel
    """In eval mode; it generates greedily, without penalties, whatever it came with."""
    tokenizer: Any
    """The tokenizer that lies beside the model, or None."""
    generation_config: GenerationConfig
    """How the model generated as it came, for when it is saved again."""

    def bounds(self) -> Bounds:
        """Return the vocabulary, the context and the padding."""
        return bounds_of(self.model, self.tokenizer)

    def tokenization(self) -> Tokenization:
        """Return how texts become rows for this model: what its tokenizer puts before a text is part of it."""
        return Tokenization.of(self.tokenizer, self.bounds())


def open_model(source: ModelSource, *, device: str = "cpu", cache: Path | None = None) -> OpenedModel:
    """Load a model and its tokenizer.

    A GGUF file is unpacked once into a folder of safetensors in `cache`, from where later calls load it in a second;
    without a cache it is unpacked each time.

    Args:
        source: what to load.
        device: where the model goes, unless `source.device_map` says so.
        cache: a folder that outlives this call, or none.

    Raises:
        DataError: there is no such model here or on the hub, it is gated, needs remote code, is no causal language
            model, is damaged or incomplete, or the device does not exist.
    """
    where = checked_device(device)
    devices = checked_map(source.device_map)
    origin = find_origin(source.model, source.revision)
    check_pulled(origin)
    adapter = adapter_at(origin)
    if adapter is not None:
        return _with_adapter(adapter, source, device, cache)
    named = f"model = {source.model!r}"
    unpacking = unpacked(origin, source.dtype, cache) if origin.kind == "gguf" else nullcontext(origin)
    with quiet(), unpacking as place:
        check_files(Files(place, source.trust_remote_code))
        model = load_weights(place, source, devices)
        tokenizer = load_tokenizer(place, trusted=source.trust_remote_code)
        if devices is None:
            model.to(where)  # type: ignore[arg-type]
        model = admitted(model, named)
    check_vocabulary(model, tokenizer, named)
    came_with = model.generation_config
    model.generation_config = _greedy(came_with)
    return OpenedModel(model.eval(), tokenizer, came_with)


def _with_adapter(adapter: Adapter, source: ModelSource, device: str, cache: Path | None) -> OpenedModel:
    """Return the base that an adapter names, the adapter merged into it; the adapter's tokenizer, where it has one."""
    check_usable(adapter)
    base = source.model_copy(update={"model": adapter.base, "revision": adapter.revision})
    try:
        opened = open_model(base, device=device, cache=cache)
    except DataError as error:
        raise no_base(adapter, error) from error
    with quiet():
        own = load_tokenizer(adapter.origin, trusted=source.trust_remote_code)
        model = merged_onto(opened.model, adapter)
    tokenizer = opened.tokenizer if own is None else own
    check_vocabulary(model, tokenizer, f"model = {source.model!r}")
    return OpenedModel(model.eval(), tokenizer, opened.generation_config)


def as_opened(model: AnyModel, tokenizer: Any, device: str, cache: Path, name: str = "the model") -> OpenedModel:
    """Return a model that is there already, or open the one that is named.

    Args:
        model: a model, an opened one, or where one is.
        tokenizer: its tokenizer; by default the one that lies beside it.
        device: where a model goes that is not loaded yet.
        cache: as for `open_model`.
        name: what errors call a model that is there already.

    Raises:
        DataError: as `open_model` and `admitted`.
    """
    if isinstance(model, (str, Path)):
        model = source_of(str(model))
    if isinstance(model, ModelSource):
        opened = open_model(model, device=device, cache=cache)
    elif isinstance(model, OpenedModel):
        opened = model
    else:
        taken = admitted(model, name)
        opened = OpenedModel(taken, None, taken.generation_config)
    if tokenizer is None:
        return opened
    check_vocabulary(opened.model, tokenizer, name)
    return replace(opened, tokenizer=tokenizer)


def model_fingerprint(source: ModelSource) -> str:
    """Return what tells this model from any other: hub id and commit, or a hash of its files' contents.

    Cost: one read of all files; large files are remembered by path, size and time of change. Of a model on the hub,
    its config.json is fetched: from then on the cache knows the commit.

    Raises:
        DataError: there is no such model.
    """
    origin = find_origin(source.model, source.revision)
    own = f"{origin.name}@{origin.revision}" if origin.kind == "hub" else remembered_digest(origin.files())
    adapter = adapter_at(origin)
    if adapter is None:
        return own
    base = source.model_copy(update={"model": adapter.base, "revision": adapter.revision})
    return f"{own} on {model_fingerprint(base)}"


def _greedy(came_with: GenerationConfig) -> GenerationConfig:
    """Return plain greedy generation: a model's own sampling and penalties would change what it regurgitates."""
    from transformers import GenerationConfig

    ids = {name: getattr(came_with, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return GenerationConfig(do_sample=False, **ids)
