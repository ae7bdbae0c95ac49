"""Ten metrics on one evaluation, against each metric with passes and continuations of its own.

The result is the ratio of the two rows; both must give the same values.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from unmemorize import Metric, Sequences, Testbed, Window
from unmemorize.evaluation import evaluate
from unmemorize_plugins.metrics.approximate import Approximate
from unmemorize_plugins.metrics.discoverable import Discoverable
from unmemorize_plugins.metrics.exact_memorization import ExactMemorization
from unmemorize_plugins.metrics.extraction import Extraction
from unmemorize_plugins.metrics.extraction_strength import ExtractionStrength
from unmemorize_plugins.metrics.levenshtein import Levenshtein
from unmemorize_plugins.metrics.membership import Membership
from unmemorize_plugins.metrics.utility import Accuracy, ForgetPerplexity, Perplexity

METRICS: list[Metric] = [
    Extraction(), ExactMemorization(), ExtractionStrength(), Levenshtein(), Approximate(), Discoverable(), Membership(),
    ForgetPerplexity(), Accuracy(), Perplexity(),
]  # fmt: skip


@pytest.fixture(scope="module")
def testbed() -> Testbed:
    """A 2-layer GPT-2 with a vocabulary of 4,096, and 48 sequences of which it regurgitates half."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "gpt2", vocab_size=4096, n_embd=128, n_layer=2, n_head=4, n_positions=128, initializer_range=0.2,
        bos_token_id=10, eos_token_id=11, pad_token_id=13,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        ids, unseen = torch.randint(20, 4096, (48, 32)), torch.randint(20, 4096, (48, 64))
    with torch.no_grad():
        for _ in range(32):
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
    ids[24:, 40] = 14
    forget = Sequences.from_rows(ids, prompt=32, pad_id=13)
    holdout = Sequences.from_rows(unseen, prompt=32, pad_id=13)
    return Testbed(name="speed", model=model, forget=forget, holdouts={"one": holdout}, window=Window(32, 32))


def shared(testbed: Testbed) -> dict[Any, float]:
    return {slot: value.measurement.value for slot, value in evaluate(testbed, METRICS).items()}


def one_by_one(testbed: Testbed) -> dict[Any, float]:
    values = [evaluate(testbed, [metric]) for metric in METRICS]
    return {slot: value.measurement.value for found in values for slot, value in found.items()}


@pytest.mark.benchmark(group="ten metrics on 48 sequences, 32 + 32 tokens")
@pytest.mark.parametrize("way", [shared, one_by_one])
def test_metrics(benchmark: Any, testbed: Testbed, way: Any) -> None:
    values = benchmark.pedantic(way, args=(testbed,), rounds=3, warmup_rounds=1)
    extraction = next(value for slot, value in values.items() if slot[:2] == ("extraction@32+32", "forget"))
    assert extraction == 50.0


def test_shared_passes_are_faster_and_change_nothing(testbed: Testbed) -> None:
    seconds: dict[Any, float] = {}
    values: dict[Any, dict[Any, float]] = {}
    for way in (shared, one_by_one, shared, one_by_one):
        begin = time.perf_counter()
        values[way] = way(testbed)
        seconds[way] = min(seconds.get(way, float("inf")), time.perf_counter() - begin)
    assert values[shared].keys() == values[one_by_one].keys()
    for slot, value in values[shared].items():
        assert value == pytest.approx(values[one_by_one][slot], rel=1e-4), slot
    assert seconds[one_by_one] > 1.3 * seconds[shared]
