"""A forget set that is found: the windows of some texts that the model regurgitates, kept in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from unmemorize import Context, DataError, FindConfig, Findings, FoundWindow, find
from unmemorize.toolkit import CacheEntry, OpenedModel, open_corpus

Marked = Literal["trivial", "overlaps", "duplicates"]


class SearchedTexts(FindConfig):
    """Which texts are searched for windows that the model regurgitates, and which of these are used."""

    texts: Annotated[str, Field(min_length=1)]
    """A file or folder, `package:NAME/path`, `licences` (of the installed packages), `python-docs`, an `hf://` path."""
    drop: tuple[Marked, ...] = ("trivial", "overlaps", "duplicates")
    """Windows that are not used: what could have been guessed, overlaps, or says the same as another."""

    def fingerprint(self) -> str:
        """Return a hash of the texts."""
        return open_corpus(self.texts, setting="find.texts", include=self.include, lenient=True).digest()


@contextmanager
def found_file(searched: SearchedTexts, opened: OpenedModel, model: str, context: Context) -> Iterator[Path]:
    """Search, or go on with a search, and give a file of sequences while inside.

    Args:
        searched: what is searched, and how.
        opened: the model and its tokenizer.
        model: what tells this model, as it is loaded, from any other.
        context: its cache keeps what has been found, by the contents of model and texts; without one it is lost.

    Raises:
        DataError: nothing is regurgitated, or nothing is left of it.
    """
    identity = {"model": model, "texts": searched.fingerprint(), "settings": searched.model_dump(mode="json")}

    def fill(folder: Path, unfinished: Path | None) -> None:
        state = (unfinished or folder) / "found.state"
        settings = searched.model_dump(exclude={"texts", "drop"})
        corpus = open_corpus(searched.texts, setting="find.texts", include=searched.include, lenient=True)
        had_begun = state.exists()
        try:
            found = find(opened, corpus, state=state, progress=context.progress, **settings)
        except DataError:
            if not had_begun:
                raise
            state.unlink()  # it may be damaged: the search starts from the beginning
            found = find(opened, corpus, state=state, progress=context.progress, **settings)
        found.write(folder / "found.jsonl", _kept(found, searched))

    with CacheEntry(context, "found", identity).folder(fill) as folder:
        yield folder / "found.jsonl"


def _kept(found: Findings, searched: SearchedTexts) -> list[FoundWindow]:
    kept = found.kept(**{mark: mark not in searched.drop for mark in ("trivial", "overlaps", "duplicates")})
    if not kept:
        raise DataError(
            f"find.texts = {searched.texts!r}: of {found.checked} windows {len(found.windows)} are extractable, "
            f"and none is left without those that are dropped ({', '.join(searched.drop) or 'none'})",
            expected="windows that the model has memorized",
            fix="search more text, or with find.stride = 1; `unmemorize find` shows what there is",
        )
    return kept
