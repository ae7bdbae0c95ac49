"""A testbed out of a model that was opened and the sets that a config names."""

from __future__ import annotations

from typing import Any

from unmemorize.contracts.context import Context
from unmemorize.contracts.provider import ModelProvider
from unmemorize.contracts.testbed import Testbed
from unmemorize.data.sets import OpenedSequences, SequenceSource, open_sequences
from unmemorize.models.source import OpenedModel


def testbed_of(provider: ModelProvider, opened: OpenedModel, source: SequenceSource, context: Context) -> Testbed:
    """Return the testbed of an opened model and the sets that `source` names.

    Args:
        provider: its name is the testbed's, its fingerprint is kept as a fact, its config has the training `recipe`.
        opened: the model and its tokenizer.
        source: the sets, and how they are read.
        context: decides which rows are drawn.

    Raises:
        DataError: a file or a row that cannot be used, by file and row; or a set of which nothing is left.
    """
    bounds = opened.bounds()
    sets = open_sequences(source, opened.tokenizer, bounds, context.row_generator)
    return Testbed(
        name=provider.name,
        model=opened.model,
        forget=sets.forget,
        forget_unseen=sets.forget_unseen,
        retain=sets.retain,
        extra=sets.retain,
        clean=sets.clean,
        holdouts=sets.holdouts,
        window=sets.window,
        pad_id=bounds.pad_id,
        tokenizer=opened.tokenizer,
        recipe=provider.config.recipe,
        facts=_facts(provider, opened, sets),
    )


def _facts(provider: ModelProvider, opened: OpenedModel, sets: OpenedSequences) -> dict[str, Any]:
    model, bounds = opened.model, opened.bounds()
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "architecture": model.config.model_type,
        "vocabulary": bounds.vocabulary,
        "context": bounds.context,
        "devices": sorted({str(parameter.device) for parameter in model.parameters()}),
        "sources": provider.fingerprint(),
        **sets.facts,
    }
