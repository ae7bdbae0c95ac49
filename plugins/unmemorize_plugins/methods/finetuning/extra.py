"""Fine-tuning on extra data (Sakarvadia et al. 2025, section 4): train on other data.

    minimize over w   mean l(x) over x in E,   E = the clean training data without the counterparts of M

What is not trained on is forgotten.
"""

from __future__ import annotations

from unmemorize import FineTuning, Sequences, Testbed


class Extra(FineTuning):
    """Go on training, with the testbed's own recipe, on all clean training data but the artifact's counterparts.

    Cost: 5 forward and backward passes over the extra data. Memory: gradients and the optimizer's state, 12 bytes per
    parameter for AdamW (16 where the model is in 16 bits, stepped on in float32), and the activations of one batch.
    """

    name = "extra"
    needs = frozenset({"extra"})
    paper = "Sakarvadia et al. 2025, arXiv 2410.02159"

    def sequences(self, testbed: Testbed) -> Sequences:
        """Return the clean training data without the counterparts of the forget set."""
        assert testbed.extra is not None
        return testbed.extra
