"""Plugins that are wrong on purpose, each in one way: what the conformance suite must find.

`Nudge`, `Regurgitated` and `Small` are right; every other class is one of these with one mistake in it.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from unmemorize import (
    Cost,
    DataError,
    Measurement,
    Method,
    Metric,
    ModelProvider,
    StrictConfig,
    Testbed,
    Window,
    hookimpl,
)
from unmemorize.testing import tiny_model, tiny_sequences
from unmemorize.toolkit import mean_over_sequences


@torch.no_grad()
def nudge(model, factor: float = 0.99) -> None:
    """Change one matrix a little."""
    next(model.parameters()).mul_(factor)


class Nudge(Method):
    """Shrinks one matrix a little: right in every respect but usefulness."""

    name = "nudge"
    stage = "unlearn"

    def apply(self, testbed, context):
        """Look at the forget set, and act."""
        for _ in context.track(range(2), "nudging"):
            rows = testbed.forget.tokens
            testbed.model(input_ids=rows)
        nudge(testbed.model)


class Misstaged(Nudge):
    """At no known stage."""

    stage = "unlearning"


class SilentConfig(StrictConfig):
    """Settings without a word."""

    strength: float = 0.5


class Undescribed(Nudge):
    """Its setting is not described."""

    Config = SilentConfig


class Required(StrictConfig):
    """A setting without a default."""

    strength: float
    """How strong."""


class Undefaulted(Nudge):
    """Its setting has no default."""

    Config = Required


class Yes(Nudge):
    """Answers yes, which reads as a reason against it."""

    def supports(self, testbed):
        """Whether it can act."""
        return True


class Refuses(Nudge):
    """Refuses by raising."""

    def supports(self, testbed):
        """Raise where the forget set is empty."""
        if len(testbed.forget) == 0:
            raise DataError("there is nothing to forget", expected="rows", fix="add some")


class Picky(Nudge):
    """Refuses everything."""

    def supports(self, testbed):
        """Say no."""
        return "it wants another model"


class TakesAnything(Nudge):
    """Never says that it lacks its data, and then trips over it."""

    def supports(self, testbed):
        """Say yes to everything."""

    def apply(self, testbed, context):
        """Take the first row, that may not be there."""
        testbed.model(input_ids=testbed.forget.tokens[[0]])
        nudge(testbed.model)


class Crashes(Nudge):
    """Trips over every testbed."""

    def apply(self, testbed, context):
        """Divide by zero."""
        return 1 / (len(testbed.forget) - len(testbed.forget))


class Peeks(Nudge):
    """Looks at the retain set, which it does not declare."""

    def apply(self, testbed, context):
        """Look."""
        super().apply(testbed, context)
        testbed.retain.tokens.sum()


class Greedy(Nudge):
    """Declares the retain set, and does not look at it."""

    needs = frozenset({"forget", "retain"})


class Nothing(Nudge):
    """Does nothing."""

    def apply(self, testbed, context):
        """Look only."""
        testbed.model(input_ids=testbed.forget.tokens)


class Nan(Nudge):
    """Leaves a NaN."""

    def apply(self, testbed, context):
        """Divide 0 by 0 somewhere."""
        super().apply(testbed, context)
        next(testbed.model.parameters()).data[0, 0] = torch.nan


class Mute(Nudge):
    """Acts while decoding, and sets no decoding."""

    stage = "decode"

    def apply(self, testbed, context):
        """Look only."""
        testbed.model(input_ids=testbed.forget.tokens)


class Same(torch.nn.Identity):
    """A logits processor that changes nothing."""

    def __call__(self, input_ids, scores):
        """Return the scores."""
        return scores


class Idle(Mute):
    """Acts while decoding, without any effect."""

    def apply(self, testbed, context):
        """Set a processor that does nothing."""
        super().apply(testbed, context)
        context.report.decoding = (Same(),)


class Destroys(Nudge):
    """Sets everything to zero."""

    def apply(self, testbed, context):
        """Leave nothing."""
        super().apply(testbed, context)
        for parameter in testbed.model.parameters():
            parameter.data.zero_()


class Counts(Nudge):
    """Remembers how often it was called."""

    calls = itertools.count(1)

    def apply(self, testbed, context):
        """Act in another way each time."""
        super().apply(testbed, context)
        nudge(testbed.model, 1 - 1e-4 * next(self.calls))


class DrawsGlobally(Nudge):
    """Draws from the global generator."""

    def apply(self, testbed, context):
        """Add noise."""
        super().apply(testbed, context)
        weight = next(testbed.model.parameters())
        weight.data += 1e-4 * torch.randn_like(weight)


class DrawsFromPython(Nudge):
    """Draws from Python's generator."""

    def apply(self, testbed, context):
        """Shrink by chance."""
        super().apply(testbed, context)
        nudge(testbed.model, 1 - 0.01 * random.random())


class SwitchesGradientsOff(Nudge):
    """Leaves gradients switched off for everybody."""

    def apply(self, testbed, context):
        """Switch them off."""
        torch.set_grad_enabled(False)
        super().apply(testbed, context)


class SetsDtype(Nudge):
    """Changes the default dtype."""

    def apply(self, testbed, context):
        """Ask for more digits."""
        torch.set_default_dtype(torch.float64)
        super().apply(testbed, context)


class AddsBuffer(Nudge):
    """Leaves a buffer in the model."""

    def apply(self, testbed, context):
        """Remember the mask in the model."""
        super().apply(testbed, context)
        testbed.model.register_buffer("mask", torch.ones(3))


class ChangesDtype(Nudge):
    """Leaves one weight in another dtype."""

    def apply(self, testbed, context):
        """Make the last weight precise."""
        super().apply(testbed, context)
        last = list(testbed.model.parameters())[-1]
        last.data = last.data.double()


class LeavesHook(Nudge):
    """Leaves a hook that only looks."""

    def apply(self, testbed, context):
        """Hook, and forget."""
        testbed.mlps[0].down.module.register_forward_hook(lambda *_: None)
        super().apply(testbed, context)

    def supports(self, testbed):
        """Ask for MLPs."""
        return super().supports(testbed) or (None if testbed.mlps else "it needs a layout")


class PatchesForward(LeavesHook):
    """Leaves an MLP that says less."""

    def apply(self, testbed, context):
        """Replace a forward."""
        module = testbed.mlps[0].down.module
        plain = module.forward
        module.forward = lambda *arguments: 0.9 * plain(*arguments)
        nudge(testbed.model)
        testbed.model(input_ids=testbed.forget.tokens)


class ChangesAttribute(Nudge):
    """Makes its change where no state dict keeps it."""

    def apply(self, testbed, context):
        """Change how the norms divide."""
        super().apply(testbed, context)
        for module in testbed.model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.eps = 0.3


class BreaksTie(Nudge):
    """Gives the output embedding a matrix of its own."""

    def apply(self, testbed, context):
        """Untie, and change one of the two."""
        super().apply(testbed, context)
        testbed.model.lm_head.weight = torch.nn.Parameter(1.5 * testbed.model.lm_head.weight.detach())


class LeavesTraining(Nudge):
    """Leaves the model in training mode."""

    def apply(self, testbed, context):
        """Train."""
        super().apply(testbed, context)
        testbed.model.train()


class Freezes(Nudge):
    """Leaves parameters frozen."""

    def apply(self, testbed, context):
        """Freeze."""
        super().apply(testbed, context)
        testbed.model.requires_grad_(False)


class HooksWithoutFinally(Nudge):
    """Removes its hook, unless something goes wrong."""

    def apply(self, testbed, context):
        """Hook, look, unhook."""
        handle = testbed.model.register_forward_hook(lambda *_: None)
        super().apply(testbed, context)
        handle.remove()


class WritesIntoData(Nudge):
    """Masks the rows that it was shown, in place."""

    def apply(self, testbed, context):
        """Mask."""
        super().apply(testbed, context)
        testbed.forget.tokens[:, 0] = 0


class NeverLooksUp(Nudge):
    """Goes on whatever time it is."""

    def apply(self, testbed, context):
        """Pass over the rows again and again."""
        for _ in range(6):
            testbed.model(input_ids=testbed.forget.tokens)
        nudge(testbed.model)


class NotesModules(Nudge):
    """Notes what JSON cannot hold."""

    def apply(self, testbed, context):
        """Note a module."""
        super().apply(testbed, context)
        context.report.notes["block"] = testbed.mlps[0].block


class OneProcessor(Nudge):
    """Leaves a processor where a tuple of them is asked for."""

    stage = "decode"

    def apply(self, testbed, context):
        """Leave the processor itself."""
        super().apply(testbed, context)
        context.report.decoding = Same()


class CostsTable(Nudge):
    """Says its cost as a table."""

    def cost(self, testbed):
        """Return a dict."""
        return {"forward_tokens": 12}


class ExcusedByList(Nudge):
    """Names the rules that it breaks, and no reasons."""

    excused = ["keeps_utility"]  # noqa: RUF012 - wrong on purpose


class FactorConfig(StrictConfig):
    """How much to shrink, and how."""

    factor: Literal["little", "much"] = "little"
    """By how much."""
    twice: bool = False
    """Whether to do it again."""


class KnowsOneFactor(Nudge):
    """Has forgotten one of its choices."""

    Config = FactorConfig

    def apply(self, testbed, context):
        """Look the factor up."""
        super().apply(testbed, context)
        nudge(testbed.model, {"little": 0.99}[self.config.factor])


class RunsForItsCost(Nudge):
    """Runs the model to know what it costs."""

    def cost(self, testbed):
        """Try it."""
        testbed.model(input_ids=testbed.forget.tokens)
        return Cost(forward_tokens=1.0)


class DividesByRest(Nudge):
    """Divides by the number of the other rows."""

    def apply(self, testbed, context):
        """Shrink by 1 / (n - 1)."""
        super().apply(testbed, context)
        nudge(testbed.model, 1 - 0.01 / torch.tensor(len(testbed.forget) - 1.0))


class WantsFloat32(Nudge):
    """Multiplies weights with float32 masks."""

    def apply(self, testbed, context):
        """Mask."""
        super().apply(testbed, context)
        weight = next(testbed.model.parameters())
        weight.data = weight.data @ torch.eye(weight.shape[1])


class WantsLayout(Nudge):
    """Takes it for granted that there are MLPs."""

    def apply(self, testbed, context):
        """Shrink the first one."""
        super().apply(testbed, context)
        nudge(testbed.mlps[0].down.module)


class Ruinous(Destroys):
    """Sets everything to zero, and says so."""

    name = "ruinous"
    excused: ClassVar = {"keeps_utility": "it shows what a dead model scores"}


class Overcautious(Nudge):
    """Excuses what is no trouble."""

    excused: ClassVar = {"keeps_utility": "who knows", "keeps_utilty": "a slip of the pen"}


class Regurgitated(Metric):
    """Percent of the forget set that is regurgitated."""

    name = "regurgitated"
    kind = "memorization"
    direction = "lower"
    range = (0.0, 100.0)

    def values(self, evaluation):
        """Return ids and values."""
        extraction = evaluation.extraction("forget", evaluation.testbed.window)
        return extraction.ids.tolist(), [100.0 * hit for hit in extraction.extractable.tolist()]

    def measure(self, evaluation):
        """Yield the mean."""
        yield mean_over_sequences("forget", *self.values(evaluation))


class OutOfRange(Regurgitated):
    """Says that it is a share, and gives percent."""

    range = (0.0, 1.0)


class WrongWay(Regurgitated):
    """Says that regurgitating is better."""

    direction = "higher"


class DropsSequences(Regurgitated):
    """Keeps no values of single sequences."""

    def measure(self, evaluation):
        """Yield the mean alone."""
        (whole,) = super().measure(evaluation)
        yield dataclasses.replace(whole, per_sequence=None, ids=None)


class InventsIds(Regurgitated):
    """Numbers the sequences itself."""

    def measure(self, evaluation):
        """Yield the mean under other ids."""
        ids, values = self.values(evaluation)
        yield mean_over_sequences("forget", [-1 - number for number in ids], values)


class CountsPadding(Regurgitated):
    """Counts padding."""

    def values(self, evaluation):
        """Return the share of columns, padding included, that are right."""
        teacher_forced = evaluation.teacher_forced_padded("forget")
        shares = teacher_forced.hits.double().mean(dim=1)
        return evaluation.sequences("forget").ids.tolist(), (100 * shares).tolist()


class NeverTheSame(Regurgitated):
    """Remembers how often it was called."""

    calls = itertools.count(1)

    def values(self, evaluation):
        """Return less each time."""
        ids, values = super().values(evaluation)
        return ids, [value * (1 - 0.001 * next(self.calls)) for value in values]


class Touches(Regurgitated):
    """Prunes what it measures."""

    def measure(self, evaluation):
        """Change the model, and measure it."""
        nudge(evaluation.testbed.model)
        yield from super().measure(evaluation)


class Rolls(Regurgitated):
    """Draws from the global generator."""

    def values(self, evaluation):
        """Return the values; throw a die."""
        torch.rand(1)
        return super().values(evaluation)


class NeedsHoldouts(Regurgitated):
    """Compares with hold-outs, whether there are any or not."""

    def values(self, evaluation):
        """Return the values, once the hold-outs were read."""
        evaluation.teacher_forced(evaluation.holdouts()[0])
        return super().values(evaluation)


class IgnoresDecoding(Regurgitated):
    """Looks at the model alone."""

    @torch.no_grad()
    def values(self, evaluation):
        """Return the share of arg-maxes of the model's own pass that are right."""
        forget = evaluation.sequences("forget")
        said = evaluation.testbed.model(input_ids=forget.inputs()).logits.argmax(-1)[:, :-1]
        wanted = forget.suffix()[:, 1:]
        hits = ((said == forget.tokens[:, 1:]) & wanted).sum(1) / wanted.sum(1)
        return forget.ids.tolist(), (100 * hits.double()).tolist()


class YieldsNumbers(Regurgitated):
    """Yields plain numbers."""

    def measure(self, evaluation):
        """Yield a number."""
        yield 12.5


class MeasuresNothing(Regurgitated):
    """Forgets to yield."""

    def measure(self, evaluation):
        """Return nothing."""


class Halved(Regurgitated):
    """Divides by a setting that may be zero."""

    class Config(StrictConfig):
        """By what."""

        parts: Annotated[int, Field(ge=0)] = 1
        """Into how many parts the set is divided."""

    def measure(self, evaluation):
        """Yield one part."""
        ids, values = self.values(evaluation)
        yield mean_over_sequences("forget", ids, [value // self.config.parts for value in values])


class Elsewhere(Regurgitated):
    """Measures a set that nobody knows."""

    def measure(self, evaluation):
        """Yield a value of `forgotten`."""
        yield Measurement(set="forgotten", value=1.0, count=1)


class SmallConfig(StrictConfig):
    """How many rows."""

    rows: int = 6
    """Rows of the forget set."""


class Small(ModelProvider):
    """A tiny random model and tiny random rows."""

    name = "small"
    Config = SmallConfig

    def load(self, context):
        """Return the testbed."""
        seeds = [context.seed * 10 + number for number in range(4)]
        return Testbed(
            name="small",
            model=tiny_model("gpt2", seed=context.seed),
            forget=tiny_sequences(self.config.rows, seed=seeds[0]),
            retain=tiny_sequences(8, seed=seeds[1], first_id=100),
            extra=tiny_sequences(8, seed=seeds[2], first_id=200),
            holdouts={"rest": tiny_sequences(5, seed=seeds[3], first_id=300)},
            window=Window(4, 5),
            pad_id=2,
        )


class LoadsNothing(Small):
    """Forgets to return."""

    def load(self, context):
        """Load, and keep it."""
        super().load(context)


class Lists(Small):
    """Has a list of fingerprints."""

    def fingerprint(self):
        """Return a list."""
        return ["a1b2"]


class Brittle(Small):
    """Trips over other numbers of rows."""

    def load(self, context):
        """Look the number up."""
        assert {6: True}[self.config.rows]
        return super().load(context)


class Absent(Small):
    """Finds no file."""

    def load(self, context):
        """Raise as a provider does."""
        raise DataError("there is no file rows.jsonl", expected="a file", fix="write --set path=...")


class Foreign(Small):
    """Uses another tokenizer's ids."""

    def load(self, context):
        """Return ids that the model does not have."""
        testbed = super().load(context)
        testbed.forget.tokens[0, 0] = 40
        return testbed


class Leaks(Small):
    """Holds out what it shows."""

    def load(self, context):
        """Return retained rows as a hold-out, too."""
        testbed = super().load(context)
        testbed.holdouts = {"rest": testbed.retain}
        return testbed


class Renumbers(Small):
    """Numbers every set from 0."""

    def load(self, context):
        """Return equal ids for different rows."""
        testbed = super().load(context)
        testbed.retain = dataclasses.replace(testbed.retain, ids=torch.arange(len(testbed.retain)))
        return testbed


class PadsOtherwise(Small):
    """Pads with another id than it says."""

    def load(self, context):
        """Return another `pad_id`."""
        return dataclasses.replace(super().load(context), pad_id=0)


class Narrow(Small):
    """Uses int32."""

    def load(self, context):
        """Return narrow tokens."""
        testbed = super().load(context)
        testbed.forget = dataclasses.replace(testbed.forget, tokens=testbed.forget.tokens.int())
        return testbed


class Restless(Small):
    """Remembers how often it was called."""

    calls = itertools.count(100)

    def load(self, context):
        """Return other rows each time."""
        testbed = super().load(context)
        testbed.retain = tiny_sequences(8, seed=next(self.calls), first_id=100)
        return testbed


class Fixed(Small):
    """Always the same, whatever the seed."""

    def load(self, context):
        """Ignore the seed."""
        return super().load(dataclasses.replace(context, seed=0))


class Training(Small):
    """Leaves its model in training mode."""

    def load(self, context):
        """Forget `eval()`."""
        testbed = super().load(context)
        testbed.model.train()
        return testbed


class Overlong(Small):
    """Asks for longer prompts than it has rows."""

    def load(self, context):
        """Return a wide window."""
        return dataclasses.replace(super().load(context), window=Window(50, 50))


class Unstable(Small):
    """Fingerprints the time of the day."""

    calls = itertools.count()

    def fingerprint(self):
        """Return something new."""
        return {"time": str(next(self.calls))}


class Spoils(Small):
    """Trains the testbed's own model."""

    def train(self, testbed, regularizer, context):
        """Return the model that it was given."""
        nudge(testbed.model)
        return testbed.model


class Unrecordable(Small):
    """Tells facts that JSON cannot hold."""

    def load(self, context):
        """Return a tensor as a fact."""
        return dataclasses.replace(super().load(context), facts={"rows": torch.tensor(3)})


class Seeds(Small):
    """Seeds the global generator."""

    def load(self, context):
        """Seed."""
        torch.manual_seed(context.seed)
        return super().load(context)


@hookimpl
def register_methods():
    """Return a right one and three wrong ones."""
    return [Nudge, Ruinous]


@hookimpl
def register_metrics():
    """Return a right one."""
    return [Regurgitated]


@hookimpl
def register_providers():
    """Return a right one."""
    return [Small]
