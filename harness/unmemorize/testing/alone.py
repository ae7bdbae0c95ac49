"""What a plugin's code is checked in: fixed global generators, one thread, and everything global as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from unmemorize.contracts.namespaces import Namespaces
from unmemorize.contracts.process_state import ProcessState
from unmemorize.execution.isolation import isolated

_SEED = 20_250_101


@contextmanager
def alone() -> Iterator[ProcessState]:
    """Give what happens inside fixed global generators and one thread, and restore all of it afterwards.

    As the core does it: a method that draws from the global generators is found by the state that is yielded, not by
    chance.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with isolated(_SEED, Namespaces()) as guard:
            yield guard.state
    finally:
        torch.set_num_threads(threads)
