"""Write a testbed to a folder: the model as transformers loads it, its sets as JSON lines, and where it is from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unmemorize.contracts.answers import ask
from unmemorize.contracts.testbed import Sequences, Testbed, Window
from unmemorize.execution.environment import environment
from unmemorize.execution.runtime import Runtime
from unmemorize.files.atomic import atomic_folder
from unmemorize.files.places import check_new, writing
from unmemorize.files.privacy import public
from unmemorize.models.caller import plain_torch
from unmemorize.models.saving import save_model
from unmemorize.registry.manager import Registry
from unmemorize.suite.model import TestbedEntry, settings
from unmemorize.untrusted import file_name, json_text

MODEL, FACTS = "model", "testbed.json"
_ELSEWHERE = "name another folder with --out"


@plain_torch()
def export_testbed(entry: TestbedEntry, seed: int, registry: Registry, runtime: Runtime, folder: Path) -> list[Path]:
    """Make the testbed of a suite and write it into the new folder `folder`; return what was written.

    `model/` holds weights and tokenizer; `forget.jsonl`, `retain.jsonl`, `holdout-NAME.jsonl` … hold the sets, as the
    provider `huggingface` reads them; `testbed.json` says how all of it came to be.

    Raises:
        DataError: the folder is not empty, or cannot be written.
    """
    check_new(folder, _ELSEWHERE)
    provider = registry.provider(entry.provider)(entry.config)
    testbed = runtime.load(provider, entry.name, seed, registry)
    about = {
        "testbed": entry.name,
        "provider": entry.provider,
        "config": settings(entry.config),
        "fingerprint": dict(ask(provider, "fingerprint")),
        "seed": seed,
        "window": testbed.window._asdict(),
        "facts": testbed.facts,
        "environment": environment(runtime.device),
    }
    with writing(folder, _ELSEWHERE), atomic_folder(folder, last=FACTS) as partial:
        save_model(testbed.model, partial / MODEL, testbed.tokenizer, place=folder / MODEL)
        written = [MODEL, *_written(testbed, about, partial)]
    return [folder / name for name in written]


def _written(testbed: Testbed, about: dict[str, Any], folder: Path) -> Iterator[str]:
    for name, sequences in testbed.sets().items():
        path = f"{file_name(name.replace(':', '-', 1))}.jsonl"
        with (folder / path).open("w", encoding="utf-8") as file:
            for row in rows(sequences, testbed.tokenizer, testbed.window if name.startswith("forget") else None):
                file.write(json_text(row) + "\n")
        yield path
    (folder / FACTS).write_text(json_text(public(about), indent=1), encoding="utf-8")
    yield FACTS


def rows(sequences: Sequences, tokenizer: Any = None, window: Window | None = None) -> Iterator[dict[str, Any]]:
    """Yield each sequence as a JSON-ready row: id, tokens, length of its prompt, and its text where there is one.

    Where every sequence holds a whole window, each row also says how many tokens must come back, so that the rows are
    read again as they were checked.
    """
    prompts = sequences.suffix_starts.tolist()
    if window is not None and not sequences.anchored:
        prompts = [window.prompt] * len(sequences)
    rests = [length - prompt for length, prompt in zip(sequences.lengths.tolist(), prompts, strict=True)]
    for number in range(len(sequences)):
        length = int(sequences.lengths[number])
        tokens = sequences.tokens[number, :length].tolist()
        row: dict[str, Any] = {
            "id": int(sequences.ids[number]),
            "tokens": tokens,
            "copies": int(sequences.copies[number]),
        }
        if min(prompts[number], rests[number]) > 0:
            row["prompt"] = prompts[number]
            if window is not None and min(rests) >= window.suffix:
                row["suffix"] = window.suffix
        if sequences.clean_tokens is not None and sequences.clean_lengths is not None:
            row["clean_tokens"] = sequences.clean_tokens[number, : int(sequences.clean_lengths[number])].tolist()
        if tokenizer is not None:
            row["text"] = tokenizer.decode(tokens)
        yield row
