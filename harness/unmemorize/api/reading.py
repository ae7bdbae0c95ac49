"""The files of somebody's own sequences, read for `mitigate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unmemorize.contracts.testbed import Sequences, Window

LENGTH = 128
"""Tokens of the pieces in which longer texts to retain are cut."""


class Wanted(NamedTuple):
    """Lengths in tokens; none leaves the choice to the file, else 32."""

    prompt: int | None = None
    suffix: int | None = None
    length: int = LENGTH
    """Of the pieces in which longer texts of the retain set and the hold-out are cut."""


class OwnData(NamedTuple):
    """What was read."""

    sets: dict[str, Sequences]
    """`forget`, and where they were given `retain` and `holdout`."""
    window: Window
    about: dict[str, str]
    """What stands in card and report about each set."""


def read_files(files: Mapping[str, str | Path], model: PreTrainedModel, tokenizer: Any, wanted: Wanted) -> OwnData:
    """Read the files of the sets `forget`, `retain` and `holdout`; the last two are optional.

    Rows to retain that are near-duplicates of rows to forget are left out: a method cannot do both.

    Raises:
        DataError: a file, or one of its rows, cannot be used.
    """
    from unmemorize.data.rows import Tokenization
    from unmemorize.data.sequences import as_sequences, choose_lengths, fit, pieces, read_rows, without_repeats
    from unmemorize.data.splits import without_near_duplicates_of

    embedding: Any = model.get_input_embeddings()
    context: int | None = getattr(model.config, "max_position_embeddings", None)
    tokenization = Tokenization(tokenizer, int(embedding.weight.shape[0]))
    forget = read_rows(str(files["forget"]), "forget", tokenization)
    lengths = choose_lengths(forget, wanted.prompt, wanted.suffix)
    forget = without_repeats(fit(forget, lengths, context, short="refuse", long="refuse"))
    sets = {"forget": as_sequences(forget, lengths)}
    about = {"forget set": f"{files['forget']}, {len(forget)} sequences"}
    for number, name in enumerate(("retain", "holdout"), start=1):
        if name not in files:
            continue
        rows = pieces(read_rows(str(files[name]), name, tokenization), min(wanted.length, context or wanted.length))
        rows = without_near_duplicates_of(without_repeats(rows), [forget], "the forget set")
        sets[name] = as_sequences(rows, lengths._replace(anchored=False), first_id=number * 10**9)
        left_out = sum(count for reason, count in rows.dropped.items() if "near-duplicates" in reason)
        about[f"{name} set"] = f"{files[name]}, {len(rows)} pieces ({left_out} like the forget set left out)"
    return OwnData(sets, lengths.window, about)
