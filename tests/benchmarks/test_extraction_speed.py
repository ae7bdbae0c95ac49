"""The extraction check: one teacher-forced pass against real decoding, and against growing prefixes without a cache.

The result is the ratio of the groups' rows; all of them must give the same answer.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from unmemorize import Evaluation, Sequences, Testbed, Window
from unmemorize.contracts.testbed import Sequences as Rows

WINDOW = Window(50, 50)


@pytest.fixture(scope="module")
def testbed() -> Testbed:
    """A 2-layer TinyMem-sized GPT-2 and 64 sequences, half of which are what it says itself."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "gpt2", vocab_size=14, n_embd=128, n_layer=2, n_head=4, n_positions=150, initializer_range=0.2,
        bos_token_id=10, eos_token_id=11, pad_token_id=13,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        ids = torch.randint(0, 10, (64, 50))
    with torch.no_grad():
        for _ in range(50):
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
    ids[32:, 99] = (ids[32:, 99] + 1) % 10
    forget: Rows = Sequences.from_rows(ids, prompt=50, pad_id=13)
    return Testbed(name="speed", model=model, forget=forget, window=WINDOW, pad_id=13)


def one_pass(testbed: Testbed) -> list[bool]:
    return Evaluation(testbed).extraction("forget", WINDOW).extractable.tolist()


def decoding(testbed: Testbed) -> list[bool]:
    return Evaluation(testbed).extraction("forget", WINDOW, generate=True).extractable.tolist()


@torch.no_grad()
def growing_prefixes(testbed: Testbed) -> list[bool]:
    ids = testbed.forget.tokens[:, :50]
    for _ in range(50):
        ids = torch.cat([ids, testbed.model(input_ids=ids, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
    return (ids == testbed.forget.tokens).all(dim=1).tolist()


@pytest.mark.benchmark(group="extraction of 64 sequences, 50 + 50 tokens")
@pytest.mark.parametrize("check", [one_pass, decoding, growing_prefixes])
def test_extraction_check(benchmark: Any, testbed: Testbed, check: Any) -> None:
    extractable = benchmark.pedantic(check, args=(testbed,), rounds=3, warmup_rounds=1)
    assert extractable == [True] * 32 + [False] * 32


def test_one_pass_is_many_times_faster_than_growing_prefixes(testbed: Testbed) -> None:
    import time

    few = dataclasses.replace(testbed, forget=testbed.forget.select(slice(28, 36)))

    def fastest(check: Any) -> float:
        spent = []
        for _ in range(3):
            begin = time.perf_counter()
            check(few)
            spent.append(time.perf_counter() - begin)
        return min(spent)

    assert fastest(growing_prefixes) > 3 * fastest(one_pass)
