"""`unmemorize mitigate`: make a model forget, and save what comes of it."""

from __future__ import annotations

import uuid
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from unmemorize.cli.echo import echo
from unmemorize.cli.options import (
    SEED,
    Seconds,
    SystemPath,
    interruptible,
    names,
    plugin_option,
    reading_options,
    shared_options,
)

if TYPE_CHECKING:
    from unmemorize.api import Mitigation
    from unmemorize.contracts.context import Progress
    from unmemorize.errors import UnmemorizeError
    from unmemorize.models.source import ModelSource


_ELSEWHERE = "name another folder with --out"


class Job(NamedTuple):
    """What was asked for on the command line."""

    source: ModelSource
    method: str
    settings: dict[str, Any]
    """Of the method, and how sequences are read."""
    sets: dict[str, Any]
    """The file of each set, or its share of another one."""
    metrics: tuple[str, ...] | None
    seed: int
    deadline: float | None
    checkpointing: bool
    offload: bool
    device: str | None
    plugins: tuple[Path, ...]


@click.command()
@click.argument("model")
@click.option("--method", required=True, help="The method (`unmemorize list methods`).")
@click.option(
    "--forget", required=True, metavar="FILE", help="What is to be forgotten: jsonl, parquet, npy, pt or txt."
)
@click.option("--forget-unseen", metavar="FILE|SHARE", help="Memorized too, and not shown to the method.")
@click.option("--retain", metavar="FILE", help="What is to be preserved; many methods need it. Also a corpus.")
@click.option("--holdout", metavar="FILE|SHARE", help="Text on which utility is measured; by default the retain set.")
@click.option("--general", metavar="FILE", help="General text as a hold-out of its own.")
@click.option("--out", required=True, type=SystemPath(path_type=Path, file_okay=False), help="A new folder.")
@click.option(
    "--set", "overrides", multiple=True, metavar="NAME=VALUE", help="A setting of the method: --set ratio=0.05."
)
@reading_options
@click.option("--metrics", callback=lambda _c, _p, value: value and names(value), metavar="A,B",
              help="What is measured before and after; by default what is cheap.")  # fmt: skip
@click.option("--seed", type=SEED, default=0, show_default=True, help="Decides everything random.")
@click.option("--deadline", type=Seconds(), help="Seconds that the method may take.")
@click.option("--checkpointing", is_flag=True, help="Recompute activations in backward passes: less memory, more time.")
@click.option("--offload", is_flag=True, help="Keep scores and copies of weights in main memory when not in use.")
@click.option("--revision", help="The model's branch, tag or commit on the hub.")
@click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), default="auto",
              show_default=True, help="The type of the weights, also of those that are saved.")  # fmt: skip
@click.option("--device", help="cpu, cuda, cuda:1, mps; by default the best one there is.")
@click.option("--device-map", help="How the model is spread over several devices: auto, balanced.")
@click.option("--trust-remote-code", is_flag=True, help="Run Python files that come with the model. Read them first.")
@plugin_option
@shared_options(json="Print the report as JSON.", quiet="Show no progress.", verbose=True, threads=True)
def command(
    model: str, out: Path, overrides: tuple[str, ...], revision: str | None, dtype: Any, device_map: str | None,
    *, trust_remote_code: bool, as_json: bool, quiet: bool, reading: dict[str, Any], **rest: Any,
) -> None:  # fmt: skip
    """Let a method act on MODEL, measure it before and after, and save the edited model.

    MODEL is a hub id, a folder, a GGUF file, or package:NAME/path. The new folder is loaded by plain transformers; it
    also gets a model card, a report (mitigation.json) and the file of what was edited (edits.safetensors).
    """
    from unmemorize.api.saving import build_report
    from unmemorize.cli.progress import progress_unless
    from unmemorize.cli.screen import print_json
    from unmemorize.files.places import check_new
    from unmemorize.models.source import source_of
    from unmemorize.suite.overrides import parse

    check_new(out, _ELSEWHERE)
    source = source_of(
        model, revision=revision, dtype=dtype, device_map=device_map, trust_remote_code=trust_remote_code
    )
    sets = {name: rest.pop(name) for name in ("forget", "forget_unseen", "retain", "holdout", "general")}
    job = Job(
        source=source,
        settings=reading | dict(map(parse, overrides)),
        sets={name: _share(given) for name, given in sets.items() if given is not None},
        **rest,
    )
    kept = f"{out} was not written, and the model is as it was; the same command starts again"
    with interruptible(lambda: kept):
        with progress_unless(quiet) as progress:
            mitigation, about = _mitigated(job, out, progress)
        unsaved = _save(mitigation, out, about)
    if as_json:
        print_json(build_report(mitigation, about["source"]) | {"out": None if unsaved else str(out)})
    else:
        echo(mitigation)
    if unsaved is not None:
        raise unsaved
    if not as_json:
        echo(f"\nSaved to {out}: AutoModelForCausalLM.from_pretrained({str(out)!r}) loads it; README.md is its card.")


def _share(given: str) -> str | float:
    """Return the share that is meant, if it is one, and not a place."""
    try:
        return float(given)
    except ValueError:
        return given


def _save(mitigation: Mitigation, out: Path, about: dict[str, Any]) -> UnmemorizeError | None:
    """Save what was made, beside the cache if there is no place for it; return what is to be said after its numbers."""
    from unmemorize.errors import KeptError, UnmemorizeError, UnwritableError
    from unmemorize.files.places import cache_folder

    try:
        mitigation.save(out, **about)
    except UnwritableError as error:
        instead = cache_folder() / "unsaved" / f"{mitigation.method}-{uuid.uuid4().hex[:8]}"
        with suppress(UnmemorizeError):
            mitigation.save(instead, **about)
            what, move = (
                f"{error.what}; the edited model was saved to {instead} instead",
                f"mv {quote(str(instead))} PLACE",
            )
            return KeptError(what, expected=error.expected, fix=move)
        return UnwritableError(
            f"{error.what}; the method was applied, and its numbers are printed, but the edited model is lost",
            expected=error.expected,
            fix="the same command with another place in --out, or with more room there, does the work again",
        )
    except UnmemorizeError as error:
        return error
    return None


def _mitigated(job: Job, out: Path, progress: Progress | None) -> tuple[Mitigation, dict[str, Any]]:
    """Do the work; return what came of it, and what is saved with it."""
    from unmemorize import api
    from unmemorize.api.data_notes import about_sets
    from unmemorize.execution.environment import chosen_device
    from unmemorize.files.places import check_room
    from unmemorize.models.source import model_fingerprint, open_model

    registry = api.load_registry(job.plugins)
    registry.method(job.method)  # a wrong name is told before a large model is loaded
    opened = open_model(job.source, device=chosen_device(job.device), cache=api.cache_folder())
    check_room(out, opened.model.get_memory_footprint(), _ELSEWHERE)
    mitigation = api.mitigate(
        opened, method=job.method, **job.sets,
        metrics=job.metrics, seed=job.seed, deadline=job.deadline,
        checkpointing=job.checkpointing, offload=job.offload, registry=registry, progress=progress, **job.settings,
    )  # fmt: skip

    facts = {"model": job.source.model, "model fingerprint": model_fingerprint(job.source)}
    return mitigation, {"tokenizer": opened.tokenizer, "source": {**about_sets(mitigation.data), **facts}}
