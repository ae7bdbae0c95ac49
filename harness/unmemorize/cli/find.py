"""`unmemorize find`: which windows of some texts does a model regurgitate?"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unmemorize.cli.echo import echo
from unmemorize.cli.options import SystemPath, interruptible, shared_options

if TYPE_CHECKING:
    from unmemorize.errors import UnmemorizeError
    from unmemorize.search.findings import Findings
    from unmemorize.search.found import FoundWindow

EXAMPLES = 3
_WIDTH = 100
_POSITIVE = click.IntRange(min=1)


@click.command()
@click.argument("model")
@click.argument("texts")
@click.option("--prompt", type=_POSITIVE, default=32, show_default=True, help="Tokens that the model is shown.")
@click.option("--suffix", type=_POSITIVE, default=32, show_default=True, help="Tokens that must come back.")
@click.option("--stride", type=_POSITIVE, default=16, show_default=True, help="Tokens from one window to the next.")
@click.option(
    "--out", type=SystemPath(path_type=Path, dir_okay=False), default="found.jsonl", show_default=True,
    help="Where the found windows are written, as JSON lines.",
)  # fmt: skip
@click.option("--all/--no-trivial", "trivial", default=True, help="Write trivial windows too (marked), or not.")
@click.option("--copy-share", type=click.FloatRange(0, 1, min_open=True), default=0.25, show_default=True,
              help="A window is trivial if this share of the suffix's 4-grams occurs in its prompt.")  # fmt: skip
@click.option("--distinct", type=click.IntRange(min=0),
              help="Or with fewer distinct suffix tokens; 16 by default, half of a shorter suffix.")  # fmt: skip
@click.option("--special-tokens/--no-special-tokens", default=True, show_default=True,
              help="Put what the tokenizer puts before a text (<s>) in front of each window, or not.")  # fmt: skip
@click.option("--control", metavar="MODEL", help="A second model: what it completes too was predictable.")
@click.option("--limit-tokens", type=_POSITIVE, metavar="N", help="Read only the first N tokens of the texts.")
@click.option("--include", multiple=True, metavar="GLOB", help="Files to read of a folder; may be given several times.")
@click.option("--revision", help="The model's branch, tag or commit on the hub.")
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16", "float16", "auto"]), default="float32", show_default=True,
    help="The type of the models' weights; in 16 bits near ties fall otherwise.",
)  # fmt: skip
@click.option("--device", help="cpu, cuda, cuda:1, mps; by default the best one there is.")
@click.option("--batch", type=_POSITIVE, help="Windows read at once; by default what keeps the logits at 64 MiB.")
@click.option("--trust-remote-code", is_flag=True, help="Run Python files that come with the model. Read them first.")
@click.option("--fresh", is_flag=True, help="Start again, whatever has been done before.")
@shared_options(json="Print the counts as JSON.", quiet="Show no progress.", verbose=True, threads=True)
def command(model: str, texts: str, out: Path, trivial: bool, as_json: bool, quiet: bool, **options: Any) -> None:
    """Check every window of TEXTS: shown its prompt, does MODEL decode exactly its suffix?

    MODEL is a hub id, a folder, a GGUF file, or package:NAME/path. TEXTS is a file, a folder, package:NAME, `licences`
    (of the installed packages), `python-docs`, or an hf:// path.

    A search that is killed loses only the batch in progress: the same command goes on. What the model could have
    guessed is marked trivial, windows that overlap or have nearly the same text belong to one family.
    """
    from unmemorize.cli.screen import print_json

    findings = _search(model, texts, out, options, quiet=quiet)
    written = findings.kept(trivial=trivial)
    unwritten = _written(findings, out, written)
    if as_json:
        print_json(findings.report() | {"out": None if unwritten else str(out)})
    else:
        _print(findings, model, None if unwritten else out, len(written))
    if unwritten is not None:
        raise unwritten


def _written(findings: Findings, out: Path, windows: Sequence[FoundWindow]) -> UnmemorizeError | None:
    from unmemorize.errors import KeptError, UnwritableError

    try:
        findings.write(out, windows)
    except UnwritableError as error:
        again = f"make room or correct its permissions; the same command goes on from {out.name}.state and writes it"
        return KeptError(error.what, expected=error.expected, fix=again)
    return None


def _search(model: str, texts: str, out: Path, options: dict[str, Any], *, quiet: bool) -> Findings:
    from unmemorize import api
    from unmemorize.cli.progress import progress_unless
    from unmemorize.models.source import source_of

    state = out.with_name(f"{out.name}.state")
    _keep_strange_file(out, state, fresh=options["fresh"])
    shared = {name: options.pop(name) for name in ("dtype", "trust_remote_code")}
    source = source_of(model, revision=options.pop("revision"), **shared)
    control = options.pop("control")
    settings = {name: value for name, value in options.items() if value not in (None, ())}
    kept = f"what was searched is kept in {state.name}; the same command goes on from there"
    with interruptible(lambda: kept), progress_unless(quiet) as progress:
        return api.find(
            source,
            texts,
            control=None if control is None else source_of(control, **shared),
            state=state,
            progress=progress,
            **settings,
        )


def _keep_strange_file(out: Path, state: Path, *, fresh: bool) -> None:
    from unmemorize.errors import DataError
    from unmemorize.files.places import check_writable

    for place in (out, state):
        check_writable(place, "choose another place with --out")
    if out.exists() and not state.exists() and not fresh:
        raise DataError(
            f"{out} exists, and {state.name}, which would say that it is from a search, does not",
            expected="a new file, or one that an earlier search has written",
            fix=f"choose another place with --out, or overwrite {out} with --fresh",
        )


def _print(findings: Findings, model: str, out: Path | None, written: int) -> None:
    from unmemorize.cli.screen import duration, print_table
    from unmemorize.search.findings import Counts

    settings, valued = findings.settings, findings.kept(trivial=False)
    lengths = f"{settings['prompt']} + {settings['suffix']} tokens, one every {settings['stride']}"
    echo(f"{findings.documents:,} documents, {findings.tokens:,} tokens; windows of {lengths}")
    if not settings["special_tokens"].startswith("none: the"):
        echo(f"Special tokens: {settings['special_tokens']}")
    if 2 * findings.short > findings.documents:
        echo(f"{findings.short:,} documents are shorter than a window: nothing of them was checked.")
    echo()
    rows = [
        [name, *(f"{number:,}" for number in Counts.of(windows))]
        for name, windows in (("all", findings.windows), ("not trivial", valued))
    ]
    title = f"{model} regurgitates {len(findings.windows):,} of {findings.checked:,} windows"
    print_table(title, ["", "regurgitated", "not overlapping", "no near-duplicates", "families"], rows)
    _print_control(valued)
    _print_examples(findings)
    speed = findings.checked / max(findings.seconds, 1e-9)
    rows_in = "" if out is None else f" {written:,} rows in {out}"
    echo(f"\n{duration(findings.seconds)}, {speed:,.1f} windows/s.{rows_in}")
    if not findings.windows:
        echo("Nothing is regurgitated. More text, a smaller --stride or a shorter --suffix may show more.")
    if valued and out is not None:
        echo(
            f"Next: unmemorize mitigate {shlex.quote(model)} --forget {shlex.quote(str(out))} "
            "--method METHOD --out FOLDER"
        )


def _print_control(windows: Sequence[FoundWindow]) -> None:
    known = [window for window in windows if window.control_share is not None]
    if known:
        extractable = sum(bool(window.control_extracted) for window in known)
        share = sum(window.control_share or 0.0 for window in known) / len(known)
        echo(
            f"Of these {len(known):,}, the control regurgitates {extractable:,}; "
            f"it gets {share:.0%} of their tokens right."
        )


def _print_examples(findings: Findings) -> None:
    """Show a few of the windows that count, or say that there are none."""
    examples = findings.kept(trivial=False, overlaps=False, duplicates=False)[:EXAMPLES]
    if findings.windows and not examples:
        echo("\nEvery one of them could have been guessed from its prompt: there is no sign of memorization.")
    for window in examples:
        where = "" if window.char_offset is None else f", character {window.char_offset:,}"
        echo(f"\n{window.source}{where} (margin {window.margin:.2f})")
        echo(f"  shown:   {_line(window.prompt_text, last=True)}")
        echo(f"  extractable: {_line(window.suffix_text, last=False)}")


def _line(text: str, *, last: bool) -> str:
    """Return the text on one line, cut to its last or its first characters."""
    joined = "".join(char if char.isprintable() else " " for char in " ".join(text.split()))
    if len(joined) <= _WIDTH:
        return joined
    return f"...{joined[-_WIDTH:]}" if last else f"{joined[:_WIDTH]}..."
