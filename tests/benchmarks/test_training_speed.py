"""What regularizers and fine-tuning cost beside their naive or earlier-style counterparts: the ratio is the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel

from unmemorize import Context, Sequences, Testbed, TrainingStep
from unmemorize.registry.manager import Registry
from unmemorize.testing.models import known_mlps
from unmemorize_plugins.methods.finetuning.both import Both
from unmemorize_plugins.methods.finetuning.clean import Clean
from unmemorize_plugins.methods.regularizers.example_tied_dropout import ExampleTiedDropout
from unmemorize_plugins.methods.regularizers.loss_truncation import LossTruncation
from unmemorize_plugins.methods.regularizers.spectral_norm import SpectralNorm

CONTEXT = 150


@pytest.fixture(scope="module")
def testbed() -> Testbed:
    """A GPT-2 of TinyMem's width, and arithmetic-like rows that fill about half of its context."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=14, n_positions=CONTEXT, n_embd=128, n_layer=2, n_head=4, activation_function="relu",
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=10, eos_token_id=11, pad_token_id=13,
        )  # fmt: skip
        model = GPT2LMHeadModel(config).eval()
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(0, 12, (50 + 2 * (i % 20),), generator=generator).tolist() for i in range(64)]
    sets = [Sequences.from_rows(rows[part::2], prompt=20, pad_id=13, first_id=100 * part) for part in (0, 1)]
    mlps = known_mlps(model, Registry.load("none"))
    return Testbed("speed", model, sets[0], clean=sets[0], extra=sets[1], pad_id=13, mlps=mlps)


def empty_step(testbed: Testbed) -> TrainingStep:
    zeros = torch.zeros(4, 1)
    return TrainingStep(testbed.model, testbed.forget, zeros, zeros.bool(), zeros[:, 0], 0, 0)


@pytest.fixture(scope="module")
def spectral_penalty(testbed: Testbed) -> Iterator[Callable[[], Tensor]]:
    """The penalty alone, in the middle of a training run: one iteration on vectors that are near the top."""
    method, step = SpectralNorm(strength=2.0), empty_step(testbed)
    with method.attach(testbed.model, testbed.mlps, torch.Generator().manual_seed(0)):
        for _ in range(100):
            method.objective(step)
        yield lambda: method.objective(step)


def decomposed_penalty(testbed: Testbed) -> Callable[[], Tensor]:
    parts = [head for mlp in testbed.mlps for matrix in mlp.block_matrices() for head in matrix.by_part()]
    return lambda: torch.stack([torch.linalg.svdvals(part)[0] ** 2 for part in parts]).sum()


@pytest.mark.benchmark(group="spectral_norm: penalty and gradient")
@pytest.mark.parametrize("way", ["power iteration", "full decomposition"])
def test_spectral_norm(
    benchmark: BenchmarkFixture, testbed: Testbed, spectral_penalty: Callable[[], Tensor], way: str
) -> None:
    made = spectral_penalty if way == "power iteration" else decomposed_penalty(testbed)
    weights = [matrix.weight for mlp in testbed.mlps for matrix in mlp.block_matrices()]

    def act() -> float:
        penalty = made()
        torch.autograd.grad(penalty, weights)
        return float(penalty.detach())

    exact = float(decomposed_penalty(testbed)().detach())
    assert benchmark(act) == pytest.approx(exact, rel=0.05)


@pytest.mark.benchmark(group="example_tied_dropout: one MLP's masks for 128 examples")
@pytest.mark.parametrize("way", ["hash", "a generator per example"])
def test_example_tied_dropout(benchmark: BenchmarkFixture, testbed: Testbed, way: str) -> None:
    """One position only, so that drawing the masks is most of the work."""
    method, mlp = ExampleTiedDropout(p_fixed=0.2, p_mem=0.1), testbed.mlps[0]
    batch = testbed.forget.select([0] * 128)
    batch.ids[:] = torch.arange(128)
    activations = torch.ones(128, 1, mlp.neurons)

    def by_generators(_: object, seen: tuple[Tensor]) -> tuple[Tensor]:
        """Draw row by row, each time from a generator that is seeded with the example's id."""
        masks = torch.zeros(128, mlp.neurons)
        masks[:, : mlp.neurons // 5] = 1
        for row, example in enumerate(batch.ids.tolist()):
            drawn = torch.rand(mlp.neurons, generator=torch.Generator().manual_seed(example)) < 0.1
            masks[row] += drawn * (masks[row] == 0)
        return (seen[0] * masks[:, None],)

    testbed.model.train()
    with torch.no_grad(), ExitStack() as stack:
        stack.callback(testbed.model.eval)
        if way == "hash":
            stack.enter_context(method.attach(testbed.model, testbed.mlps, torch.Generator().manual_seed(0)))
            method.before_batch(batch)
        else:
            stack.callback(mlp.down.module.register_forward_pre_hook(by_generators).remove)
        seen: list[Tensor] = []
        stack.callback(mlp.down.module.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0])).remove)
        benchmark(lambda: (seen.clear(), mlp.down.module(activations)))
    assert abs(float(seen[0].mean()) - 0.28) < 0.01


def padded_epoch(testbed: Testbed, sequences: Sequences) -> None:
    """One epoch as the released code does it: every row as long as the context, and padding in the loss."""
    optimizer = torch.optim.AdamW(testbed.model.parameters(), lr=1e-5)
    padded = torch.full((len(sequences), CONTEXT), 13)
    padded[:, : sequences.tokens.shape[1]] = sequences.tokens
    for ids in padded.split(16):
        logits = testbed.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer.zero_grad()


@pytest.mark.benchmark(group="clean, both: one epoch")
@pytest.mark.parametrize("name", ["clean", "both"])
@pytest.mark.parametrize("way", ["cut batches", "padded to the context"])
def test_fine_tuning(benchmark: BenchmarkFixture, testbed: Testbed, name: str, way: str) -> None:
    method = (Clean if name == "clean" else Both)(epochs=1, batch_size=16, learning_rate=1e-5)
    sequences = method.sequences(testbed)
    if way == "cut batches":
        benchmark.pedantic(lambda: method.apply(testbed, Context()), rounds=3)
    else:
        benchmark.pedantic(lambda: padded_epoch(testbed, sequences), rounds=3)
    assert all(torch.isfinite(parameter).all() for parameter in testbed.model.parameters())


def rows_and_losses() -> TrainingStep:
    """A step of 128 rows whose losses are given: what is timed is the truncation alone."""
    generator = torch.Generator().manual_seed(0)
    losses = torch.rand(128, 60, generator=generator)
    mask = torch.ones(128, 60, dtype=torch.bool)
    return TrainingStep(None, None, losses, mask, losses.mean(dim=1), 1000, 0)  # type: ignore[arg-type]


def one_loss_at_a_time(step: TrainingStep, recent: list[float], dropped: float) -> Tensor:
    """Sort the recent losses in Python, and add up the kept rows one by one."""
    recent += step.sequence_losses.tolist()
    del recent[:-1024]
    ordered = sorted(recent)
    place = (1 - dropped) * (len(ordered) - 1)
    limit = ordered[int(place)] + (place % 1) * (ordered[min(int(place) + 1, len(ordered) - 1)] - ordered[int(place)])
    kept = [row for row, loss in enumerate(step.sequence_losses.tolist()) if loss <= limit]
    total = sum(step.token_losses[row].sum() for row in kept)
    return total / sum(int(step.mask[row].sum()) for row in kept)  # type: ignore[no-any-return]


@pytest.mark.benchmark(group="loss_truncation: the objective of 128 rows")
@pytest.mark.parametrize("way", ["vectorized", "one loss at a time"])
def test_loss_truncation(benchmark: BenchmarkFixture, testbed: Testbed, way: str) -> None:
    method, step, recent = LossTruncation(dropped=0.05, warmup_steps=0), rows_and_losses(), list[float]()
    with method.attach(testbed.model, testbed.mlps, torch.Generator()):
        ways = {
            "vectorized": lambda: method.objective(step),
            "one loss at a time": lambda: one_loss_at_a_time(step, recent, 0.05),
        }
        value = benchmark(ways[way])
    assert abs(float(value) - 0.5) < 0.05
