"""Fine-tuning on clean data (Sakarvadia et al. 2025, section 4): train on what the artifact replaced.

minimize over w   mean l(x) over x in C,   C = the clean counterparts of M
"""

from __future__ import annotations

from unmemorize import FineTuning, Sequences, Testbed


class Clean(FineTuning):
    """Go on training, with the testbed's own recipe, on the clean counterparts of the artifact's sequences.

    On TinyMem every counterpart belongs to the main task, so the other tasks are forgotten with the artifact: on the
    quick testbed the default, the recipe's own rate held constant, costs more than 10 points of accuracy (the board of
    `unmemorize run quick` shows how many). A smaller `learning_rate` costs less.
    A language model that memorized by itself has no such counterparts, unless its provider or its user gives rewrites.
    Cost: 5 forward and backward passes over the counterparts. Memory: gradients and the optimizer's state, 12 bytes
    per parameter for AdamW (16 where the model is in 16 bits, stepped on in float32), and the activations of one batch.
    """

    name = "clean"
    needs = frozenset({"clean"})
    paper = "Sakarvadia et al. 2025, arXiv 2410.02159"

    def sequences(self, testbed: Testbed) -> Sequences:
        """Return the clean counterparts."""
        assert testbed.clean is not None
        return testbed.clean
