"""`unmemorize mitigate`: make a model forget, and save what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from unmemorize.cli.options import names, plugin_option

if TYPE_CHECKING:
    from unmemorize.api import Mitigation
    from unmemorize.contracts.context import Progress
    from unmemorize.models.source import ModelSource

_LENGTH = click.IntRange(min=1)


class Job(NamedTuple):
    """What was asked for on the command line."""

    source: ModelSource
    method: str
    settings: dict[str, Any]
    files: dict[str, str]
    """The files of sequences, by set."""
    prompt: int | None
    suffix: int | None
    length: int
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
@click.option("--retain", metavar="FILE", help="What is to be preserved; many methods need it.")
@click.option("--holdout", metavar="FILE", help="Text on which utility is measured; by default the retain set.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="A new folder.")
@click.option(
    "--set", "overrides", multiple=True, metavar="NAME=VALUE", help="A setting of the method: --set ratio=0.05."
)
@click.option("--prompt", type=_LENGTH, help="Tokens shown in the check; by default what the file says, or 32.")
@click.option("--suffix", type=_LENGTH, help="Tokens that must come back; by default the rest, or 32.")
@click.option("--length", type=_LENGTH, default=128, show_default=True, help="Longer texts to retain are cut to this.")
@click.option("--metrics", callback=lambda _c, _p, value: value and names(value), metavar="A,B",
              help="What is measured before and after; by default what is cheap.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Decides everything random.")
@click.option("--deadline", type=click.FloatRange(min=0, min_open=True), help="Seconds that the method may take.")
@click.option("--checkpointing", is_flag=True, help="Recompute activations in backward passes: less memory, more time.")
@click.option("--offload", is_flag=True, help="Keep scores and copies of weights in main memory when not in use.")
@click.option("--revision", help="The model's branch, tag or commit on the hub.")
@click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), default="auto",
              show_default=True, help="The type of the weights, also of those that are saved.")  # fmt: skip
@click.option("--device", help="cpu, cuda, cuda:1, mps; by default the best one there is.")
@click.option("--device-map", help="How the model is spread over several devices: auto, balanced.")
@click.option("--trust-remote-code", is_flag=True, help="Run Python files that come with the model. Read them first.")
@plugin_option
@click.option("--quiet", is_flag=True, help="Show no progress.")
def command(
    model: str, out: Path, overrides: tuple[str, ...], revision: str | None, dtype: Any, device_map: str | None,
    forget: str, retain: str | None, holdout: str | None, *, trust_remote_code: bool, quiet: bool, **rest: Any,
) -> None:  # fmt: skip
    """Let a method act on MODEL, measure it before and after, and save the edited model.

    MODEL is a hub id, a folder, a GGUF file, or package:NAME/path. The new folder is loaded by plain transformers; it
    also gets a model card, a report (mitigation.json) and the file of what was edited (edits.safetensors).
    """
    from contextlib import ExitStack

    from unmemorize.cli.progress import TerminalProgress
    from unmemorize.files.places import check_new
    from unmemorize.models.source import ModelSource
    from unmemorize.suite.overrides import parse

    check_new(out, "name another folder with --out")
    source = ModelSource(
        model=model, revision=revision, dtype=dtype, device_map=device_map, trust_remote_code=trust_remote_code
    )
    files = {"forget": forget, "retain": retain, "holdout": holdout}
    job = Job(
        source=source,
        settings=dict(map(parse, overrides)),
        files={name: file for name, file in files.items() if file is not None},
        **rest,
    )
    with ExitStack() as stack:
        progress = None if quiet else stack.enter_context(TerminalProgress())
        mitigation, save = _mitigated(job, progress)
    save(out)
    click.echo(mitigation)
    click.echo(f"\nSaved to {out}: AutoModelForCausalLM.from_pretrained({str(out)!r}) loads it; README.md is its card.")


def _mitigated(job: Job, progress: Progress | None) -> tuple[Mitigation, Callable[[Path], object]]:
    """Do the work; return what came of it, and a function that saves it."""
    from unmemorize import api
    from unmemorize.api.reading import Wanted, read_files
    from unmemorize.execution.environment import best_device
    from unmemorize.models.source import model_fingerprint, open_model

    registry = api.load_registry(job.plugins)
    registry.method(job.method)  # a wrong name is told before a large model is loaded
    opened = open_model(job.source, device=job.device or best_device(), cache=api.cache_folder())
    data = read_files(job.files, opened.model, opened.tokenizer, Wanted(job.prompt, job.suffix, job.length))
    mitigation = api.mitigate(
        opened.model, method=job.method, **data.sets, prompt=data.window.prompt, suffix=data.window.suffix,
        metrics=job.metrics, tokenizer=opened.tokenizer, seed=job.seed, deadline=job.deadline,
        checkpointing=job.checkpointing, offload=job.offload, registry=registry, progress=progress, **job.settings,
    )  # fmt: skip

    def save(folder: Path) -> None:
        about = {"model": job.source.model, "model fingerprint": model_fingerprint(job.source), **data.about}
        opened.model.generation_config = opened.generation_config
        mitigation.save(folder, tokenizer=opened.tokenizer, source=about)

    return mitigation, save
