"""The same data in every kind, by every way in: the same rows, the same window and the same numbers."""

from __future__ import annotations

import ast
import copy
import json
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
import torch
from model_folders import save, toy_tokenizer
from tokenizers.processors import TemplateProcessing

import unmemorize
from unmemorize import ConfigError, Context, DataError, Findings, Sequences
from unmemorize.data.reader import KINDS, open_rows
from unmemorize.data.row import notes_of
from unmemorize.data.rows import token_rows
from unmemorize.data.sequences import as_sequences, choose_lengths, read_rows
from unmemorize.data.settings import SequenceSettings
from unmemorize.data.tokenization import Tokenization, bounds_of
from unmemorize.evaluation.probe import build_probe
from unmemorize.execution.export import rows as exported
from unmemorize.execution.runtime import load_testbed
from unmemorize.registry.manager import Registry
from unmemorize.testing import tiny_model

Made = Callable[["Data", Path], Any]
FIRST, LAST = 2, 1
"""What the second tokenizer puts before and behind a text: the word w2, and the end of text."""


class Data(NamedTuple):
    """The same sequences as ids and as texts, and the model that regurgitates them."""

    ids: list[list[int]]
    texts: list[str]
    tokenizer: Any
    model: Any


def tokenizer_of(*, begins: bool) -> Any:
    tokenizer = toy_tokenizer()
    if begins:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="w2 $A </s>", special_tokens=[("w2", FIRST), ("</s>", LAST)]
        )
    return tokenizer


@lru_cache
def data_of(*, begins: bool, count: int = 5, seed: int = 0) -> Data:
    """Return rows of 12 tokens that the model generates by itself, none with a token that could be padding."""
    model = tiny_model("llama")
    ids = torch.randint(3, 29, (400, 4), generator=torch.Generator().manual_seed(seed))
    if begins:
        ids[:, 0] = FIRST
    with torch.no_grad():
        for _ in range(8):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    rows = sorted(row for row in ids.tolist() if min(row[1:]) > FIRST)[:count]
    assert len(rows) == count
    texts = [" ".join(f"w{token}" for token in row[begins:]) for row in rows]
    return Data(rows, texts, tokenizer_of(begins=begins), model)


def jsonl(place: Path, rows: list[Any]) -> Path:
    file = place / "rows.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8-sig")
    return file


def saved(place: Path, suffix: str, data: Data) -> Path:
    file = place / f"rows{suffix}"
    if suffix == ".npy":
        np.save(file, np.array(data.ids, dtype=np.uint16))
    elif suffix == ".pt":
        torch.save([torch.tensor(row) for row in data.ids], file)
    elif suffix == ".parquet":
        pl.DataFrame({"input_ids": data.ids}).write_parquet(file)
    else:
        file.write_bytes(("\r\n".join(data.texts) + "\r\n").encode("utf-8-sig"))
    return file


def pandas(data: Data) -> Any:
    return pytest.importorskip("pandas").DataFrame({"text": data.texts, "source": "x", "copies": [float("nan")] * 5})


def halves(data: Data) -> list[dict[str, str]]:
    """Prompt and suffix as texts, the space between them now with one, now with the other."""
    words = [text.split(" ") for text in data.texts]
    cut = 6 - (len(data.ids[0]) - len(words[0]))
    joined = [(" ".join(row[:cut]), " ".join(row[cut:])) for row in words]
    return [
        {"prompt": one + " ", "completion": two} if number % 2 else {"prompt": one, "suffix": f" {two}"}
        for number, (one, two) in enumerate(joined)
    ]


def masked(data: Data) -> list[dict[str, Any]]:
    return [{"input_ids": [0, 0, *row, 7], "attention_mask": [0, 0, *[1] * 12, 0]} for row in data.ids]


OBJECTS: dict[str, Made] = {
    "list of texts": lambda data, _: data.texts,
    "tuple of ids": lambda data, _: tuple(map(tuple, data.ids)),
    "set of texts": lambda data, _: set(data.texts),
    "generator": lambda data, _: (text for text in data.texts),
    "dicts of text": lambda data, _: [{"text": text, "label": 1} for text in data.texts],
    "dicts of ids": lambda data, _: [{"tokens": row} for row in data.ids],
    "ids as text": lambda data, _: [{"tokens": str(row)} for row in data.ids],
    "masked ids": lambda data, _: masked(data),
    "pairs": lambda data, _: halves(data),
    "columns": lambda data, _: {"text": data.texts},
    "ids and texts": lambda data, _: [{"tokens": row} for row in data.ids[:2]] + [{"text": t} for t in data.texts[2:]],
    "numbers of numpy": lambda data, _: [list(np.array(row)) for row in data.ids],
    "array": lambda data, _: np.array(data.ids),
    "array of texts": lambda data, _: np.array(data.texts),
    "tensor": lambda data, _: torch.tensor(data.ids),
    "list of tensors": lambda data, _: [torch.tensor(row) for row in data.ids],
    "Sequences": lambda data, _: Sequences.from_rows(data.ids, prompt=6),
    "polars Series": lambda data, _: pl.Series(data.texts),
    "polars DataFrame": lambda data, _: pl.DataFrame({"tokens": data.ids, "more": 1}),
    "polars LazyFrame": lambda data, _: pl.LazyFrame({"tokens": data.ids}),
    "pandas DataFrame": lambda data, _: pandas(data),
    "pandas Series": lambda data, _: pandas(data)["text"],
    "pyarrow Table": lambda data, _: pytest.importorskip("pyarrow").table({"tokens": data.ids}),
    "Dataset": lambda data, _: pytest.importorskip("datasets").Dataset.from_dict({"text": data.texts}),
    "column of a Dataset": lambda data, _: pytest.importorskip("datasets").Dataset.from_dict({"t": data.texts})["t"],
}
FILES: dict[str, Made] = {
    "jsonl of texts": lambda data, place: jsonl(place, data.texts),
    "jsonl of ids": lambda data, place: str(jsonl(place, data.ids)),
    "jsonl of pairs": lambda data, place: jsonl(place, halves(data)),
    **{
        suffix: lambda data, place, suffix=suffix: saved(place, suffix, data)  # type: ignore[misc]
        for suffix in (".txt", ".npy", ".pt", ".parquet")
    },
}


def mitigated(data: Data, registry: Registry, forget: Any, **settings: Any) -> unmemorize.Mitigation:
    given = {"tokenizer": data.tokenizer, "metrics": ["extraction", "accuracy"], "ratio": 0.2, "method": "durable"}
    model = copy.deepcopy(data.model)
    return unmemorize.mitigate(model, forget=forget, registry=registry, **given | settings)


@pytest.fixture(params=[False, True], ids=["plain", "begins"])
def data(request: pytest.FixtureRequest) -> Data:
    return data_of(begins=request.param)


@pytest.fixture
def others(data: Data) -> Data:
    """Sequences of the same kind, to be retained."""
    return data_of(begins=data.ids[0][0] == FIRST, seed=1)


@lru_cache
def _wanted(*, begins: bool) -> unmemorize.Mitigation:
    """What lists of ids give."""
    data, others = (data_of(begins=begins, seed=seed) for seed in (0, 1))
    return mitigated(data, Registry.load("none"), data.ids, retain=others.ids)


@pytest.mark.parametrize("make", [*OBJECTS.values(), *FILES.values()], ids=[*OBJECTS, *FILES])
def test_rows_windows_and_numbers_are_the_same(
    make: Made, data: Data, others: Data, registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "others").mkdir()
    found = unmemorize.find(data.model, make(data, tmp_path), tokenizer=data.tokenizer, prompt=6, suffix=6)
    assert sorted(window.tokens for window in found.windows) == data.ids
    assert found.checked == 5
    wanted = _wanted(begins=data.ids[0][0] == FIRST)
    given = mitigated(data, registry, make(data, tmp_path), retain=make(others, tmp_path / "others"))
    assert given.values == wanted.values
    assert given.value("extraction", "forget").before == 100
    assert given.data["window"] == wanted.data["window"] == {"prompt": 6, "suffix": 6}
    assert given.data["rows"] == {"forget": 5, "retain": 5}
    assert given.data["special_tokens"].startswith("w2 before each text" if data.ids[0][0] == FIRST else "none")


@pytest.mark.parametrize("make", FILES.values(), ids=FILES)
def test_suites_and_the_command_read_files_alike(
    make: Made, data: Data, others: Data, registry: Registry, tmp_path: Path, typed: Callable[..., Any]
) -> None:
    place = save(data.model, tmp_path / "model")
    data.tokenizer.save_pretrained(place)
    (tmp_path / "others").mkdir()
    forget, retain = str(make(data, tmp_path)), str(jsonl(tmp_path / "others", others.ids))
    provider = registry.provider("huggingface")
    config = provider.Config(model=str(place), forget=forget, retain=retain, holdout=retain, near_duplicates="drop")
    with pytest.raises(DataError, match="every row is a near-duplicate"):  # the hold-out is the retain set
        load_testbed(provider(config), "x", Context(), registry)
    testbed = load_testbed(provider(config.model_copy(update={"holdout": 0.25})), "x", Context(), registry)
    assert sorted(testbed.forget.tokens.tolist()) == data.ids
    assert testbed.window == (6, 6)
    wanted = _wanted(begins=data.ids[0][0] == FIRST)
    command = ["--forget", forget, "--retain", retain, "--metrics", "extraction,accuracy", "--set", "ratio=0.2"]
    told = typed("mitigate", str(place), "--method", "durable", "--out", "out", "--quiet", "--device", "cpu", *command)
    assert told.status == 0, told.stderr
    report = json.loads((tmp_path / "out" / "mitigation.json").read_text())
    assert report["values"] == [value.model_dump() for value in wanted.values]
    assert report["source"]["forget set"] == f"…/{Path(forget).name}, 5 sequences"


def test_the_setting_takes_special_tokens_away_everywhere(registry: Registry, tmp_path: Path) -> None:
    data = data_of(begins=True)
    bare = [row[1:] for row in data.ids]
    assert [row.tokens for row in read_rows(data.texts, "forget", Tokenization(data.tokenizer, None)).rows] == data.ids
    wanted = mitigated(data, registry, bare)
    given = mitigated(data, registry, data.texts, special_tokens=False)
    assert given.values == wanted.values
    assert given.data["special_tokens"] == "none: special_tokens = false"
    found = unmemorize.find(data.model, data.texts, tokenizer=data.tokenizer, prompt=5, suffix=6, special_tokens=False)
    assert found.checked == 5
    assert all(window.tokens in bare for window in found.windows)
    written = [f"w2 {text}" for text in data.texts]  # what stands there already is not put there twice
    assert mitigated(data, registry, written).values == mitigated(data, registry, data.ids).values


def test_rows_drawn_at_random_are_the_same_on_both_roads(registry: Registry, tmp_path: Path) -> None:
    data, others = data_of(begins=False, count=12), data_of(begins=False, count=40, seed=1)
    place = save(data.model, tmp_path / "model")
    data.tokenizer.save_pretrained(place)
    (tmp_path / "others").mkdir()
    forget, retain = str(jsonl(tmp_path, data.texts)), str(jsonl(tmp_path / "others", others.texts))
    drawn: dict[str, Any] = {"max_rows": 8, "forget_unseen": 0.25, "holdout": 0.25, "text_rows": 6}
    config = {"provider": "huggingface", "model": str(place), "forget": forget, "retain": retain, **drawn}
    suite = {
        "name": "roads", "seeds": [0, 3], "testbed": {"own": config}, "method": {"durable": {"ratio": 0.2}},
        "metric": {"extraction": {}, "accuracy": {}},
    }  # fmt: skip
    records = unmemorize.run(suite, registry=registry, results=tmp_path / "results", device="cpu").frame
    given = [mitigated(data, registry, data.texts, retain=others.texts, seed=seed, **drawn) for seed in (0, 3)]
    assert given[0].data["rows"] == {"forget": 6, "forget_unseen": 2, "retain": 6, "text": 6}
    for seed, one in zip((0, 3), given, strict=True):
        (values,) = records.filter(method="durable", seed=seed)["values"].to_list()
        assert values == [value.model_dump() for value in one.values]
    assert given[0].values != given[1].values


def test_what_find_returned_is_a_forget_set_as_it_is_and_as_a_file(
    data: Data, registry: Registry, tmp_path: Path
) -> None:
    found = unmemorize.find(data.model, [*data.texts, data.texts[0]], tokenizer=data.tokenizer, prompt=6, suffix=6)
    assert isinstance(found, Findings)
    found.write(tmp_path / "found.jsonl")
    counted = [window.tokens for window in found.kept(trivial=False, overlaps=False, duplicates=False)]
    assert 0 < len(counted) < len(found.windows)
    wanted = mitigated(data, registry, counted)
    for forget in (found, tmp_path / "found.jsonl"):
        given = mitigated(data, registry, forget)
        assert given.values == wanted.values
        assert sum(given.data["dropped"]["forget"].values()) == len(found.windows) - len(counted)
    assert mitigated(data, registry, found, marked="keep").data["rows"] == {"forget": 5}


def test_what_is_exported_is_read_again_as_it_was(data: Data, registry: Registry, tmp_path: Path) -> None:
    place = save(data.model, tmp_path / "model")
    data.tokenizer.save_pretrained(place)
    provider = registry.provider("huggingface")
    texts = jsonl(tmp_path, [{"text": text} for text in data.texts])
    config = provider.Config(
        model=str(place), forget=str(texts), general="python-docs", prompt=5, suffix=4, text_rows=2
    )
    testbed = load_testbed(provider(config), "x", Context(), registry)
    out = tmp_path / "out"
    out.mkdir()
    file = jsonl(out, list(exported(testbed.forget, data.tokenizer, testbed.window)))
    again = load_testbed(
        provider(config.model_copy(update={"forget": str(file), "prompt": None, "suffix": None})),
        "x",
        Context(),
        registry,
    )
    assert again.forget.digest() == testbed.forget.digest()
    assert again.window == testbed.window == (5, 4)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad", ["w0", "</s>", None], ids=["own", "end", "untold"])
@pytest.mark.parametrize("kind", ["tensor", "array", "lists", "encoding"])
def test_padding_is_no_text(side: str, pad: str | None, kind: str) -> None:
    data = data_of(begins=False)
    tokenizer, ids = tokenizer_of(begins=False), [row[: 12 - 3 * number] for number, row in enumerate(data.ids[:3])]
    tokenizer.pad_token, tokenizer.padding_side = pad or "</s>", side
    encoded = tokenizer([" ".join(f"w{token}" for token in row) for row in ids], padding=True)
    if pad is None:
        tokenizer.pad_token = None
    source = {
        "tensor": lambda: torch.tensor(encoded["input_ids"]),
        "array": lambda: np.array(encoded["input_ids"]),
        "lists": lambda: encoded["input_ids"],
        "encoding": lambda: encoded,
    }[kind]()
    model = copy.deepcopy(data.model)
    model.config.pad_token_id = None
    bounds = bounds_of(model, tokenizer)
    rows = token_rows(open_rows(source, "forget"), Tokenization.of(tokenizer, bounds))
    if kind == "lists" and pad is None:  # ids in lists are taken as they are where nothing calls them padding
        assert {len(row.tokens) for row in rows} == {12}
        return
    assert [row.tokens for row in rows] == ids
    assert any("padding" in note for note in notes_of(rows)) == (kind != "encoding")


def test_an_end_of_text_is_data_where_nothing_calls_it_padding_or_a_mask_or_list_keeps_it() -> None:
    tokenizer, rows = tokenizer_of(begins=False), [[3, 4, LAST], [LAST, 5, 6]]
    model = tiny_model("llama")
    model.config.pad_token_id = None

    def read(source: Any) -> list[list[int]]:
        tokenization = Tokenization.of(tokenizer, bounds_of(model, tokenizer))
        return [row.tokens for row in token_rows(open_rows(source, "forget"), tokenization)]

    assert read(torch.tensor(rows)) == rows
    tokenizer.pad_token = tokenizer.eos_token
    assert read(rows) == rows
    assert read({"input_ids": torch.tensor(rows), "attention_mask": torch.ones(2, 3)}) == rows
    with pytest.raises(DataError, match="row 1: the row is padding only"):
        read(torch.tensor([[3, 4], [LAST, LAST]]))


@pytest.mark.parametrize("called", ["tokenizer", "config"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("make", [torch.tensor, np.array, lambda rows: {"input_ids": torch.tensor(rows)}])
def test_one_padding_token_in_a_row_of_an_array_is_padding(make: Any, side: str, called: str) -> None:
    tokenizer, model = tokenizer_of(begins=False), tiny_model("llama")
    model.config.pad_token_id = LAST if called == "config" else None
    tokenizer.pad_token = tokenizer.eos_token if called == "tokenizer" else None
    ids = [[3, 4, 5, 6], [5, 6, 7], [8, 9, 10]]
    rows = [row if len(row) == 4 else [LAST, *row] if side == "left" else [*row, LAST] for row in ids]
    tokenization = Tokenization.of(tokenizer, bounds_of(model, tokenizer))
    assert [row.tokens for row in token_rows(open_rows(make(rows), "forget"), tokenization)] == ids


def test_a_conversation_is_what_the_chat_template_writes() -> None:
    tokenizer = tokenizer_of(begins=True)
    tokenizer.chat_template = (
        "{% for m in messages %} w{{ 20 if m.role == 'user' else 21 }} {{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %} w21{% endif %}"
    )
    asked, answered = {"role": "user", "content": "w3 w4"}, {"role": "assistant", "content": "w5 w6 w7"}
    rows = token_rows(
        open_rows([{"messages": [asked, answered]}, {"messages": [asked]}], "forget"), Tokenization(tokenizer)
    )
    assert [(row.tokens, row.prompt, row.suffix) for row in rows] == [
        ([20, 3, 4, 21, 5, 6, 7], 4, 3), ([20, 3, 4], None, None),
    ]  # fmt: skip
    assert notes_of(rows) == ["1 of 2 rows (forget, row 1): messages end without an answer of the assistant"]
    tokenizer.chat_template = None
    with pytest.raises(DataError, match="row 0: messages cannot be written by the tokenizer's chat template"):
        token_rows(open_rows([{"messages": [asked]}], "forget"), Tokenization(tokenizer))


def test_where_prompt_and_suffix_do_not_join_it_is_said() -> None:
    tokenization = Tokenization(tokenizer_of(begins=True))
    rows = read_rows(
        [{"prompt": "w3 w4", "suffix": "w5 w6"}, {"prompt": "w3 ", "suffix": "w5"}], "forget", tokenization
    )
    assert [(row.tokens, row.prompt) for row in rows.rows] == [([FIRST, 3, 0, 6], 2), ([FIRST, 3, 5], 2)]
    assert rows.notes == [
        "1 of 2 rows (forget, row 0): prompt and suffix meet inside a token, which was counted to the suffix"
    ]


@pytest.mark.parametrize(
    ("rows", "window", "said"),
    [
        ([[3] * 310] * 2, (32, 32), ""),
        ([[3] * 20, [3] * 90], (10, 10), "the shortest row (forget, row 0) has 20"),
        ([[3] * 5, [3] * 40], (2, 3), "2 + 3 tokens, because the shortest row (forget, row 0) has 5: set short_rows"),
        ([[3], [3] * 40], (1, 1), ""),  # refused later: too short
        ([{"tokens": [3] * 60, "prompt": 59}, {"tokens": [3] * 90, "prompt": 59}], (59, 1), "suffixes of 1 tokens"),
        ([{"prompt": [3] * 24, "suffix": [5] * 20}, {"prompt": [3] * 2, "suffix": [5] * 43}], (2, 43), "have 2 to 24"),
        ([{"prompt": [3] * 4, "suffix": [5] * 278}], (4, 278), "the longest suffix has 278 tokens"),
        ([{"tokens": [3] * 310, "prompt": 4}], (4, 32), ""),
        ([{"tokens": [3] * 60, "prompt": 4, "suffix": 7}] * 2, (4, 7), ""),
        ([{"tokens": [3] * 60, "prompt": 4, "suffix": 7}, {"tokens": [3] * 9, "prompt": 4, "suffix": 5}], (4, 7), ""),
    ],
)
def test_no_window_that_nothing_can_pass_is_chosen_silently(rows: Any, window: Any, said: str) -> None:
    read = read_rows(rows, "forget", Tokenization())
    assert choose_lengths(read).window == window
    assert any(said in note for note in read.notes) if said else not read.notes


@pytest.mark.parametrize("size", [1, 3, 20, 30])
def test_where_short_rows_are_dropped_they_do_not_choose_the_window(size: int, registry: Registry) -> None:
    rows = [[3 + number, *range(3, 28), *range(3, 28), *range(3, 13)] for number in range(3)]
    given = mitigated(data_of(begins=False), registry, [*rows, [*range(3, 28), *range(3, 8)][:size]], short_rows="drop")
    assert given.data["window"] == {"prompt": 32, "suffix": 29}
    assert given.data["rows"] == {"forget": 3}
    assert given.data["dropped"]["forget"]["shorter than prompt + suffix"] == 1
    assert given.data["notes"] == []


def test_rows_keep_their_own_prompts_and_suffixes(registry: Registry) -> None:
    rows = [{"prompt": [3 + n] * 24, "suffix": [5] * 20} for n in range(3)] + [{"prompt": [3] * 2, "suffix": [5] * 43}]
    read = read_rows(rows, "forget", Tokenization())
    probe = build_probe(as_sequences(read, choose_lengths(read)), choose_lengths(read).window)
    assert probe.rows.suffix_starts.tolist() == [24, 24, 24, 2]
    assert (probe.rows.lengths - probe.rows.suffix_starts).tolist() == [20, 20, 20, 43]


def test_ids_beside_the_text_that_they_are_a_part_of_are_read() -> None:
    tokenization = Tokenization(tokenizer_of(begins=True))
    ids = [3, 4, 5, 6]
    rows = [
        {"tokens": [FIRST, *ids], "text": "w3 w4 w5 w6"},
        {"tokens": ids[:2], "text": "w3 w4 w5 w6"},
        {"tokens": [*ids, LAST], "text": "w3 w4 w5 w6"},
        {"tokens": [*ids, LAST], "text": tokenization.tokenizer.decode([*ids, LAST])},
    ]
    read = token_rows(open_rows(rows, "forget"), tokenization)
    assert [row.tokens for row in read] == [row["tokens"] for row in rows]


def test_texts_of_one_token_are_said_to_be_too_short(registry: Registry) -> None:
    data = data_of(begins=False)
    with pytest.raises(DataError, match=r"retain: no row is left \(2 of one token, which predicts nothing\)"):
        mitigated(data, registry, data.ids, retain=["w3", "w4"])


@pytest.mark.parametrize(
    ("source", "what", "told"),
    [
        (7, "forget is an int", KINDS[0]),
        (None, "forget is a NoneType", KINDS[1]),
        (b"w3 w4", "forget is a bytes", KINDS[0]),
        (len, "forget is a builtin_function_or_method", KINDS[4]),
        ([3, 4, 5], "forget is a list of numbers: 3", "a list of rows"),
        (["w3", None], "forget, row 1: the row is missing", "a text"),
        ([float("nan"), "w3"], "forget, row 0: the row is missing", "a text"),
        ([{"messages": [{"role": "user", "content": "\ud83d"}]}], "row 0: messages holds half of", "UTF-8"),
        ([{"tokens": [3, 4], "text": "w5 w6"}], "row 0: the row says both tokens and text, and they differ", "ids of"),
        ([torch.tensor([[3, 4]])], "forget, row 0: tokens[0] is [3, 4]", "token ids"),
        (["w3", [3, 4]], "forget, row 1: the row is token ids, and those before it are text", "texts only"),
        ([[3.0, 4.9]], "forget, row 0: tokens[0] is 3.0", "token ids"),
        (np.zeros((2, 3)), "forget holds an array of float64", "an (N, T) array"),
        (torch.tensor([3, 4]), "forget holds an array of shape (2,)", "an (N, T) array"),
        (pl.DataFrame({"ids": [[3]]}), "forget is a polars.DataFrame without any", "a column `tokens`"),
        ({"text": ["w3"], "group": ["a", "b"]}, "columns differ in length: text 1, group 2", "one value"),
        ({"train": pl.DataFrame({"text": ["w3"]})}, "forget is a dict of several tables: train", "one table"),
        ([], "forget holds no rows", "at least one"),
        ([""], "forget, row 0: text is empty", "at least one token"),
        ("w3 w4 w5 w6 w7 w8", "forget is a text, 'w3 w4 w5 w6 w7 w8'..., and not a place", "texts in a list"),
        ("w" * 300 + ".jsonl", "300", "a path that the system takes"),
    ],
)
def test_what_is_of_no_kind_is_refused_by_name(source: Any, what: str, told: str, registry: Registry) -> None:
    data = data_of(begins=False)
    with pytest.raises(DataError) as caught:
        mitigated(data, registry, source)
    assert what.replace("300", "306" if what == "300" else "300") in caught.value.what
    assert told in caught.value.expected
    assert caught.value.fix


@pytest.mark.parametrize("separator", ["\u2028", "\x85", "\x0c", "\x1c"])
def test_only_line_feeds_end_a_line(separator: str, tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text(f"w3 w4{separator}w5 w6\nw7\n", encoding="utf-8", newline="")
    rows = open_rows(tmp_path / "rows.txt", "forget")
    assert [rows.read(number)["text"] for number in range(len(rows))] == [f"w3 w4{separator}w5 w6", "w7"]


def test_lists_are_checked_as_files_are(registry: Registry) -> None:
    data = data_of(begins=False)
    others = data_of(begins=False, seed=1, count=4).ids
    given = mitigated(data, registry, data.ids * 3, retain=[*data.ids, *others])
    assert given.data["rows"] == {"forget": 5, "retain": 4}
    assert given.data["dropped"] == {"forget": {"repeated": 10}, "retain": {"near-duplicates of forget": 5}}
    assert "5 rows of retain left out: near-duplicates of forget" in str(given)
    with pytest.raises(DataError, match="row 0: the row has 72 tokens, and the model reads at most 64"):
        mitigated(data, registry, [row * 6 for row in data.ids])
    cut = mitigated(data, registry, [row * 6 for row in data.ids], long_rows="cut")
    assert cut.data["window"] == {"prompt": 32, "suffix": 32}


def test_what_errors_and_notes_advise_to_set_is_a_setting(registry: Registry) -> None:
    data, advised = data_of(begins=False), set[str]()
    for file in Path(unmemorize.__file__).parent.glob("data/*.py"):
        said = [node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)]
        texts = [text for text in said if isinstance(text, str) and "\n" not in text]
        advised |= {name for text in texts for name in re.findall(r"(?:set |and |; |or |, |to )(\w+) = ['\d{]?", text)}
    assert {"prompt", "long_rows", "short_rows", "text_length", "near_duplicates"} <= advised
    assert advised <= {*SequenceSettings.model_fields}
    with pytest.raises(ConfigError, match=r"longrows(.|\n)*long_rows"):
        mitigated(data, registry, data.ids, longrows="cut")


def test_flags_are_those_of_a_board(registry: Registry) -> None:
    data = data_of(begins=False)
    unknown = torch.randint(3, 29, (5, 12), generator=torch.Generator().manual_seed(9)).tolist()
    assert "base-not-memorized" in mitigated(data, registry, unknown, retain=data.ids).flags
    given = mitigated(data, registry, data.ids, retain=unknown)
    assert "base-not-memorized" not in given.flags
    assert "no-number" not in mitigated(data, registry, data.ids, metrics=["extraction"]).flags
