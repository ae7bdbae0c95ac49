"""Whatever is wrong with sequences, models and settings: what and where, what was expected, what to type next."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
import torch
from model_folders import toy_tokenizer

from unmemorize import ConfigError, UnmemorizeError
from unmemorize.data.sets import open_sequences
from unmemorize.suite.error_messages import Place, validated
from unmemorize.toolkit import Bounds, ModelSource, SequenceSource, open_model, sequences_fingerprint

ROW = [3, 4, 5, 6, 7, 8]
OTHER = [9, 10, 11, 12, 13, 14]
BOUNDS = Bounds(vocabulary=29, context=16, pad_id=0)


class Opens:
    """Something with a constructor of its own: unpickling it would run code."""


class Case(NamedTuple):
    """One mistake in a file of sequences."""

    name: str
    file: str
    content: Any
    """Lines of JSON, bytes, a table, an array or anything that torch saves."""
    what: str
    fix: str
    settings: dict[str, Any] = {}  # noqa: RUF012


def write(path: Path, content: Any) -> None:
    if content is None:
        return
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    elif isinstance(content, pl.DataFrame):
        content.write_parquet(path)
    elif path.suffix == ".npy":
        np.save(path, content, allow_pickle=True)
    elif path.suffix == ".pt":
        torch.save(content, path)
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in content))


def opened(folder: Path, *, tokenizer: Any = None, **settings: Any) -> Any:
    """Open a testbed's sequences, `forget` and all, with a retain set beside them."""
    (folder / "retain.jsonl").write_text("".join(f"{[number, *OTHER]}\n" for number in range(15, 25)))
    given = {"retain": str(folder / "retain.jsonl"), "near_duplicates": "keep", "prompt": 2, "text_length": 8}
    source = SequenceSource(**(given | settings))
    return open_sequences(source, tokenizer, BOUNDS, lambda label: torch.Generator().manual_seed(len(label)))


def three_parts(error: UnmemorizeError, what: str, fix: str) -> None:
    assert what in error.what
    assert fix in error.fix
    assert error.expected
    assert str(error) == f"{error.what}\n  expected: {error.expected}\n  fix: {error.fix}"


JSONL = [
    Case("a broken line", "f.jsonl", f"{ROW}\n{{'tokens': 3}}\n", "f.jsonl', line 2: not JSON", "correct or remove"),
    Case("a number on a line", "f.jsonl", [ROW, 7], "line 2: tokens is 7", "correct tokens"),
    Case("neither tokens nor text", "f.jsonl", [{"ids": ROW}], "line 1: the row says neither", "to tokens"),
    Case("a prompt alone", "f.jsonl", [{"prompt": "w3"}], "the row says neither", "to tokens"),
    Case("null tokens", "f.jsonl", [{"tokens": None}], "tokens is None", "correct tokens"),
    Case("ids as strings", "f.jsonl", [{"tokens": ["3", "4"]}], "tokens[0] is '3'", "the field `text`"),
    Case("ids as fractions", "f.jsonl", [ROW, [3, 4.5]], "line 2: tokens[1] is 4.5", "write the ids"),
    Case("ids as booleans", "f.jsonl", [[3, True]], "tokens[1] is True", "write the ids"),
    Case("a negative id", "f.jsonl", [[3, 4, -1]], "tokens[2] is -1", "write the ids"),
    Case("an id outside the vocabulary", "f.jsonl", [ROW, [3, 29]], "line 2: tokens[1] is 29, outside", "own"),
    Case("an empty row", "f.jsonl", [ROW, []], "line 2: tokens is empty", "remove the row"),
    Case("an empty text", "f.jsonl", [{"text": "  "}], "line 1: text is empty", "remove the row"),
    Case("a text without a tokenizer", "f.jsonl", [{"text": "w3 w4"}], "came without a tokenizer", "save_pretrained"),
    Case("a text that is a number", "f.jsonl", [{"text": 5}], "text is 5", "correct text"),
    Case("a prompt as long as the row", "f.jsonl", [{"tokens": ROW, "prompt": 6}], "prompt = 6", "correct the row's"),
    Case("a prompt of no tokens", "f.jsonl", [{"tokens": ROW, "prompt": 0}], "prompt = 0", "correct the row's"),
    Case("negative copies", "f.jsonl", [{"tokens": ROW, "copies": -2}], "copies is -2", "correct copies"),
    Case(
        "a counterpart in one row only", "f.jsonl", [{"tokens": ROW, "clean_tokens": OTHER}, ROW],
        "line 2: the row has no clean counterpart", "in this row's place",
    ),
    Case("no rows", "f.jsonl", b"", "holds no rows", "write rows into it"),
    Case("blank lines only", "f.jsonl", b"\n \n\n", "holds no rows", "write rows into it"),
    Case("not UTF-8", "f.jsonl", '["\xe9"]'.encode("latin1"), "is not UTF-8 text (byte 2)", "iconv -f latin1"),
    Case("UTF-16", "f.jsonl", "[3, 4]".encode("utf-16"), "starts with the mark of UTF-16", "iconv -f utf-16"),
    Case("ids as a text that is no list", "f.jsonl", [{"tokens": "3 4"}], "tokens is the text '3 4'", "`text`"),
    Case("two names of one field", "f.jsonl", [{"tokens": ROW, "input_ids": OTHER}], "both tokens and", "remove"),
    Case("a suffix beyond the row", "f.jsonl", [{"tokens": ROW, "prompt": 4, "suffix": 3}], "= 4 + 3", "correct"),
    Case("a suffix alone", "f.jsonl", [{"tokens": ROW, "suffix": 3}], "suffix has a meaning beside", "remove it"),
    Case("a text as prompt of ids", "f.jsonl", [{"tokens": ROW, "prompt": "w3"}], "prompt is 'w3'", "texts alone"),
    Case("a mask with a hole", "f.jsonl", [{"tokens": ROW[:3], "attention_mask": [1, 0, 1]}], "[1, 0, 1]", "padding"),
    Case("a short mask", "f.jsonl", [{"tokens": ROW, "attention_mask": [1]}], "attention_mask is [1]", "padding"),
    Case("a mask without ids", "f.jsonl", [{"text": "w3", "attention_mask": [1]}], "beside `tokens` only", "remove"),
    Case("a prompt of another text", "f.jsonl", [{"text": "w3 w4", "prompt": "w4"}], "is no beginning", "remove it"),
    Case("a text and ids as a pair", "f.jsonl", [{"prompt": "w3", "suffix": [4]}], "not of the same kind", "remove"),
    Case("bare texts and bare ids", "f.jsonl", [ROW, "w3 w4"], "line 2: the row is text, and those", "in each row"),
    Case("half a character", "f.jsonl", '"w3 \\ud83d w4"', "text holds half", "'replace'"),
    Case("half in a pair", "f.jsonl", '{"prompt": "w3 ", "suffix": "\\ud83d w4"}', "suffix holds half", "'replace'"),
    Case("a conversation and ids", "f.jsonl", [{"tokens": ROW, "messages": []}], "both messages and tokens", "remove"),
    Case("a conversation and text", "f.jsonl", [{"text": "w3", "messages": []}], "both messages and text", "remove"),
    Case("a mark in words", "f.jsonl", [{"tokens": ROW, "trivial": "yes"}], "trivial is 'yes'", "correct trivial"),
    Case("a mark as a number", "f.jsonl", [{"tokens": ROW, "overlaps": 1}], "overlaps is 1", "correct overlaps"),
    Case("a family as a list", "f.jsonl", [{"tokens": ROW, "group": [1]}], "group is [1]", "correct group"),
    Case("padding of labels", "f.jsonl", [[3, 4, -100]], "tokens[2] is -100, the padding of labels", "write the ids"),
    Case("a row in a row", "f.jsonl", [[ROW]], "tokens[0] is [3, 4", "tensor[0]"),
    Case("one token", "f.jsonl", [[3]], "too few for a prompt", "give rows of at least 2 tokens", {"prompt": None}),
    Case(
        "a prompt in one row only", "f.jsonl", [{"tokens": ROW, "prompt": 2}, ROW],
        "line 2: the row does not say", "prompt = 32", {"prompt": None},
    ),
]  # fmt: skip

FILES = [
    Case("a missing file", "f.jsonl", None, "there is no file or folder 'f.jsonl'", "correct the path"),
    Case("plain JSON", "f.json", b"[]", "is a file .json", "JSON lines"),
    Case("a table as text", "f.csv", b"tokens\n3", "is a file .csv", "name a file of one of these"),
    Case("no suffix", "f", b"3 4 5", "is a file without suffix", "name a file of one of these"),
    Case("an array of fractions", "f.npy", np.zeros((2, 6)), "an array of float64", "ids themselves"),
    Case("an array of booleans", "f.npy", np.zeros((2, 6), dtype=bool), "an array of bool", "ids themselves"),
    Case("one row alone", "f.npy", np.array(ROW), "of shape (6,)", "array[None]"),
    Case("a stack of arrays", "f.npy", np.zeros((1, 2, 6), dtype=int), "of shape (1, 2, 6)", "ids themselves"),
    Case("ragged rows in an array", "f.npy", np.array([ROW, [3]], dtype=object), "holds pickled objects", "*.jsonl"),
    Case("no array", "f.npy", b"nothing of numpy", "f.npy'", "*.jsonl"),
    Case("an empty array file", "f.npy", b"", "f.npy'", "numpy.save"),
    Case("an array without rows", "f.npy", np.zeros((0, 6), dtype=int), "holds no rows", "write rows"),
    Case("an id outside in an array", "f.npy", np.array([ROW, [3, 4, 5, 6, 7, 99]]), "row 1: tokens[5] is 99", "own"),
    Case("a tensor of fractions", "f.pt", torch.zeros(2, 6), "of torch.float32", "ids themselves"),
    Case("a tensor of booleans", "f.pt", torch.ones(2, 6, dtype=torch.bool), "of torch.bool", "ids themselves"),
    Case("one row alone as a tensor", "f.pt", torch.tensor(ROW), "of shape (6,)", "array[None]"),
    Case("a pickle inside", "f.pt", Opens(), "it is pickled, with more in it", "torch.save(torch.tensor(rows)"),
    Case("a dictionary", "f.pt", {"tokens": torch.tensor([ROW])}, "holds a dict", "data['tokens']"),
    Case("a boolean row in a list", "f.pt", [torch.tensor([True, False])], "row 0: tokens[0] is True", "write the ids"),
    Case("no torch file", "f.pt", b"nothing of torch", "f.pt' cannot be read", "torch.save"),
    Case("other columns", "f.parquet", pl.DataFrame({"ids": [ROW]}), "none of the columns", "rename"),
    Case("no parquet", "f.parquet", b"nothing of polars", "cannot be read", "check the path"),
    Case("a null row", "f.parquet", pl.DataFrame({"tokens": [ROW, None]}), "row 1: the row says neither", "rename"),
    Case("a null id", "f.parquet", pl.DataFrame({"tokens": [[3, None]]}), "tokens[1] is None", "write the ids"),
    Case("a text file without a tokenizer", "f.txt", b"w3 w4\n", "line 1: the row is text", "token ids"),
]  # fmt: skip

LENGTHS = [
    Case(
        "a row that is too short", "f.jsonl", [ROW, [3, 4, 5]],
        "line 2: the row has 3 tokens", "short_rows = 'drop'", {"suffix": 4},
    ),
    Case(
        "no row left", "f.jsonl", [[3], [4]],
        "no row is left (2 shorter than", "longer rows", {"suffix": 4, "short_rows": "drop"},
    ),
    Case(
        "a row longer than the context", "f.jsonl", [[3] * 17],
        "has 17 tokens, and the model reads at most 16", "long_rows = 'cut'", {"suffix": 4},
    ),
    Case(
        "a window longer than the context", "f.jsonl", [[3] * 20],
        "prompt + suffix = 20", "prompt = 8 and suffix = 8", {"suffix": 18},
    ),
    Case(
        "pieces longer than the context", "f.jsonl", [ROW],
        "text_length = 32", "text_length = 16", {"text_length": 32},
    ),
    Case(
        "a split of one row", "f.jsonl", [ROW],
        "forget_unseen = 0.5 cannot be split off", "a file of its own", {"forget_unseen": 0.5},
    ),
    Case("a missing corpus", "f.jsonl", [ROW], "general = './none'", "general", {"general": "./none"}),
    Case("a missing retain file", "f.jsonl", [ROW], "retain = './none.jsonl'", "retain", {"retain": "./none.jsonl"}),
    Case(
        "a corpus without a tokenizer", "f.jsonl", [ROW],
        "general = 'python-docs', document", "token ids", {"general": "python-docs"},
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", [*JSONL, *FILES, *LENGTHS], ids=lambda case: case.name)
def test_files_of_sequences(case: Case, tmp_path: Path) -> None:
    write(tmp_path / case.file, case.content)
    with pytest.raises(UnmemorizeError) as caught:
        opened(tmp_path, forget=str(tmp_path / case.file), **case.settings)
    three_parts(caught.value, case.what, case.fix)


def test_a_folder_of_sequences(tmp_path: Path) -> None:
    with pytest.raises(UnmemorizeError) as caught:
        opened(tmp_path, forget=str(tmp_path))
    three_parts(caught.value, "is a folder", "*.jsonl")
    with pytest.raises(UnmemorizeError, match="is a folder"):  # said when planning, before anything is loaded
        sequences_fingerprint(SequenceSource(forget=str(tmp_path), general="python-docs"))


@pytest.mark.parametrize("setting", ["retain", "forget_unseen", "holdout"])
def test_one_row_in_two_sets(setting: str, tmp_path: Path) -> None:
    write(tmp_path / "f.jsonl", [ROW, OTHER])
    write(tmp_path / "g.jsonl", [[20, 21, 22, 23], ROW])
    with pytest.raises(UnmemorizeError) as caught:
        opened(tmp_path, forget=str(tmp_path / "f.jsonl"), **{setting: str(tmp_path / "g.jsonl"), "suffix": 2})
    three_parts(caught.value, "is the same sequence as forget", "remove one of the two")
    assert "g.jsonl', line 2" in caught.value.what
    assert "f.jsonl', line 1" in caught.value.what


def test_a_corpus_of_a_few_words(tmp_path: Path) -> None:
    write(tmp_path / "f.jsonl", [ROW])
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "one.txt").write_text("w3 w4")
    with pytest.raises(UnmemorizeError) as caught:
        opened(tmp_path, forget=str(tmp_path / "f.jsonl"), general=str(tmp_path / "texts"), tokenizer=toy_tokenizer())
    three_parts(caught.value, "has too little text for one row of 8 tokens", "lower text_length")


def test_a_hub_that_is_not_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(pl, "scan_parquet", refuse)
    with pytest.raises(UnmemorizeError) as caught:
        opened(tmp_path, forget="hf://datasets/owner/name/*.parquet")
    three_parts(caught.value, "cannot be read: no route to host", "hf auth login")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads and writes everything")
@pytest.mark.parametrize("name", ["f.jsonl", "f.npy", "f.pt", "f.parquet"])
def test_files_that_may_not_be_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    (tmp_path / name).chmod(0)
    with pytest.raises(UnmemorizeError) as caught:
        opened(tmp_path, forget=str(tmp_path / name))
    three_parts(caught.value, "cannot be read", "check")


SETTINGS = [
    ("an unknown type", {"dtype": "float23"}, "dtype", "bfloat16"),
    ("an unknown setting", {"forgot": "x"}, "forgot", "forget"),
    ("a share of everything", {"forget_unseen": 1.0}, "forget_unseen", "forget_unseen"),
    ("no model", {"model": ""}, "model", "model"),
    ("no text to measure utility on", {"retain": None}, "no text on which utility is measured", "show huggingface"),
    ("a share of nothing", {"holdout": 0.0}, "no text on which utility is measured", "show huggingface"),
    ("rows of one token", {"text_length": 1}, "text_length", "text_length"),
    ("a word for what becomes of rows", {"long_rows": "shorten"}, "long_rows", "long_rows"),
]


class Both(SequenceSource, ModelSource):
    """The settings of a provider."""


@pytest.mark.parametrize(("settings", "what", "said"), [case[1:] for case in SETTINGS], ids=[c[0] for c in SETTINGS])
def test_settings(settings: dict[str, Any], what: str, said: str) -> None:
    whole = {"model": "m", "forget": "f.jsonl", "retain": "r.jsonl"} | settings
    with pytest.raises(ConfigError) as caught:
        validated(Both, whole, Place("suite.toml", "testbed.mine", "huggingface"))
    three_parts(caught.value, what, "")
    assert said in f"{caught.value.expected} {caught.value.fix}"
    assert "suite.toml" in caught.value.what


def test_a_missing_setting() -> None:
    with pytest.raises(ConfigError) as caught:
        validated(Both, {"model": "m", "retain": "r"}, Place("suite.toml", "testbed.mine", "huggingface"))
    three_parts(caught.value, "testbed.mine.forget is missing", "write testbed.mine.forget = ...")


def rewritten(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def without_a_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights.pop("transformer.h.1.mlp.c_fc.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def cut_short(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Opens()}, folder / "pytorch_model.bin")


MODELS: list[tuple[str, Callable[[Path], Any], dict[str, Any], str, str]] = [
    ("no such hub id", lambda _: None, {"model": "nobody/nothing"}, "is not on this machine", "hf download nobody"),
    ("no such folder", lambda _: None, {"model": "./nothing"}, "no file or folder 'nothing'", "correct the path"),
    ("a sentence", lambda _: None, {"model": "my best model"}, "neither a path that exists nor a hub id", "correct"),
    ("no such package", lambda _: None, {"model": "package:not_there/x"}, "no package 'not_there'", "pip install"),
    ("no config", lambda f: (f / "config.json").unlink(), {}, "holds no config.json", "name the folder"),
    (
        "a broken config",
        lambda f: (f / "config.json").write_text("{"),
        {},
        "cannot be read",
        "download the model again",
    ),
    ("a config that is a list", lambda f: (f / "config.json").write_text("[]"), {}, "does not know", "--upgrade"),
    ("an unknown architecture", lambda f: rewritten(f, model_type="gpt22"), {}, "'gpt22'", "--upgrade transformers"),
    ("no language model", lambda f: rewritten(f, model_type="vit"), {}, "no causal language model", "another model"),
    ("no weights", lambda f: (f / "model.safetensors").unlink(), {}, "could not be loaded", "download the model again"),
    ("half a weight file", cut_short, {}, "could not be loaded", "download the model again"),
    ("a weight too few", without_a_weight, {}, "lack 1 weights, the first is transformer.h.1", "all of its files"),
    ("weights of another width", lambda f: rewritten(f, n_inner=24), {}, "is (64,) in its files and (24,)", "again"),
    ("a pickle as weights", pickled, {}, "could not be loaded", "download the model again"),
    (
        "a file of another kind",
        lambda f: None,
        {"file": "config.json"},
        "is a file that is not a GGUF",
        "name the folder",
    ),
    ("a broken tokenizer", lambda f: (f / "tokenizer.json").write_text("{"), {}, "the tokenizer of model", "save the"),
    ("an unknown kernel", lambda _: None, {"attn_implementation": "fast"}, "attn_implementation = 'fast'", "remove"),
    ("a device map of no devices", lambda _: None, {"device_map": "autoo"}, "'autoo' is not the name", "cpu"),
    ("a device map to disk", lambda _: None, {"device_map": {"lm_head": "disk"}}, "puts 'lm_head' on disk", "'cpu'"),
]


@pytest.mark.parametrize(("spoil", "settings", "what", "fix"), [c[1:] for c in MODELS], ids=[c[0] for c in MODELS])
def test_models(spoil: Callable[[Path], Any], settings: dict[str, Any], what: str, fix: str, folder: Path) -> None:
    spoil(folder)
    given = dict(settings)
    place = str(folder / given.pop("file")) if "file" in given else str(folder)
    with pytest.raises(UnmemorizeError) as caught:
        open_model(ModelSource(**({"model": place} | given)))
    three_parts(caught.value, what, fix)


DEVICES = [
    ("gpu", "'gpu' is not the name of a device"),
    ("cdua:0", "'cdua:0' is not the name of a device"),
    ("cuda:x", "'cuda:x' is not the name of a device"),
    ("cpu:7", "no cpu device of that number"),
]


@pytest.mark.parametrize(("device", "what"), DEVICES)
def test_devices(device: str, what: str, folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        open_model(ModelSource(model=str(folder)), device=device)
    three_parts(caught.value, what, "--device")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_this_machine_does_not_have(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        open_model(ModelSource(model=str(folder)), device="cuda:1")
    three_parts(caught.value, "no cuda device that torch can use", "--device cpu")


def test_a_device_map_without_accelerate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unmemorize.models import devices

    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        open_model(ModelSource(model=str(folder), device_map="auto"))
    three_parts(caught.value, "needs the package accelerate", "pip install accelerate")


def test_there_are_at_least_thirty_cases() -> None:
    assert len([*JSONL, *FILES, *LENGTHS, *SETTINGS, *MODELS, *DEVICES]) >= 30


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads and writes everything")
def test_a_model_folder_that_may_not_be_read(folder: Path) -> None:
    folder.chmod(0)
    try:
        with pytest.raises(UnmemorizeError) as caught:
            open_model(ModelSource(model=str(folder)))
    finally:
        folder.chmod(0o755)
    three_parts(caught.value, "cannot be read", "ls -ld")
