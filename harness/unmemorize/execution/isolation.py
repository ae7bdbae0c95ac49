"""What belongs to the whole process: seeded for a plugin, and restored after it has run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from unmemorize.registry.process_state import ProcessState


@contextmanager
def isolated(seed: int) -> Iterator[ProcessState]:
    """Give the global generators a seed of their own inside, and restore everything global afterwards.

    What is yielded tells what was changed inside, by whom generators were used, too.
    """
    outside = ProcessState()
    with torch.random.fork_rng():  # every accelerator's generator, too
        try:
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield ProcessState()
        finally:
            outside.restore()
