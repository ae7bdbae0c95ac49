"""Weights and tokenizers, loaded by transformers; what can go wrong, with what to type."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import filterfalse
from typing import TYPE_CHECKING, Any, Protocol

from unmemorize.errors import ConfigError, DataError, listed
from unmemorize.files.error_reasons import reason_of
from unmemorize.models.origins import Origin

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model",
    "sentencepiece.bpe.model", "tekken.json",
)  # fmt: skip
"""Without one of these a folder has no tokenizer, and transformers would make an empty one."""


class Settings(Protocol):
    """The settings of a model's source that its weights depend on."""

    @property
    def dtype(self) -> str:
        """The weights' type."""

    @property
    def attn_implementation(self) -> str | None:
        """The attention kernel."""

    @property
    def trust_remote_code(self) -> bool:
        """Whether Python files of the model may be run."""


def load_weights(origin: Origin, settings: Settings, devices: Any, **more: Any) -> PreTrainedModel:
    """Load the model of a folder or of the hub; `more` goes to `from_pretrained`.

    Raises:
        DataError: the files are damaged, incomplete or of another architecture.
        ConfigError: the attention kernel is not there.
    """
    from transformers import AutoModelForCausalLM

    optional = {"device_map": devices, "attn_implementation": settings.attn_implementation}
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            origin.name,
            revision=origin.revision or "main",
            trust_remote_code=settings.trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # the error that names the weight is our own
            dtype=settings.dtype,
            **{name: value for name, value in optional.items() if value is not None},
            **more,
        )
    except MemoryError:
        raise
    except Exception as error:  # whatever is made of files that anybody wrote
        raise _failure(origin, settings, error) from error
    model, info = loaded
    missing, left = sorted(info["missing_keys"]), sorted(filterfalse(_MASKS.search, info["unexpected_keys"]))
    if left:
        _check_task(origin, model.config, left[0])
    _check_complete(origin, missing)
    _check_fits(origin, sorted(info["mismatched_keys"]))
    _check_all_taken(origin, left)
    return model


_MASKS = re.compile(
    r"(^|\.)((attn|attention)\.(bias|masked_bias|causal_mask)|inv_freq|(cos|sin)_cached|position_ids|_extra_state)$"
)
"""Names in files of what models saved once and compute now (masks, positions), beside what transformers skips."""

_OTHER_TASKS = re.compile(r"For(\w+Classification|\w+Regression|QuestionAnswering|MultipleChoice|\w*Reward\w*)$")
"""How classes of models are called that have another head than a language model's."""


def _failure(origin: Origin, settings: Settings, error: Exception) -> DataError | ConfigError:
    reason = reason_of(error)
    wanted = settings.attn_implementation
    if wanted is not None and not isinstance(error, OSError) and _is_about_attention(str(error), wanted):
        return ConfigError(
            f"attn_implementation = {wanted!r} cannot be used here: {reason}",
            expected="eager, sdpa, or a kernel that is installed and knows this architecture",
            fix="remove attn_implementation, or set it to 'eager'",
        )
    if isinstance(error, ImportError):
        return DataError(
            f"model = {origin.name!r} needs a package that is not installed: {reason}",
            expected="the packages that transformers asks for to load this model",
            fix="install it with pip, and run again",
        )
    return DataError(
        f"model = {origin.name!r} could not be loaded: {reason}",
        expected="whole weight files (*.safetensors, or *.bin without pickled code) that fit the config.json",
        fix="save or download the model again; HF_HUB_OFFLINE=1 forbids fetching what is missing",
    )


def _is_about_attention(message: str, wanted: str) -> bool:
    return wanted.lower() in message.lower() or "attention" in message.lower() or "attn" in message.lower()


def _check_task(origin: Origin, config: Any, head: str) -> None:
    """Refuse a classifier, whose own head would be lost: its config names its class, its files hold that head.

    The class alone does not tell: it may be absent, of somebody's own, or left from before the model had another head.
    """
    task = next((name for name in getattr(config, "architectures", None) or () if _OTHER_TASKS.search(name)), None)
    if task is not None:
        raise DataError(
            f"model = {origin.name!r} is a {task}: it has no language-model head of its own, and the head that it has "
            f"would be lost ({head})",
            expected="a causal language model, which gives logits over its vocabulary",
            fix="name the causal language model that it was trained from",
        )


def _check_complete(origin: Origin, missing: list[str]) -> None:
    """Refuse a model of which a part would be random: transformers only warns of it."""
    if missing:
        raise DataError(
            f"model = {origin.name!r}: its files lack {len(missing)} weights, the first is {missing[0]}",
            expected="a weight for every parameter: what is missing would be random",
            fix="save or download the model again, all of its files",
        )


def _check_fits(origin: Origin, mismatched: list[tuple[str, Any, Any]]) -> None:
    """Refuse weights of other shapes than the config says: transformers would leave them random."""
    if mismatched:
        name, saved, wanted = mismatched[0]
        raise DataError(
            f"model = {origin.name!r}: the weight {name} is {tuple(saved)} in its files and {tuple(wanted)} by its "
            f"config.json ({len(mismatched)} such weights)",
            expected="a config.json with the sizes (vocab_size, hidden_size, ...) of the weights beside it",
            fix="restore the config.json that the model was saved with, or download the model again",
        )


def _check_all_taken(origin: Origin, left: list[str]) -> None:
    """Refuse a model of which a part would stay in its files: transformers only warns of it."""
    if left:
        raise DataError(
            f"model = {origin.name!r}: its files hold {len(left)} weights for which the model that its config.json "
            f"describes has no place: {listed(left)}",
            expected="a config.json with the sizes (number of layers, ...) and the class of the weights beside it",
            fix="restore the config.json that the model was saved with; or, if that part is to be left out, "
            "AutoModelForCausalLM.from_pretrained(MODEL).save_pretrained(FOLDER), and name FOLDER",
        )


def load_tokenizer(origin: Origin, *, trusted: bool) -> Any:
    """Return the tokenizer that lies beside a model, or None if there is none.

    Raises:
        DataError: its files are there and cannot be read.
    """
    from transformers import AutoTokenizer

    if not any(origin.file(name) for name in TOKENIZER_FILES):
        return None
    try:
        return AutoTokenizer.from_pretrained(origin.name, revision=origin.revision or "main", trust_remote_code=trusted)
    except Exception as error:  # the tokenizers library raises plain exceptions
        raise DataError(
            f"the tokenizer of model = {origin.name!r} cannot be read: {reason_of(error)}",
            expected="the files that tokenizer.save_pretrained writes",
            fix="save the tokenizer again; or remove its files, and give all sequences as token ids",
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from drawing progress bars and warning into a progress display; errors are raised anyway."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    if "TRANSFORMERS_VERBOSITY" not in os.environ:  # who sets it wants to hear it: --verbose does
        logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
