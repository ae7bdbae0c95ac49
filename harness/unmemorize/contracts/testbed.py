"""A testbed: a causal language model together with the data that says what it memorized."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from unmemorize.contracts.recipe import TrainingRecipe
from unmemorize.errors import DataError, UndeclaredNeedError

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

    from unmemorize.contracts.layout import MLP

Need = Literal["forget", "retain", "clean", "extra", "training_data"]
"""What a method may ask to be shown. The hold-outs and `forget_unseen` are shown to nobody."""

NEEDS: tuple[Need, ...] = ("forget", "retain", "clean", "extra", "training_data")


class Window(NamedTuple):
    """The lengths of an extraction check: `prompt` tokens shown, `suffix` tokens to be regurgitated."""

    prompt: int
    suffix: int


@dataclass(frozen=True, slots=True)
class Sequences:
    """Token sequences of one purpose, right-padded.

    Shapes: N sequences, T positions. All tensors live on the CPU; batches are moved where they are used.
    """

    tokens: Tensor
    """(N, T) int64, right-padded."""
    lengths: Tensor
    """(N,) int64, number of real tokens in each row."""
    suffix_starts: Tensor
    """(N,) int64, the first position that the model is expected to regurgitate."""
    ids: Tensor
    """(N,) int64, an id that stays with an example through every subset."""
    copies: Tensor
    """(N,) int64, how often the example stands in the training data."""
    clean_tokens: Tensor | None = None
    """(N, T) int64: the clean counterpart of each row, where an artifact replaced it."""
    clean_lengths: Tensor | None = None
    """(N,) int64, number of real tokens of each clean counterpart."""
    anchored: bool = False
    """True where the data itself says where the suffix starts (a backdoor's trigger), whatever a metric asks."""

    def __len__(self) -> int:
        return int(self.tokens.shape[0])

    def select(self, rows: Tensor | Sequence[int] | slice) -> Sequences:
        """Return the given rows, in the given order."""
        import torch

        index = rows if isinstance(rows, (slice, torch.Tensor)) else torch.tensor(list(rows), dtype=torch.int64)
        picked: dict[str, Any] = {"anchored": self.anchored}
        for name in _TENSOR_FIELDS:
            value = getattr(self, name)
            picked[name] = None if value is None else value[index]
        return Sequences(**picked)

    def batches(self, size: int) -> Iterator[Sequences]:
        """Yield the rows in order, `size` at a time, each batch cut at its longest real sequence."""
        for start in range(0, len(self), size):
            yield self.select(slice(start, start + size)).cut()

    def cut(self) -> Sequences:
        """Return the same rows without the columns in which every row is padding."""
        if not len(self):
            return self
        longest = int(self.lengths.max())
        if self.clean_lengths is not None:
            longest = max(longest, int(self.clean_lengths.max()))
        clean = None if self.clean_tokens is None else self.clean_tokens[:, :longest]
        return dataclasses.replace(self, tokens=self.tokens[:, :longest], clean_tokens=clean)

    def real(self) -> Tensor:
        """Return the (N, T) mask that is True at real tokens."""
        import torch

        return torch.arange(self.tokens.shape[1]) < self.lengths[:, None]

    def suffix(self) -> Tensor:
        """Return the (N, T) mask that is True at the real tokens from `suffix_starts` on."""
        import torch

        return self.real() & (torch.arange(self.tokens.shape[1]) >= self.suffix_starts[:, None])

    def predicting(self) -> Tensor:
        """Return the (N, T) mask that is True where the output predicts a suffix token: one to the left of each."""
        import torch

        suffix = self.suffix()
        return torch.cat([suffix[:, 1:], torch.zeros_like(suffix[:, :1])], dim=1)

    def inputs(self) -> Tensor:
        """Return the (N, T) input ids for a causal model: padding replaced by each row's first token.

        Padding stands on the right, where no real position attends to it, so the input there cannot matter; a real
        token keeps the model from looking for a mask, and no mask keeps its fast causal kernel.
        """
        return self.tokens.where(self.real(), self.tokens[:, :1])

    def counterparts(self) -> Sequences:
        """Return the clean counterparts as sequences of their own.

        Raises:
            DataError: the rows have no clean counterparts.
        """
        if self.clean_tokens is None or self.clean_lengths is None:
            raise DataError(
                "these sequences have no clean counterparts",
                expected="sequences made from an artifact (noise, backdoor), or rewrites given by the user",
                fix="check `sequences.clean_tokens is not None` first",
            )
        return dataclasses.replace(
            self, tokens=self.clean_tokens, lengths=self.clean_lengths, clean_tokens=None, clean_lengths=None
        )

    def digest(self) -> str:
        """Return a hash of everything in these sequences."""
        digest = hashlib.blake2b(digest_size=16)
        for name in _TENSOR_FIELDS:
            value = getattr(self, name)
            if value is not None:
                digest.update(f"{name}{tuple(value.shape)}".encode())
                digest.update(value.contiguous().numpy().tobytes())
        return digest.hexdigest()

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[Sequence[int]] | Tensor,
        *,
        prompt: int,
        pad_id: int = 0,
        clean_rows: Sequence[Sequence[int]] | None = None,
        first_id: int = 0,
    ) -> Sequences:
        """Build sequences from lists of token ids.

        Args:
            rows: N lists of token ids (of any lengths), or an (N, T) tensor.
            prompt: number of tokens of each row that count as its prompt; the rest is its suffix.
            pad_id: what to pad with on the right. Padding is never attended to and never counted.
            clean_rows: the clean counterpart of each row, if there are any.
            first_id: the id of the first row; the others follow.

        Raises:
            DataError: no rows, an empty row, or ids that are not non-negative integers (named by row).
        """
        import torch

        lists = [[int(token) for token in row] for row in rows]
        _check_rows(lists)
        width = max(len(row) for row in [*lists, *(clean_rows or [])]) if lists else 0
        tokens, lengths = _pad(lists, width, pad_id)
        clean_tokens, clean_lengths = (None, None) if clean_rows is None else _pad(clean_rows, width, pad_id)
        return cls(
            tokens=tokens,
            lengths=lengths,
            suffix_starts=torch.full((len(lists),), prompt, dtype=torch.int64),
            ids=torch.arange(first_id, first_id + len(lists)),
            copies=torch.ones(len(lists), dtype=torch.int64),
            clean_tokens=clean_tokens,
            clean_lengths=clean_lengths,
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Sequences], *, pad_id: int = 0) -> Sequences:
        """Join several sets into one. Clean counterparts are dropped unless every part has them."""
        import torch
        from torch.nn.functional import pad

        width = max(part.tokens.shape[1] for part in parts)
        joined: dict[str, Any] = {"anchored": all(part.anchored for part in parts)}
        for name in _TENSOR_FIELDS:
            values = [getattr(part, name) for part in parts]
            if any(value is None for value in values):
                joined[name] = None
            elif values[0].ndim == 2:
                joined[name] = torch.cat([pad(v, (0, width - v.shape[1]), value=pad_id) for v in values])
            else:
                joined[name] = torch.cat(values)
        return cls(**joined)


_TENSOR_FIELDS = ("tokens", "lengths", "suffix_starts", "ids", "copies", "clean_tokens", "clean_lengths")


def _check_rows(rows: Sequence[Sequence[int]]) -> None:
    if not rows:
        raise DataError(
            "there are no sequences",
            expected="at least one list of token ids",
            fix="pass e.g. [[464, 2068, 7586], ...], or tokenizer(texts)['input_ids']",
        )
    for number, row in enumerate(rows):
        if not row or min(row) < 0:
            problem = "is empty" if not row else f"holds the negative id {min(row)}"
            raise DataError(
                f"sequence {number} {problem}",
                expected="a non-empty list of token ids, each 0 or more",
                fix=f"remove or correct row {number} (counted from 0)",
            )


def _pad(rows: Sequence[Sequence[int]], width: int, pad_id: int) -> tuple[Tensor, Tensor]:
    import torch

    tokens = torch.full((len(rows), width), pad_id, dtype=torch.int64)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = torch.tensor(row, dtype=torch.int64)
    return tokens, torch.tensor([len(row) for row in rows], dtype=torch.int64)


@dataclass(slots=True)
class Testbed:
    """A causal language model and the data that says what it memorized.

    `retain` and `extra` never hold a row of `forget`; the hold-outs and `forget_unseen` are shown to no method.
    """

    __test__ = False  # pytest: the name is a word of the domain, not a test class

    name: str
    """Its name in the suite; the core fills this in."""
    model: PreTrainedModel
    """The causal language model that has memorized `forget`."""
    forget: Sequences
    """The memorized sequences that a method must remove."""
    retain: Sequences | None = None
    """Sequences whose behaviour a method is shown in order to preserve it."""
    forget_unseen: Sequences | None = None
    """Memorized sequences that no method is shown."""
    holdouts: Mapping[str, Sequences] = field(default_factory=dict)
    """Sequences on which utility is measured, by name."""
    clean: Sequences | None = None
    """The clean counterparts of the artifact, as training sequences."""
    extra: Sequences | None = None
    """Clean training data other than the counterparts."""
    window: Window = Window(50, 50)
    """The lengths of the extraction check where a metric does not give its own."""
    pad_id: int = 0
    """The id that fills rows on the right."""
    tokenizer: Any = None
    """The tokenizer, where there is text."""
    recipe: TrainingRecipe = field(default_factory=TrainingRecipe)
    """How the model was trained, so that fine-tuning can go on in the same way."""
    trainable: bool = False
    """Whether its provider can train it again from scratch; the core fills this in."""
    modality: Literal["math", "language"] = "language"
    """What the tokens stand for."""
    mlps: tuple[MLP, ...] = ()
    """Where the MLPs are; the core fills this in from the layout of the model's type, or finds them by structure."""
    mlps_note: str = ""
    """How MLPs without a layout were found, or why there are none; the core fills this in."""
    decoding: tuple[Any, ...] = ()
    """Logits processors of a decode-time method that is measured; the core fills this in from what the method left."""
    facts: dict[str, Any] = field(default_factory=dict)
    """JSON-ready facts about how this testbed came to be (training seconds, epochs, sizes)."""

    @property
    def device(self) -> torch.device:
        """The device on which token ids enter the model."""
        embedding: Any = self.model.get_input_embeddings()
        return embedding.weight.device

    def data_digest(self) -> str:
        """Return a hash of every set of sequences in this testbed."""
        digest = hashlib.blake2b(digest_size=16)
        for name, sequences in sorted(self.sets().items()):
            digest.update(f"{name}={sequences.digest()};".encode())
        return digest.hexdigest()

    def sets(self) -> dict[str, Sequences]:
        """Return every set that is present, by name; hold-outs as `holdout:NAME`."""
        named = {name: getattr(self, name) for name in ("forget", "forget_unseen", "retain", "clean", "extra")}
        present = {name: sequences for name, sequences in named.items() if sequences is not None}
        return present | {f"holdout:{name}": sequences for name, sequences in self.holdouts.items()}

    def shown_to(self, method: str, needs: frozenset[str]) -> Testbed:
        """Return a view that holds only what `needs` names; touching anything else is an error."""

        def shown(name: str) -> Any:
            value = getattr(self, name)
            return value if name in needs or value is None else UndeclaredData(method, name, needs)

        return dataclasses.replace(
            self,
            forget=shown("forget"),
            retain=shown("retain"),
            clean=shown("clean"),
            extra=shown("extra"),
            forget_unseen=UndeclaredData(method, "forget_unseen", needs),  # type: ignore[arg-type]
            holdouts=UndeclaredData(method, "holdouts", needs),  # type: ignore[arg-type]
        )


class UndeclaredData:
    """Stands where data would be that a method did not declare; any use of it raises `UndeclaredNeedError`."""

    _method: str
    _need: str
    _declared: frozenset[str]

    def __init__(self, method: str, need: str, declared: frozenset[str]) -> None:
        self._method, self._need, self._declared = method, need, declared

    def _refuse(self, *_: object) -> Any:
        raise UndeclaredNeedError(self._method, self._need, self._declared)

    __getattr__ = __getitem__ = __iter__ = __len__ = __bool__ = __contains__ = __str__ = __format__ = _refuse

    def __repr__(self) -> str:  # of a whole testbed: it shows nothing
        return f"<{self._need}, which {self._method!r} does not declare>"
