"""Rows of sequences before they are token ids: each a mapping of fields, with words for where it stands."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from unmemorize.errors import DataError, UnmemorizeError
from unmemorize.files.error_reasons import reason_of

FIELDS: Final[Mapping[str, str]] = {
    "tokens": "The token ids, as a list. Nothing is put before or behind them.",
    "input_ids": "The same as `tokens`.",
    "attention_mask": "Beside `tokens`: 1 where there is a token, 0 where there is padding, which is left out.",
    "text": "The text, in place of `tokens`.",
    "messages": "A conversation, in place of `tokens`, as the tokenizer's chat template writes it; the last answer of "
    "the assistant is the suffix.",
    "prompt": "Text (or ids) that is shown, beside `suffix`. Beside `tokens` or `text`, how many tokens are shown; "
    "beside `text`, also its beginning.",
    "suffix": "Text (or ids) that must come back, beside `prompt`. Beside `tokens`, how many tokens must come back; "
    "where rows differ in that, each ends with its suffix.",
    "completion": "The same as `suffix`.",
    "clean_tokens": "Token ids that are to be said in the row's place; all rows have them, or none.",
    "clean_text": "The same as a text.",
    "group": "A family of rows: one family is never split over two sets.",
    "copies": "How often the row stands in the training data.",
    "trivial": "True: marked by `find` as guessable, and left out of what is to be forgotten (`marked`).",
    "overlaps": "True: marked by `find` as overlapping another window; likewise.",
    "duplicate": "True: marked by `find` as a near-duplicate of another window; likewise.",
}
"""What a row may say about a sequence; anything else in it is left alone."""


@dataclass(frozen=True, slots=True)
class RowSource:
    """Rows, each a mapping of `FIELDS`, made when asked for."""

    name: str
    """The setting and what it was set to, for errors."""
    numbers: Sequence[int]
    """Where each row stands."""
    read: Callable[[int], Mapping[str, Any]]
    """Gives the row of an index into `numbers`."""
    unit: str = "row"
    """`line` (counted from 1) or `row` (from 0)."""
    kind: str = ""
    """What the rows came in, for records: `a list`."""
    rectangular: bool = False
    """Whether rows are equally long because they are an array: some may end or begin in padding."""

    def __len__(self) -> int:
        return len(self.numbers)

    def at(self, index: int) -> str:
        """Return source and row in words, for errors."""
        return f"{self.name}, {self.unit} {self.numbers[index]}"

    def fields(self, index: int) -> Mapping[str, Any]:
        """Return what a row says.

        Raises:
            DataError: it cannot be read; also where an object of another library raises something else.
        """
        try:
            return self.read(index)
        except (UnmemorizeError, MemoryError):
            raise
        except Exception as error:
            raise DataError(
                f"{self.at(index)}: the row cannot be read: {reason_of(error)}",
                expected="a row whose values are there: lists, dense tensors and arrays, texts",
                fix="convert it to a list first, or remove the row",
            ) from error

    def select(self, indices: Sequence[int]) -> RowSource:
        """Return some of the rows, with the numbers that they have in the source."""
        kept = list(indices)
        return RowSource(
            self.name, [self.numbers[i] for i in kept], lambda index: self.read(kept[index]), self.unit, self.kind,
            self.rectangular,
        )  # fmt: skip


class Bare(dict[str, Any]):
    """The fields of a row that did not say what it is: ids or a text alone."""


def as_fields(value: Any) -> Mapping[str, Any]:
    """Return the fields of a row: bare ids are tokens, a bare string is text, arrays are lists."""
    if isinstance(value, Mapping):
        return {name: listed(field) for name, field in value.items()}
    return Bare(text=value) if isinstance(value, str) else Bare(tokens=listed(value))


def is_missing(value: object) -> bool:
    """Say whether a table or list has nothing here: None, NaN, or the NA of pandas."""
    return math.isnan(value) if isinstance(value, float) else type(value).__name__ in ("NoneType", "NAType")


def listed(value: Any) -> Any:
    """Return tensors, arrays, series and columns of tables as lists, and their scalars as Python's numbers."""
    for name in ("to_pylist", "to_list", "tolist", "as_py"):
        convert = getattr(value, name, None)
        if callable(convert):
            return convert()
    return value


def array_rows(name: str, array: Any, dtype: str, *, integer: bool, kind: str = "an array") -> RowSource:
    """Return the rows of an (N, T) array or tensor of token ids.

    Raises:
        DataError: it is of another shape or type.
    """
    odd = _odd(array)
    if odd or not integer or array.ndim != 2:
        problem = odd or (f"of {dtype}" if not integer else f"of shape {tuple(array.shape)}")
        raise DataError(
            f"{name} holds an array {problem}",
            expected="an (N, T) array of integers: N sequences of T token ids",
            fix="give the token ids themselves; one sequence alone as array[None]",
        )
    return RowSource(
        name, range(len(array)), lambda index: {"tokens": array[index].tolist()}, kind=kind, rectangular=True
    )


def _odd(array: Any) -> str:
    """Return what keeps the values of a tensor from being read one after the other, or nothing."""
    if getattr(array, "is_meta", False):
        return "without values (of device meta)"
    if getattr(array, "is_quantized", False):
        return "of quantized values"
    layout = str(getattr(array, "layout", "torch.strided"))
    return "" if layout == "torch.strided" else f"of layout {layout}: array.to_dense() has rows"
