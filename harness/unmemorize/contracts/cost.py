"""What a method says that it will take, in units that one step of a model turns into seconds and bytes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from unmemorize.contracts.testbed import Sequences, Testbed


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one `apply` takes. Tokens include padding; one that passes a share of the blocks counts as that share."""

    forward_tokens: float = 0.0
    """Tokens through the model without gradients."""
    backward_tokens: float = 0.0
    """Tokens forward and backward, where at most the MLP matrices take gradients."""
    training_tokens: float = 0.0
    """Tokens forward and backward, where every parameter takes gradients."""
    sweeps: float = 0.0
    """Numbers that are read, changed or ranked outside of the model: weights, times the operations on each."""
    multiplications: float = 0.0
    """float64 multiply-adds outside of the model, in many small products."""
    held_tokens: int = 0
    """Tokens of the largest pass whose activations wait for a backward pass; a probe says what one takes."""
    device_bytes: float = 0.0
    """Peak beside the weights of the model, beyond the model itself and what `held_tokens` take."""
    block_bytes: float = 0.0
    """Peak of what hooks keep for a backward pass in all blocks together; where blocks are recomputed, one holds it."""
    offloadable_bytes: float = 0.0
    """Peak of the scores, masks and copies of weights that are kept at `context.place_of(weight)`."""
    cpu_bytes: float = 0.0
    """Peak in main memory, wherever the model is."""
    advice: str = ""
    """What to set where that takes too long or does not fit."""

    def __add__(self, other: Cost) -> Cost:
        """Return what both take together: work and memory add up, and the larger pass is the one that is held."""
        ours, theirs = (dataclasses.asdict(cost) for cost in (self, other))
        held = max(self.held_tokens, other.held_tokens)
        named = {"held_tokens": held, "advice": self.advice or other.advice}
        return Cost(**{name: ours[name] + theirs[name] for name in ours} | named)


class Sizes(NamedTuple):
    """The sizes that cost formulas are written in."""

    layers: int
    """L."""
    neurons: int
    """L * m, the neurons of all layers together."""
    width: int
    """d."""
    weights: int
    """|P|, the weights of all MLP matrices together."""
    largest: int
    """n, the weights of the largest MLP matrix."""
    parameters: int
    """Parameters of the whole model."""
    weight_bytes: int
    """b, bytes of one weight."""
    vocabulary: int
    """V."""

    @classmethod
    def of(cls, testbed: Testbed) -> Sizes:
        """Return the sizes of a testbed's model; those of its MLPs are 0 where there is no layout."""
        matrices = [matrix.weight for mlp in testbed.mlps for matrix in mlp.matrices]
        parameters = list(testbed.model.parameters())
        return cls(
            layers=len({mlp.layer for mlp in testbed.mlps}),
            neurons=sum(mlp.neurons for mlp in testbed.mlps),
            width=int(testbed.mlps[0].down.by_input().shape[-1]) if testbed.mlps else 0,
            weights=sum(weight.numel() for weight in matrices),
            largest=max((weight.numel() for weight in matrices), default=0),
            parameters=sum(parameter.numel() for parameter in parameters),
            weight_bytes=(matrices or parameters)[0].element_size(),
            vocabulary=int(testbed.model.config.get_text_config().vocab_size),
        )


class TokenCount(NamedTuple):
    """The input tokens of a pass over sequences, padding included."""

    tokens: int
    """Tokens of all batches."""
    largest: int
    """Tokens of the largest batch."""


def count_tokens(sequences: Sequences, batch_size: int, *, whole: bool = False) -> TokenCount:
    """Return the input tokens of one pass over `sequences` in their order.

    Args:
        sequences: the rows.
        batch_size: rows per batch; each batch is cut at its longest row.
        whole: count the last position too, which losses do not need.
    """
    sizes = [len(batch) * (batch.tokens.shape[1] - (not whole)) for batch in sequences.batches(batch_size)]
    return TokenCount(sum(sizes), max(sizes, default=0))


def count_shuffled_tokens(rows: int, *sets: Sequences | None) -> int:
    """Return the input tokens of `rows` rows drawn at random from sets, if each batch holds one of the longest."""
    longest = [int(sequences.lengths.max()) - 1 for sequences in sets if sequences is not None and len(sequences)]
    return rows * max(longest, default=0)
