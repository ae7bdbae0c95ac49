"""A plugin at work: the global generators are seeded for it, and everything global is restored afterwards."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from unmemorize.contracts.namespaces import Namespaces
from unmemorize.contracts.process_state import Guard, guarded


@contextmanager
def isolated(seed: int, namespaces: Namespaces | None = None) -> Iterator[Guard]:
    """Give the global generators a seed of their own inside, and restore everything global afterwards.

    What is yielded tells what was changed inside.

    Args:
        seed: of Python's, numpy's and torch's generators.
        namespaces: classes and modules whose functions are not to be replaced, or none.
    """
    generators = random.getstate(), np.random.get_state()
    # The mode is left as it was found, whatever modes somebody has entered inside and not left.
    with torch.random.fork_rng(), torch.inference_mode(mode=False):  # every accelerator's generator, too
        try:
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            with guarded(namespaces=namespaces) as guard:
                yield guard
        finally:
            random.setstate(generators[0])
            np.random.set_state(generators[1])
