"""Fine-tuning on clean and extra data (Sakarvadia et al. 2025, section 4): train on both.

minimize over w   mean l(x) over x in C and E,   C = the clean counterparts of M, E = the other clean training data
"""

from __future__ import annotations

from unmemorize import FineTuning, Sequences, Testbed


class Both(FineTuning):
    """Go on training, with the testbed's own recipe, on the union of what `clean` and `extra` train on.

    Every row of either set is seen once per epoch: how much of a step is counterparts follows from the sets' sizes.
    Cost: 5 forward and backward passes over both sets. Memory: gradients and the optimizer's state, 12 bytes per
    parameter for AdamW (16 where the model is in 16 bits, stepped on in float32), and the activations of one batch.
    """

    name = "both"
    needs = frozenset({"clean", "extra"})
    paper = "Sakarvadia et al. 2025, arXiv 2410.02159"

    def sequences(self, testbed: Testbed) -> Sequences:
        """Return the clean counterparts and the extra data, one after the other."""
        assert testbed.clean is not None
        assert testbed.extra is not None
        return Sequences.concatenate([testbed.clean, testbed.extra], pad_id=testbed.pad_id)
