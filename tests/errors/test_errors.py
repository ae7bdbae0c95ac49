from __future__ import annotations

import pickle

import pytest

from unmemorize import errors
from unmemorize.errors import (
    BrokenPluginError,
    ConfigError,
    DataChangedError,
    DataError,
    DeadlineExceeded,
    DivergedError,
    KeptError,
    LayoutError,
    LeftBehindError,
    MemoryExceeded,
    NameCollisionError,
    NoOpError,
    NotFiniteError,
    PluginError,
    ProvenanceError,
    RecordError,
    ReportError,
    SelectionError,
    StateDictError,
    StoreError,
    TestbedChangedError,
    UndeclaredNeedError,
    UnknownNameError,
    UnmemorizeError,
    UnwritableError,
    nearest,
)

PLAIN = {kind: kind("this is wrong", expected="that", fix="type this") for kind in (
    UnmemorizeError, BrokenPluginError, ConfigError, DataError, PluginError, StoreError, SelectionError,
    UnwritableError, KeptError,
)}  # fmt: skip
PLAIN_TEXT = "this is wrong\n  expected: that\n  fix: type this"

TEXTS: list[tuple[UnmemorizeError, str]] = [
    *((error, PLAIN_TEXT) for error in PLAIN.values()),
    (
        NoOpError("durable"),
        "method 'durable' ended without changing a single parameter or the decoding\n"
        "  expected: a changed model: an unedited model's numbers are never printed as a method's\n"
        "  fix: raise its strength, e.g. --set ratio=0.01 (`unmemorize show durable` lists its settings)",
    ),
    (
        RecordError("durable", "values.0: before = 150 is outside its range, 0 to 100"),
        "what came of 'durable' cannot be recorded: values.0: before = 150 is outside its range, 0 to 100\n"
        "  expected: numbers in their metric's range, counts and seconds that are not negative, notes that are JSON\n"
        "  fix: correct the plugin that left it: unmemorize check durable",
    ),
    (
        UnknownNameError("method", "durabel", ["extra", "durable"], where="suite 'quick'"),
        "no method is called 'durabel' in suite 'quick'\n"
        "  expected: one of durable, extra\n"
        "  fix: `unmemorize list methods` shows all of them; `unmemorize plugins` their origins",
    ),
    (
        UnknownNameError("metric", "x", [], broken=["plugin 'b' (b 1)", "plugin 'a' (a 1)"]),
        "no metric is called 'x'\n"
        "  expected: a registered metric; none is "
        "(not loaded, because broken: plugin 'a' (a 1), plugin 'b' (b 1))\n"
        "  fix: `unmemorize list metrics` shows all of them; `unmemorize plugins` their origins",
    ),
    (
        UnknownNameError("plugin", "x", ["y"], fix="look again"),
        "no plugin is called 'x'\n  expected: one of y\n  fix: look again",
    ),
    (
        NameCollisionError("method", "durable", ["'b' (b 2.0)", "'a' (a 1.0)"]),
        "the method name 'durable' is registered by 'a' (a 1.0) and 'b' (b 2.0)\n"
        "  expected: one origin per name, so that the order of installation never decides a benchmark\n"
        "  fix: rename or uninstall one of them, or set UNMEMORIZE_PLUGINS=none (or to a list of plugins)",
    ),
    (
        LayoutError.unknown("gpt3", ["llama", "gpt2"], broken=["plugin 'a' (a 1)"]),
        "no layout is registered for model type 'gpt3'\n"
        "  expected: one of gpt2, llama (not loaded, because broken: plugin 'a' (a 1))\n"
        "  fix: return a `Layout` from the hook `register_layouts` of a plugin: docs/hooks/register_layouts.md",
    ),
    (
        LayoutError.unknown("gpt3", []),
        "no layout is registered for model type 'gpt3'\n"
        "  expected: a registered layout; none is\n"
        "  fix: return a `Layout` from the hook `register_layouts` of a plugin: docs/hooks/register_layouts.md",
    ),
    (
        LayoutError.unfound("mamba", "block 0 has no such map"),
        "no layout is registered for model type 'mamba', and its structure does not tell: block 0 has no such map\n"
        "  expected: a registered layout, or blocks that each have an MLP of one or two linear maps and a last one\n"
        "  fix: return a `Layout` from the hook `register_layouts` of a plugin: docs/hooks/register_layouts.md",
    ),
    (
        LayoutError.of_row(["one", "two"], "h.0 lacks mlp.up"),
        "the layout of one, two does not fit this model: h.0 lacks mlp.up\n"
        "  expected: names of the model's own `named_modules()` and `named_parameters()`, without a final `.weight`\n"
        "  fix: correct the row that `register_layouts` returns",
    ),
    (
        SelectionError.empty(0.001, 512, "layer 3"),
        "ratio 0.001 selects 0 of 512 units in layer 3\n"
        "  expected: a ratio of at least 0.00195 there (one unit)\n"
        "  fix: set ratio=0.00195 or more, or scope='global' to select over the whole model",
    ),
    (
        SelectionError.not_finite("layer 3"),
        "the scores of layer 3 hold NaN\n"
        "  expected: a finite score for every unit\n"
        "  fix: look at the loss on the forget set: lower the learning rate or use float32",
    ),
    (
        DivergedError("training", 17),
        "training diverged: the loss is not finite at step 17\n"
        "  expected: a finite loss at every step\n"
        "  fix: lower its learning rate or number of epochs (`unmemorize show METHOD` lists the settings)",
    ),
    (
        DivergedError.left("mine", ["a", "b", "c", "d"]),
        "method 'mine' left values that are not finite in a, b, c and 1 more\n"
        "  expected: finite weights\n"
        "  fix: guard divisions and logarithms, accumulate in float32, lower the learning rate",
    ),
    (
        NotFiniteError("12 rows", "float16", ["a"]),
        "the model's logits are not finite (12 rows, float16): its own weights hold NaN or infinity in a\n"
        "  expected: finite logits before anything is done to a model: float16 ends at 65504, and this model goes "
        "beyond\n  fix: dtype = 'float32' (or 'bfloat16') in a suite, "
        "`unmemorize mitigate` and `unmemorize find` with --dtype float32, in Python model.float()",
    ),
    (
        NotFiniteError("12 rows", "float32", []),
        "the model's logits are not finite (12 rows, float32)\n"
        "  expected: finite logits before anything is done to a model\n"
        "  fix: save or download the model again, or name another: it is broken as it is",
    ),
    (
        ReportError("mine", "`context.report.flags` holds 3, which is no text"),
        "method 'mine': `context.report.flags` holds 3, which is no text\n"
        "  expected: notes of numbers, texts, lists and tables; flags that are texts; a tuple of processors\n"
        "  fix: convert with float(...), int(...) or .tolist(); write e.g. `with context.timed('edit'):`",
    ),
    (
        StateDictError("mine", "the state dict has new mask"),
        "method 'mine' left another model: the state dict has new mask\n"
        "  expected: an ordinary instance of the model's own class, so that plain transformers loads it\n"
        "  fix: remove wrappers, buffers and parametrizations before `apply` returns; write into `parameter.data`",
    ),
    (
        LeftBehindError("method 'mine'", ["a forward hook on lm_head"]),
        "method 'mine' left something on the model: a forward hook on lm_head\n"
        "  expected: an edit of the weights alone, and none by a metric: hooks and patches are in no saved model\n"
        "  fix: remove each handle, restore `forward`s and attributes, in `try: ... finally:` before it returns",
    ),
    (
        TestbedChangedError(["a thread was started that still runs"]),
        "left the testbed changed: a thread was started that still runs\n"
        "  expected: model, data and process as they were: other cells use them\n"
        "  fix: end threads and processes, close files and undo patches in `try: ... finally:` before `apply` returns",
    ),
    (
        DataChangedError("method 'mine'", ["forget"]),
        "method 'mine' changed sequences in place: forget (they are restored)\n"
        "  expected: the data as they were: every method is shown and measured on the same\n"
        "  fix: work on `.clone()`, on `sequences.select(...)`, or with `dataclasses.replace(...)`",
    ),
    (
        DeadlineExceeded(600, "the method"),
        "the method ran past its deadline of 600 s\n"
        "  expected: a cell that ends within 600 s\n"
        "  fix: give it more time with --deadline SECONDS, or choose a cheaper configuration",
    ),
    (
        MemoryExceeded(2**32, 5 * 2**30, "method 'mine'"),
        "method 'mine' took 5 GiB of memory, more than its limit of 4 GiB\n"
        "  expected: a worker process that stays below the limit, libraries and testbed included\n"
        "  fix: give it more with --memory BYTES (4GiB, 500MB), or choose a cheaper configuration",
    ),
    (
        ProvenanceError.of_plugin("method", "mine", "mine 1.0", "mine 1.1"),
        "the method 'mine' is (mine 1.1) where it runs, and was (mine 1.0) when the run was planned\n"
        "  expected: the same code of every plugin from the plan to the last cell, in every process\n"
        "  fix: leave plugin files alone while they run, install one version everywhere; then run it again",
    ),
    (
        UndeclaredNeedError("extra", "holdouts", {"extra"}),
        "method 'extra' used 'holdouts', which it does not declare; it declares extra\n"
        "  expected: no use of it: boards compare methods by what they were shown\n"
        "  fix: leave `testbed.holdouts` alone: no method is shown what it is measured on",
    ),
    (
        UndeclaredNeedError("extra", "retain", {"forget", "extra"}),
        "method 'extra' used 'retain', which it does not declare; it declares extra, forget\n"
        "  expected: 'retain' in `needs`, or no use of it: boards compare methods by what they were shown\n"
        "  fix: add \"retain\" to `needs` of the class that defines 'extra'",
    ),
    (
        UndeclaredNeedError("mine", "forget", []),
        "method 'mine' used 'forget', which it does not declare; it declares nothing\n"
        "  expected: 'forget' in `needs`, or no use of it: boards compare methods by what they were shown\n"
        "  fix: add \"forget\" to `needs` of the class that defines 'mine'",
    ),
]
ids = [f"{number}-{type(error).__name__}" for number, (error, _) in enumerate(TEXTS)]


@pytest.mark.parametrize(("error", "text"), TEXTS, ids=ids)
def test_the_whole_text(error: UnmemorizeError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize(("error", "text"), TEXTS, ids=ids)
def test_three_parts_survive_a_process_border(error: UnmemorizeError, text: str) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (again.what, again.expected, again.fix) == (error.what, error.expected, error.fix)
    assert str(again) == text


def test_every_error_class_has_its_text_tested() -> None:
    values = vars(errors).values()
    classes = {value for value in values if isinstance(value, type) and issubclass(value, UnmemorizeError)}
    assert classes == {type(error) for error, _ in TEXTS}
    assert {kind.__name__ for kind in classes} | {"CacheWarning", "listed", "nearest", "said_by"} == set(errors.__all__)


def test_every_error_is_one_that_users_can_correct() -> None:
    assert all(isinstance(error, UnmemorizeError) for error, _ in TEXTS)
    for error, _ in TEXTS:
        assert error.what
        assert error.expected
        assert error.fix


class TestNearest:
    def test_puts_likeness_first_and_the_rest_in_order(self) -> None:
        assert nearest("durabel", ["zebra", "extra", "durable"]) == ["durable", "extra", "zebra"]

    def test_keeps_to_its_limit_and_drops_doubles(self) -> None:
        assert nearest("a", ["b", "b", "c", "d"], most=2) == ["b", "c"]

    def test_of_nothing_is_nothing(self) -> None:
        assert nearest("a", []) == []
