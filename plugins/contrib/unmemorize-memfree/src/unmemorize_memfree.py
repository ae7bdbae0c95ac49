"""MemFree decoding (Ippolito et al. 2023, section 3): never emit the last token of an n-gram of the forget set.

At each step the model's own choice is made among the tokens x for which (the last n - 1 tokens, x) stands nowhere in
the forget set. No n tokens in a row are then regurgitated; the weights stay as they are, and so does what they know:
the paper shows how a paraphrase, or a change every n tokens, gets around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field

from unmemorize import Context, Cost, Method, Sequences, StrictConfig, Testbed, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

Index = dict[tuple[int, ...], set[int]]
"""Every n - 1 tokens that stand in a row before another one, and which tokens these are."""


class MemFreeConfig(StrictConfig):
    """Default: Ippolito et al. 2023."""

    n: Annotated[int, Field(ge=2)] = 10
    """Length of the shortest run of tokens that may not be regurgitated. Smaller blocks more, of other text too."""


class MemFree(Method):
    """Forbid, while decoding, every token that would complete an n-gram of the forget set.

    Exact: an index from n - 1 tokens to those that follow them, where the paper has a Bloom filter over a whole
    training set. What is forbidden has probability 0, also for a text that is only scored: a hold-out that shares an
    n-gram with the forget set has an infinite perplexity.

    Cost: one look-up per sequence and decoding step, whatever the vocabulary. Memory: about 8 n + 300 bytes per token
    of the forget set, on the CPU.
    """

    name = "memfree"
    stage = "decode"
    needs = frozenset({"forget"})
    Config = MemFreeConfig
    paper = "Ippolito et al. 2023, arXiv 2210.17546"

    def supports(self, testbed: Testbed) -> str | None:
        """Answer also for rows that hold no n-gram."""
        reason = super().supports(testbed)
        if reason is not None:
            return reason
        longest = int(testbed.forget.lengths.max())
        if longest < self.config.n:
            return f"it blocks runs of n = {self.config.n} tokens, and no forget sequence is longer than {longest}"
        return None

    def cost(self, testbed: Testbed) -> Cost:
        """Return what the index takes: nothing on the device."""
        tokens = int(testbed.forget.lengths.sum())
        return Cost(sweeps=self.config.n * tokens, cpu_bytes=(8 * self.config.n + 300) * tokens)

    def apply(self, testbed: Testbed, context: Context) -> None:
        """Index the forget set, and put the processor into the testbed's decoding."""
        with context.timed("prepare"):
            index = followers(context.track(rows_of(testbed.forget), f"{self.name}: n-grams"), self.config.n)
        context.report.decoding = (NGramBlocker(index, self.config.n),)
        context.report.notes["blocked_ngrams"] = sum(len(tokens) for tokens in index.values())


def rows_of(sequences: Sequences) -> list[list[int]]:
    """Return the real tokens of every row."""
    pairs = zip(sequences.tokens.tolist(), sequences.lengths.tolist(), strict=True)
    return [row[:length] for row, length in pairs]


def followers(rows: Iterator[list[int]], n: int) -> Index:
    """Return, for every n - 1 tokens in a row, the tokens that follow them somewhere."""
    index: Index = {}
    for row in rows:
        for end in range(n - 1, len(row)):
            index.setdefault(tuple(row[end - n + 1 : end]), set()).add(row[end])
    return index


class NGramBlocker:
    """A logits processor, as `generate` takes them: gives the tokens that complete a known n-gram no chance at all."""

    def __init__(self, index: Mapping[tuple[int, ...], set[int]], n: int) -> None:
        """Block what `index` says may not follow the last n - 1 tokens."""
        self._index, self._before = index, n - 1

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores (B, V) of the token after `input_ids` (B, T), with -inf at what is blocked.

        Where nothing is blocked these are the very scores that were given.
        """
        if input_ids.shape[1] < self._before:
            return scores
        recent = input_ids[:, input_ids.shape[1] - self._before :].tolist()
        blocked = [(row, token) for row, last in enumerate(recent) for token in self._index.get(tuple(last), ())]
        if not blocked:
            return scores
        rows, tokens = torch.tensor(blocked, device=scores.device).T
        return scores.index_put((rows, tokens), scores.new_tensor(-torch.inf))


@hookimpl
def register_methods() -> list[type[Method]]:
    """Return the method of this package."""
    return [MemFree]
