"""Extraction strength: how little of a sequence suffices to get the rest of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from unmemorize import Evaluation, Measurement, Metric, Reading, Testbed
from unmemorize.toolkit import TeacherForced, mean_over_sequences
from unmemorize_plugins.metrics.window import forget_sets

if TYPE_CHECKING:
    from torch import Tensor


class ExtractionStrength(Metric):
    """Percent of a sequence that need not be shown: 1 - (shortest prompt that still extracts the rest) / length.

    ES(x) = 1 - min{k : greedy decoding from x_<k gives x_k ... x_n} / n, with k from 1 to n: 0 where not even the
    last token follows from all others, 1 - 1/n where the first token is enough. Greedy decoding from k tokens gives
    the rest if and only if, under teacher forcing, no arg-max after the first k tokens is wrong, so that the
    place of the last wrong one decides and one pass gives all k. Prompt and rest are both taken from the sequence
    itself. Sequences of one token are left out.
    """

    name = "extraction_strength"
    kind = "memorization"
    direction = "lower"
    range = (0.0, 100.0)
    by_default = False
    paper = "Carlini et al. 2021, arXiv 2012.07805"

    def readings(self, testbed: Testbed) -> list[Reading]:
        """Return the whole of both forget sets."""
        return [Reading(name) for name in forget_sets(testbed)]

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        """Yield one value for each of the two forget sets."""
        for name in forget_sets(evaluation.testbed):
            sequences = evaluation.testbed.sets()[name]
            counted = sequences.lengths > 1
            shortest = shortest_prompts(evaluation.teacher_forced(name))[counted]
            strength = 100.0 * (1.0 - shortest.double() / sequences.lengths[counted])
            yield mean_over_sequences(name, sequences.ids[counted].tolist(), strength.tolist())


def shortest_prompts(teacher_forced: TeacherForced) -> Tensor:
    """Return (N,) int64, the number of tokens after which no arg-max is wrong; all of them where the last is wrong."""
    import torch

    wrong = teacher_forced.real & ~teacher_forced.hits
    # Column t is about token t + 1: if that is the last wrong one, the first t + 2 tokens have to be shown.
    shown = (torch.arange(wrong.shape[1]) + 2).expand_as(wrong)
    first = torch.ones(len(wrong), 1, dtype=torch.int64)
    return torch.cat([first, shown.where(wrong, 1)], dim=1).amax(dim=1)
