"""A mitigated model as a folder: weights, a model card, a report, and the file of what was edited."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmemorize.errors import DataError
from unmemorize.files.atomic import atomic_folder
from unmemorize.files.places import check_new, writing
from unmemorize.files.privacy import public
from unmemorize.models.origins import CONFIG, is_on_hub
from unmemorize.untrusted import code, json_text, markdown

if TYPE_CHECKING:
    from unmemorize.api.mitigation import Mitigation

CARD, REPORT, EDITS = "README.md", "mitigation.json", "edits.safetensors"
_ELSEWHERE = "name another folder"


def save(mitigation: Mitigation, folder: Path, tokenizer: Any, source: Mapping[str, Any]) -> list[Path]:
    """Write everything into the new folder `folder`, and return what was written.

    Args:
        mitigation: the model and what was done to it.
        folder: a new folder.
        tokenizer: saved beside the model, if there is one.
        source: JSON-ready facts about where model and data are from; `model` names the base model.

    Raises:
        DataError: the folder is not empty or cannot be written, or does not give the same model back; or the method
            acts while decoding.
    """
    from unmemorize.editing.edit_file import write_edits
    from unmemorize.models.saving import save_model

    if mitigation.decoding:
        raise DataError(
            f"method {mitigation.method!r} acts while decoding: there is no edited model to save",
            expected="a method that changes weights (stage unlearn or finetune, see `unmemorize list methods`)",
            fix="model.generate(..., logits_processor=LogitsProcessorList(mitigation.decoding)) in your own program",
        )
    check_new(folder, _ELSEWHERE)
    report = build_report(mitigation, source)
    said = json_text(report, indent=1)
    with writing(folder, _ELSEWHERE), atomic_folder(folder, last=CONFIG) as partial:
        save_model(mitigation.model, partial, tokenizer, place=folder)
        write_edits(mitigation.edits, partial / EDITS)
        (partial / REPORT).write_text(said, encoding="utf-8")
        (partial / CARD).write_text(card(report), encoding="utf-8")
    return sorted(path for path in folder.iterdir() if path.is_file())


def build_report(mitigation: Mitigation, source: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was done, from what, and what it did, as plain JSON that may be published."""
    report = {
        "source": dict(source),
        "method": {**mitigation.origin, "config": mitigation.config, "seed": mitigation.seed},
        "values": [value.model_dump() for value in mitigation.values],
        "cost": {
            "seconds": mitigation.seconds,
            "total_seconds": mitigation.total_seconds,
            "peak_memory": mitigation.peak_memory,
        },
        "edited": mitigation.edited,
        "parameters": mitigation.parameters,
        "edits": {
            name: {"changed": edit.changed, "of": _product(edit.shape), "zeroed": edit.zeroed}
            for name, edit in mitigation.edits.items()
        },
        "flags": mitigation.flags,
        "notes": mitigation.notes,
        "environment": mitigation.environment,
    }
    return public(report)


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def card(report: Mapping[str, Any]) -> str:
    """Return the model card, in the form that model hubs read."""
    source, method = report["source"], report["method"]
    base, name = str(source.get("model") or "a model of one's own"), method["name"]
    head = ["---", "library_name: transformers", *([f"base_model: {json.dumps(base)}"] if is_on_hub(base) else []),
            "pipeline_tag: text-generation", "tags: [unmemorize, memorization-mitigation]", "---"]  # fmt: skip
    origin = markdown(f"{method['distribution']} {method['version']}")
    share = report["edited"] / report["parameters"]
    lines = [
        *head,
        "",
        f"# {markdown(base)}, after {markdown(name)}",
        "",
        f"The method {code(name)} ({origin}) was applied with unmemorize against the regurgitation of a forget set. "
        f"{report['edited']:,} of {report['parameters']:,} parameters ({share:.3%}) "
        f"were changed, in {report['cost']['total_seconds']:.1f} s. {_measured(report['values'])}",
        "",
        "| metric | set | before | after | counted |",
        "|---|---|---:|---:|---:|",
        *[
            f"| {markdown(value['metric'])} | {markdown(value['set'])} | {_number(value['before'])} | "
            f"{_number(value['after'])} | {value['count']:,} |"
            for value in report["values"]
            if value["part"] == "all"
        ],
        "",
        *_flags(report["flags"]),
        "What it does not say: sequences outside the forget set were not looked for, and one that greedy decoding no "
        "longer gives may come back under sampling, other prompts or further training.",
        "",
        "| made from | |",
        "|---|---|",
        *[f"| {markdown(str(key))} | {markdown(str(value))} |" for key, value in source.items()],
        "",
        f"Settings: {code(json_text(method['config']), 4_000)}, seed {method['seed']}.",
        "",
        f"`{EDITS}` says which weights were changed (where they were set to zero, `unmemorize.apply_edits` repeats it "
        f"on a fresh copy); `{REPORT}` holds every value, the cost and the versions.",
        "",
    ]
    return "\n".join(lines)


def _measured(values: list[dict[str, Any]]) -> str:
    """Say what was measured on the forget set, and nothing beyond it."""
    found = [
        value for value in values if (value["kind"], value["set"], value["part"]) == ("memorization", "forget", "all")
    ]
    said = [
        f"{markdown(value['metric'])} {_number(value['before'])} before and {_number(value['after'])} after"
        for value in found
    ]
    if not said:
        return "How much of it the model still regurgitates was not measured."
    return f"Measured on the forget set: {'; '.join(said)}."


def _flags(flags: list[str]) -> list[str]:
    from unmemorize.leaderboard.flags import meaning

    return [*(f"- flag {code(flag)}: {meaning(flag)}" for flag in flags), ""] if flags else []


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
