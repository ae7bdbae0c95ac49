"""Methods, metrics, providers, trackers and imports that misbehave: one honest record each, and nobody else notices.

Sixty bad methods act in one run between good ones, on one testbed in one process: what any of them left would show.
"""

from __future__ import annotations

import enum
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel

import unmemorize
from unmemorize import Context, Measurement, Method, Metric, ModelProvider, Testbed, hookimpl
from unmemorize.contracts.namespaces import Namespaces
from unmemorize.contracts.process_state import ProcessState
from unmemorize.errors import PluginError, UnmemorizeError
from unmemorize.execution.runtime import load_testbed
from unmemorize.execution.session import LoadedTestbed
from unmemorize.registry.hookspecs import CellEvent
from unmemorize.registry.manager import Registry
from unmemorize.testing import tiny_model, tiny_testbed
from unmemorize.testing.trial import MethodCase
from unmemorize_plugins.metrics.extraction import Extraction
from unmemorize_plugins.metrics.utility import Accuracy

pytestmark = [pytest.mark.faults, pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore:Anomaly Detection")]
TOY = Path(__file__).parents[1] / "assets" / "toy.py"


class Zeros(nn.Module):
    """A parametrization and a block that say nothing."""

    def forward(self, x, *_, **__):
        return x * 0


class Nulls(torch.overrides.TorchFunctionMode):
    """Lets every product be zero."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        return result * 0 if getattr(function, "__name__", "") in ("linear", "addmm") else result


class Colour(enum.Enum):
    RED = "red"


def c_fc(model: PreTrainedModel) -> Any:
    return model.transformer.h[0].mlp.c_fc


def first(model: PreTrainedModel) -> nn.Parameter:
    return next(model.parameters())


def zero(model: PreTrainedModel) -> None:
    for weight in model.parameters():
        weight.data.zero_()


def muted(model: PreTrainedModel) -> None:
    forward = model.forward

    def silent(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        output.logits = output.logits * 0
        return output

    model.forward = silent


def patched(model: PreTrainedModel) -> None:
    kind = type(model.transformer.h[0].mlp)
    kind.forward = lambda self, states: states * 0


def subclassed(model: PreTrainedModel) -> None:
    model.__class__ = type("Sub", (type(model),), {"forward": lambda self, *a, **k: None})


def untied(model: PreTrainedModel) -> None:
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone() * 0.5)


def shared(model: PreTrainedModel) -> None:
    one, two = (block.mlp.c_fc for block in model.transformer.h)
    one.weight = two.weight


def odd_eps(model: PreTrainedModel) -> None:
    for module in model.modules():
        if hasattr(module, "eps"):
            module.eps = 5.0


def dropped(model: PreTrainedModel) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.9
    model.train()


def keeps_editing(model: PreTrainedModel) -> None:
    weight = first(model)

    def go() -> None:
        for _ in range(60):
            weight.data.mul_(0.9)
            time.sleep(0.02)

    threading.Thread(target=go, daemon=True).start()


def cyclic(context: Context) -> None:
    context.report.notes["self"] = context.report.notes


def rides(context: Context) -> None:
    time.sleep(0.3)
    context.started = time.perf_counter() + 100
    context.report.paused = 1e9


def waiting_timer() -> None:
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_VIRTUAL, 900)


def replaced_data(testbed: Testbed) -> None:
    object.__setattr__(testbed.forget, "tokens", testbed.forget.tokens[:2] * 0 + 5)


def poisoned(context: Context) -> None:
    _, done, _ = context.shared_work._kept or (None, SimpleNamespace(value={}), None)
    for tensor in done.value.values() if isinstance(done.value, dict) else done.value:
        tensor.zero_()


class Bad(NamedTuple):
    act: Callable[[Testbed, Context], object]
    """What is done beside an honest edit of one weight."""
    status: str
    words: str
    """What the reason, or a note where the cell is done, has to say."""


def model(act: Callable[[PreTrainedModel], object], words: str, status: str = "failed") -> Bad:
    return Bad(lambda testbed, _: act(testbed.model), status, words)


def shown(act: Callable[[Testbed], object], words: str, status: str = "failed") -> Bad:
    return Bad(lambda testbed, _: act(testbed), status, words)


def process(act: Callable[[], object], words: str, status: str = "done") -> Bad:
    return Bad(lambda *_: act(), status, words)


def left(act: Callable[[Context], object], words: str, status: str = "done") -> Bad:
    return Bad(lambda _, context: act(context), status, words)


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


class MuteError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class Base(BaseException):
    pass


def enter(mode: Any) -> None:
    mode.__enter__()


KEPT: list[Any] = []
"""What would otherwise be closed or left when nobody holds it any more."""


def hold(make: Callable[[], Any]) -> None:
    KEPT.append(make())


def leak() -> None:
    KEPT.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(90))


BAD: dict[str, Bad] = {
    "raises": process(raising(RuntimeError("x")), "RuntimeError: x", "failed"),
    "raises_without_text": process(raising(MuteError()), "MuteError", "failed"),
    "raises_much": process(raising(RuntimeError("x" * 20_000_000)), "RuntimeError: xxx", "failed"),
    "raises_escapes": process(raising(RuntimeError("\udcff\x00\x1b]0;t\x07")), "RuntimeError", "failed"),
    "raises_group": process(raising(ExceptionGroup("g", [ValueError("a")])), "ExceptionGroup", "failed"),
    "raises_base": process(raising(Base("b")), "Base: b", "failed"),
    "exits": process(raising(SystemExit(0)), "called exit(0)", "failed"),
    "generator_exit": process(raising(GeneratorExit()), "GeneratorExit", "failed"),
    "stop_iteration": process(raising(StopIteration()), "StopIteration", "failed"),
    "nan": model(lambda m: first(m).data.fill_(torch.nan), "not finite"),
    "huge": model(lambda m: [w.data.mul_(1e38) for w in m.parameters()], "not finite"),
    "adds_parameter": model(lambda m: m.register_parameter("more", nn.Parameter(torch.ones(1))), "has new more"),
    "half": model(lambda m: m.half(), "torch.float16, and was"),
    "no_model": shown(lambda t: setattr(t, "model", None), "the model is None"),
    "text_for_model": shown(lambda t: setattr(t, "model", "x"), "the model is a str"),
    "hook": model(lambda m: m.lm_head.register_forward_hook(lambda *_: None), "a forward hook on lm_head"),
    "block_hook": model(
        lambda m: m.transformer.h[0].register_forward_pre_hook(lambda *_: None), "a forward pre hook on transformer.h.0"
    ),
    "weight_hook": model(lambda m: first(m).register_hook(lambda g: g * 0), "a backward hook on the weight"),
    "global_hook": process(
        lambda: nn.modules.module.register_module_forward_hook(lambda m, i, o: None), "hooks on all modules", "failed"
    ),
    "muted": model(muted, "a replaced `forward` on the model"),
    "patched_class": model(patched, "GPT2MLP.forward was replaced"),
    "subclass": model(subclassed, "the model is a Sub"),
    "identity": model(lambda m: setattr(m.transformer.h[0].mlp, "act", nn.Identity()), "another class"),
    "parametrized": model(lambda m: parametrize.register_parametrization(c_fc(m), "weight", Zeros()), "the state dict"),
    "wrapped_block": model(
        lambda m: m.transformer.h.__setitem__(0, nn.Sequential(m.transformer.h[0])), "the state dict"
    ),
    "untied": model(untied, "other tensors share their memory"),
    "shared": model(shared, "other tensors share their memory"),
    "attribute": model(odd_eps, "`eps` of transformer.h.0.ln_1"),
    "config": model(lambda m: setattr(m.config, "n_positions", 2), "`n_positions` of the model's config", "done"),
    "generation": model(
        lambda m: setattr(m.generation_config, "repetition_penalty", 3.0), "`repetition_penalty` of the model's", "done"
    ),
    "training": model(dropped, "training mode of the model", "done"),
    "frozen": model(lambda m: m.requires_grad_(False), "requires_grad of transformer.wte.weight", "done"),
    "gradient": model(lambda m: setattr(first(m), "grad", first(m) * 0), "a gradient left in", "done"),
    "new_parameter": model(lambda m: setattr(c_fc(m), "weight", nn.Parameter(c_fc(m).weight * 0.5)), "", "done"),
    "writes_tokens": shown(lambda t: t.forget.tokens.fill_(5), "changed sequences in place: forget"),
    "writes_lengths": shown(lambda t: t.retain.lengths.fill_(6), "changed sequences in place: retain"),
    "sets_tokens": shown(replaced_data, "changed sequences in place: forget"),
    "peeks": shown(lambda t: len(t.forget_unseen), "'forget_unseen'"),
    "swaps_sets": shown(lambda t: setattr(t, "forget", t.retain), "", "done"),
    "moves_window": shown(lambda t: [setattr(t, "window", (1, 1)), setattr(t, "pad_id", 9)], "", "done"),
    "facts": shown(lambda t: t.facts.update(leak="x"), "", "done"),
    "mlps": shown(lambda t: object.__setattr__(t.mlps[0], "up", None), "", "done"),
    "poisons": left(poisoned, ""),
    "float64": process(lambda: torch.set_default_dtype(torch.float64), "torch's default dtype was changed"),
    "meta": process(lambda: torch.set_default_device("meta"), "torch's default device was changed"),
    "no_grad": process(lambda: torch.set_grad_enabled(False), "torch's grad mode was changed"),
    "inference": process(lambda: hold(lambda: torch._C._InferenceMode(True)), "torch's inference mode was changed",
                         "failed"),
    "autocast": process(lambda: enter(torch.autocast("cpu")), "autocast of cpu was changed"),
    "function_mode": process(lambda: enter(Nulls()), "a function mode of torch", "failed"),
    "seeds": process(lambda: [torch.manual_seed(1), np.random.seed(1), random.seed(1)], ""),
    "threads": process(lambda: torch.set_num_threads(2), "torch's number of threads was changed"),
    "denormal": process(lambda: torch.set_flush_denormal(True), "tiny numbers"),
    "anomaly": process(lambda: torch.autograd.set_detect_anomaly(True), "anomaly detection was changed"),
    "precision": process(lambda: torch.set_float32_matmul_precision("medium"), "precision of matrix products"),
    "deterministic": process(lambda: torch.use_deterministic_algorithms(True), "deterministic algorithms"),
    "chdir": process(lambda: os.chdir("/"), "the working folder was changed"),
    "environment": process(lambda: os.environ.update(HOME="/nowhere"), "environment variable HOME was changed"),
    "closes": process(lambda: [os.close(1), os.close(2)], "the standard file 1 was closed"),
    "no_stdout": process(lambda: setattr(sys, "stdout", None), "sys.stdout was replaced"),
    "prints": process(lambda: print("x" * 100_000), ""),
    "warnings": process(lambda: warnings.simplefilter("error"), "filters for all warnings were set"),
    "recursion": process(lambda: sys.setrecursionlimit(400), "the recursion limit was changed"),
    "timer": process(waiting_timer, "a timer was left running"),
    "dumps": process(lambda: setattr(json, "dumps", lambda *_, **__: "{}"), "json.dumps was replaced", "failed"),
    "gelu": process(lambda: setattr(nn.functional, "gelu", nn.functional.relu), "gelu was replaced", "failed"),
    "core": process(lambda: setattr(Context, "check_deadline", print), "Context.check_deadline was replaced", "failed"),
    "child": process(lambda: hold(lambda: subprocess.Popen(["sleep", "60"])), "a process was started that still ran"),
    "splits": process(os.fork, ""),
    "files": process(leak, "left the testbed changed: more than", "failed"),
    "thread": model(keeps_editing, "a thread was started that still runs"),
    "cycle": left(cyclic, "nested too deeply", "failed"),
    "object": left(lambda c: c.report.notes.update(o=object()), "it holds a object", "failed"),
    "enormous": left(lambda c: c.report.notes.update(a="x" * 30_000_000), "take 30.0 MB", "failed"),
    "endless": left(lambda c: c.report.notes.update(a=10**400), "a number beyond 64 bits", "failed"),
    "mixed_keys": left(lambda c: c.report.notes.update({1: 2, "1": 5}), "keys that are one text", "failed"),
    "odd_key": left(lambda c: c.report.notes.update({(1, 2): 2}), "has the key (1, 2)", "failed"),
    "no_notes": left(lambda c: setattr(c.report, "notes", None), "and no table", "failed"),
    "numbers": left(lambda c: c.report.notes.update(a=np.int64(3), b=torch.ones(2), c={2, 1}, d=Path("x")), '"a": 3'),
    "enum_flag": left(lambda c: c.report.flags.add(Colour.RED), "", "done"),
    "number_flag": left(lambda c: c.report.flags.add(1), "which is no text", "failed"),
    "curve": left(lambda c: c.report.curve.append({"epoch": "x"}), "something other than numbers", "failed"),
    "numpy_curve": left(lambda c: c.report.curve.append({"epoch": np.float32(1)}), ""),
    "negative": left(lambda c: c.report.seconds.update(edit=-1000.0), "no number from 0 on", "failed"),
    "nan_seconds": left(lambda c: c.report.seconds.update(edit=float("nan")), "no number from 0 on", "failed"),
    "text_seconds": left(lambda c: c.report.seconds.update(edit="long"), "no number from 0 on", "failed"),
    "more_seconds": left(lambda c: c.report.seconds.update(edit=100.0), "seconds are charged, and", "failed"),
    "rides": left(rides, ""),
    "processors": left(lambda c: setattr(c.report, "decoding", (object(),)), "no tuple of logits processors", "failed"),
}  # fmt: skip
"""What bad methods do, and what comes of their cells."""
GOOD = {
    "durable": {"ratio": [0.05, 0.06]},
    "activations": {"ratio": [0.05, 0.1]},
    "random_weights": {},
    "balanced_subnet": {"epochs": 1, "ratio": 0.05},
}


def method_of(name: str, bad: Bad) -> type[Method]:
    def apply(self: Method, testbed: Testbed, context: Context) -> None:
        testbed.mlps[0].up.weight.data[0, 0] += 0.5
        bad.act(testbed, context)

    fields = {"name": f"bad_{name}", "stage": "unlearn", "needs": frozenset({"forget", "retain"}), "apply": apply}
    return type(name.title().replace("_", ""), (Method,), {**fields, "__doc__": "Misbehaves."})


@pytest.fixture(scope="module")
def methods() -> dict[str, type[Method]]:
    return {name: method_of(name, bad) for name, bad in BAD.items()}


def numbers(results: unmemorize.Results) -> dict[str, tuple[Any, ...]]:
    """What good methods measured."""
    frame = results.frame.select("key", "method", "status", "values", "edited", "notes", "flags")
    return {row[0]: row[1:] for row in frame.iter_rows() if not row[1].startswith("bad_")}


@pytest.fixture(scope="module")
def runs(
    methods: dict[str, type[Method]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, unmemorize.Results]]:
    """An undisturbed run, one with all bad methods between the good ones, and that one again."""
    registry = Registry.load("none")
    registry.add_file(TOY)
    registry.add(SimpleNamespace(register_methods=hookimpl(lambda: list(methods.values()))), name="bad")
    names, good = [f"bad_{name}" for name in BAD], list(GOOD.items())
    every = max(1, len(names) // len(good))
    mixed: dict[str, Any] = {}
    for place, name in enumerate(names):
        if place % every == 0 and good:
            mixed |= [good.pop(0)]
        mixed[name] = {}
    suite = {
        "name": "faults", "description": "tiny", "testbed": {"toy": {"provider": "toy"}},
        "metric": {"extraction": {}, "accuracy": {}},
    }  # fmt: skip
    folder, found = tmp_path_factory.mktemp("faults"), {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, chosen, place in (("whole", GOOD, "a"), ("mixed", mixed, "b"), ("again", mixed, "b")):
            found[name] = unmemorize.run(
                {**suite, "method": chosen}, registry=registry, results=folder / place, device="cpu"
            )
    yield found
    for kept in KEPT:
        if isinstance(kept, int):
            os.close(kept)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_method_has_one_honest_record(name: str, runs: dict[str, unmemorize.Results]) -> None:
    rows = runs["mixed"].frame.filter(runs["mixed"].frame["method"] == f"bad_{name}").to_dicts()
    assert len(rows) == 1
    assert rows[0]["status"] == BAD[name].status, rows[0]["reason"]
    assert BAD[name].words in (rows[0]["reason"] or "") + rows[0]["notes"]
    assert len(rows[0]["reason"] or "") <= 2_000
    if rows[0]["status"] == "done":
        assert 0 < rows[0]["total_seconds"] < 20
        assert rows[0]["total_seconds"] > 0.3 or name != "rides"


def test_good_methods_have_the_numbers_of_an_undisturbed_run(runs: dict[str, unmemorize.Results]) -> None:
    assert len(numbers(runs["whole"])) == 1 + 2 + 2 + 1 + 1
    assert numbers(runs["mixed"]) == numbers(runs["whole"])
    assert numbers(runs["again"]) == numbers(runs["whole"])


def test_running_again_tries_only_what_failed(runs: dict[str, unmemorize.Results]) -> None:
    report = runs["again"].report
    assert report is not None
    failed = sum(bad.status == "failed" for bad in BAD.values())
    assert (report.done, report.failed) == (0, failed)
    assert report.cached == len(report.keys) - failed


@pytest.mark.parametrize("name", [name for name, bad in BAD.items() if bad.status == "failed" and name != "huge"])
def test_check_refuses_what_a_run_refuses(name: str, methods: dict[str, type[Method]]) -> None:
    if name in ("raises_base", "generator_exit"):
        pytest.skip("ends the check itself")
    trial = MethodCase(methods[name]).attempt
    assert trial.error or trial.refusal or trial.global_changes or trial.data


def measuring(act: Callable[[Any], Any], name: str = "bad", **fields: Any) -> type[Metric]:
    def measure(self: Metric, evaluation: Any) -> Any:
        found = act(evaluation)
        yield from found if isinstance(found, list) else [value(**fields)]

    declared = {"name": name, "kind": "memorization", "direction": "lower", "range": (0.0, 100.0)}
    return type("Rash", (Metric,), {**declared, "measure": measure, "__doc__": "Misbehaves."})


def value(**fields: Any) -> Measurement:
    return Measurement(**{"set": "forget", "value": 5.0, "count": 3, **fields})


def nothing(_: Any) -> None:
    """Do nothing."""


def labelled(*labels: str) -> Callable[..., str]:
    said = iter(labels * 9)
    return lambda self, testbed: next(said)


METRICS: dict[str, tuple[Callable[[Any], Any], dict[str, Any], str]] = {
    "edits": (lambda e: zero(e.testbed.model), {}, "left something on the model: other weights"),
    "edits_data": (lambda e: e.testbed.forget.tokens.fill_(4), {}, "changed sequences in place: forget"),
    "hooks": (lambda e: e.testbed.model.lm_head.register_forward_hook(print), {}, "a forward hook on lm_head"),
    "patches": (lambda e: setattr(nn.functional, "gelu", nn.functional.relu), {}, "gelu was replaced"),
    "writes_pass": (lambda e: e.teacher_forced("forget").losses.zero_(), {}, "wrote into a pass"),
    "raises": (lambda e: 1 / 0, {}, "division by zero"),
    "exits": (lambda e: sys.exit(0), {}, r"called exit\(0\)"),
    "below": (nothing, {"value": -5.0}, "the value -5"),
    "above": (nothing, {"value": 1e300}, r"the value 1e\+300"),
    "infinite": (nothing, {"value": float("inf")}, "the value inf"),
    "text": (nothing, {"value": "50"}, "no plain numbers: '50' is no number"),
    "truth": (nothing, {"value": True}, "True is no number"),
    "negative_count": (nothing, {"count": -3}, "-3 is no count"),
    "endless_count": (nothing, {"count": 2**70}, "is no count"),
    "part_of_count": (nothing, {"count": 2.5}, "no plain numbers"),
    "few_ids": (nothing, {"per_sequence": (1.0, 2.0), "ids": (1, 2, 3)}, "2 values, 3 ids and a count of 3"),
    "strange_ids": (nothing, {"count": 2, "per_sequence": (1.0, 9.0), "ids": (777, 778)}, "ids of no sequence: 777"),
    "no_mean": (nothing, {"value": 99.0, "count": 2, "per_sequence": (1.0, 1.0), "ids": (0, 1)}, "the mean of its"),
    "interval": (nothing, {"low": 90.0, "high": 10.0}, "with an interval from 90"),
    "unknown_set": (nothing, {"set": "../<script>"}, "which the testbed does not have"),
    "sideways": (nothing, {"direction": "sideways"}, "`direction` is 'sideways'"),
    "endless": (lambda e: [value(part=str(n)) for n in range(10_001)], {}, "more than 10,000 items"),
    "number": (lambda e: [5.0], {}, "`measure` yields float 5.0"),
    "twice": (lambda e: [value(), value()], {}, "twice"),
}


@pytest.fixture(scope="module")
def testbed() -> Testbed:
    return tiny_testbed(tiny_model("gpt2"))


@pytest.mark.parametrize("name", METRICS)
def test_a_bad_metric_is_named_and_leaves_everything_as_it_was(name: str, testbed: Testbed) -> None:
    act, fields, words = METRICS[name]
    expected = LoadedTestbed(testbed, [Extraction(), Accuracy()]).measure(Context())
    session = LoadedTestbed(testbed, [Extraction(), measuring(act, **fields)(), Accuracy()])
    state = ProcessState(namespaces=Namespaces())
    with pytest.raises((UnmemorizeError, ZeroDivisionError), match=words) as raised:
        session.measure(Context())
    if isinstance(raised.value, UnmemorizeError) and name not in ("exits", "endless", "number", "twice"):
        assert "metric 'bad' (class Rash)" in str(raised.value)
    assert session.restore() == []
    assert state.changes() == []
    assert LoadedTestbed(testbed, [Extraction(), Accuracy()]).measure(Context()) == expected


@pytest.mark.parametrize(
    ("label", "words"),
    [(labelled("bad1", "bad2"), "its label is 'bad1', and then 'bad2'"), (labelled("accuracy"), "its label is")],
)
def test_a_label_that_nobody_would_find_is_refused(label: Any, words: str, testbed: Testbed) -> None:
    metric = measuring(nothing)
    metric.label = label  # type: ignore[method-assign]
    with pytest.raises(PluginError, match=words):
        LoadedTestbed(testbed, [metric()]).measure(Context())


QUIET: dict[str, Callable[[Any], object]] = {
    "training": lambda e: e.testbed.model.train(),
    "config": lambda e: setattr(e.testbed.model.config, "use_cache", False),
    "dtype": lambda e: torch.set_default_dtype(torch.float64),
    "seeds": lambda e: (torch.manual_seed(1), random.seed(1)),
    "window": lambda e: setattr(e.testbed, "window", unmemorize.Window(1, 1)),
    "context": lambda e: setattr(e.context, "seed", 9),
    "testbed": lambda e: setattr(e, "testbed", None),
    "chdir": lambda e: os.chdir("/"),
    "numpy": lambda e: [value(value=np.float32(5), count=np.int64(3))],
    "tensor": lambda e: [value(value=torch.tensor(5.0))],
}


@pytest.mark.parametrize("name", QUIET)
def test_what_a_metric_changes_and_can_be_undone_reaches_no_other(name: str, testbed: Testbed) -> None:
    def measured(*metrics: Metric) -> tuple[Any, LoadedTestbed]:
        session = LoadedTestbed(testbed, metrics)
        return session.measure(Context()), session

    expected, _ = measured(Extraction(), Accuracy())
    found, session = measured(measuring(QUIET[name])(), Extraction(), Accuracy())
    assert {key: one for key, one in found.items() if key.metric != "bad"} == expected
    assert any(key.metric == "bad" for key in found)
    assert bool(session.undone) == (name in ("training", "config", "dtype", "chdir", "window"))
    assert session.restore() == []


def said(act: Callable[[], object], **fields: Any) -> type[ModelProvider]:
    class Rash(ModelProvider):
        """Misbehaves."""

        name = "rash"

        def load(self, context: Context) -> Testbed:
            made = tiny_testbed(tiny_model("gpt2", seed=context.seed))
            act()
            for name, each in fields.items():
                setattr(made, name, each)
            return made

    return Rash


LOUD: dict[str, tuple[Callable[[], object], list[str]]] = {
    "dtype": (lambda: torch.set_default_dtype(torch.float64), ["torch's default dtype was changed"]),
    "chdir": (lambda: os.chdir("/"), ["the working folder was changed"]),
    "json": (lambda: setattr(json, "dumps", print), ["json.dumps was replaced"]),
    "seeds": (lambda: [torch.manual_seed(7), random.random()], []),
    "prints": (lambda: [print("loud"), subprocess.run(["echo", "loud"], check=True)], []),
}


@pytest.mark.parametrize("name", LOUD)
def test_what_a_provider_changes_is_undone_and_noted(
    name: str, registry: Registry, capfd: pytest.CaptureFixture[str]
) -> None:
    act, undone = LOUD[name]
    state = ProcessState(namespaces=Namespaces())
    made = load_testbed(said(act)(), "made", Context(), registry)
    assert state.changes() == []
    assert made.facts.get("undone", []) == undone
    assert capfd.readouterr().out == ""


FACTS: dict[str, Any] = {"none": None, "object": {"a": object()}, "endless": {}}
FACTS["endless"]["self"] = FACTS["endless"]


@pytest.mark.parametrize("name", FACTS)
def test_facts_that_nobody_can_record_are_refused(name: str, registry: Registry) -> None:
    with pytest.raises(PluginError, match=r"provider 'rash': `testbed\.facts`"):
        load_testbed(said(lambda: None, facts=FACTS[name])(), "made", Context(), registry)


EVENT = CellEvent("k", "s", "t", "m", 0, 0, 1, "done", {"values": [1, 2]})
TRACKERS: dict[str, Callable[[CellEvent], object]] = {
    "raises": lambda _: raising(RuntimeError("t"))(),
    "raises_without_text": lambda _: raising(MuteError())(),
    "exits": lambda _: sys.exit(0),
    "raises_base": lambda _: raising(Base("b"))(),
    "chdir": lambda _: os.chdir("/"),
    "dtype": lambda _: torch.set_default_dtype(torch.float64),
    "patches": lambda _: setattr(json, "dumps", print),
    "stdout": lambda _: setattr(sys, "stdout", None),
    "prints": lambda _: [print("loud"), subprocess.run(["echo", "loud"], check=True)],
    "empties": lambda event: (event.record or {}).clear(),
    "seeds": lambda _: random.seed(1),
}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_changes_nothing_for_anybody(name: str, strict: bool, capfd: pytest.CaptureFixture[str]) -> None:
    registry, told = Registry(), []
    hooks = {hook: hookimpl(lambda event: TRACKERS[name](event) and None) for hook in ("cell_started", "cell_finished")}
    registry.add(SimpleNamespace(**hooks), name="bad")
    registry.add(SimpleNamespace(cell_finished=hookimpl(lambda event: told.append(event.record))), name="good")
    state = ProcessState(namespaces=Namespaces())
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("error" if strict else "always")
        registry.notify_started(EVENT)
        registry.notify_finished(EVENT)
        registry.notify_finished(EVENT)
    assert state.changes() == []
    assert told == [{"values": [1, 2]}] * 2
    captured = capfd.readouterr()
    assert captured.out == ""
    quiet = name in ("prints", "empties")
    words = " ".join(str(each.message) for each in heard)
    assert words.count("plugin 'bad' (runtime 0): cell_") == (0 if quiet else 1)


IMPORTS = {
    "base": "class B(BaseException): pass\nraise B()",
    "exits": "import sys; sys.exit(0)",
    "recursion": "def f(): return f()\nf()",
    "null": "a = '\x00'",
    "hook_exits": "import sys\nfrom unmemorize import hookimpl\n@hookimpl\ndef register_methods(): sys.exit(0)",
    "hook_base": "from unmemorize import hookimpl\n@hookimpl\ndef register_methods(): raise GeneratorExit",
    "hook_number": "from unmemorize import hookimpl\n@hookimpl\ndef register_methods(): return 5",
}


@pytest.mark.parametrize("name", IMPORTS)
def test_a_file_that_does_not_load_is_an_error_in_three_parts(name: str, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(IMPORTS[name])
    state, registry = ProcessState(namespaces=Namespaces()), Registry.load("none")
    with pytest.raises(PluginError, match="bad"):
        registry.add_file(tmp_path / "bad.py")
    assert state.changes() == []
    assert not [each for each in sys.modules if each.startswith("unmemorize_file_bad")]


def test_what_a_plugin_prints_is_no_output(typed: Callable[..., Any], tmp_path: Path) -> None:
    source = "import subprocess\nprint('loud')\nsubprocess.run(['echo', 'loud'])\nfrom unmemorize import hookimpl\n"
    (tmp_path / "loud.py").write_text(source + "@hookimpl\ndef register_methods(): print('loud'); return []\n")
    done = typed("list", "methods", "--json", "--plugin", "loud.py")
    assert done.status == 0
    assert json.loads(done.stdout)
