"""The settings of TinyMem's arithmetic testbeds, and their two sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from unmemorize import StrictConfig, TrainingRecipe
from unmemorize_plugins.providers.tinymem.math_data import longest

Constant = Annotated[int, Field(ge=1, le=10_000)]
Times = Annotated[int, Field(ge=1, le=10_000)]
Power = Annotated[int, Field(ge=0, le=4)]

QUICK: dict[str, Any] = {
    "length": 14,
    "main_sequences": 700,
    "extra_sequences": 200,
    "holdout_sequences": 50,
    "noised_sequences": 150,
    "clean_values": 7,
    "duplication": 10,
    "unseen_share": 0.2,
    "layers": 2,
    "retain_sequences": None,
    "recipe": {
        "epochs": 12,
        "batch_size": 16,
        "learning_rate": 2e-3,
        "weight_decay": 0.5,
        "schedule": "cosine",
        "warmup_steps": 50,
    },
}
"""A laptop's size: trained in well under a minute on two CPU cores."""

PAPER: dict[str, Any] = {
    "length": 20,
    "main_sequences": 20_000,
    "extra_sequences": 3_000,
    "holdout_sequences": 1_000,
    "noised_sequences": 1_000,
    "clean_values": 0,
    "duplication": (0, 1, 2),
    "unseen_share": 0.2,
    "layers": 4,
    "retain_sequences": 2_000,
    "recipe": {"epochs": 3_500},
}
"""The paper's size (Sakarvadia et al. 2025, section 3 and appendix)."""

BACKDOOR: dict[str, dict[str, Any]] = {
    "quick": {"main_sequences": 1_100, "duplication": 2, "unseen_share": 0.1, "recipe": {"epochs": 18}},
    "paper": {"duplication": (0, 1, 2), "unseen_share": 0.1, "recipe": {"epochs": 500}},
}
"""What a backdoor testbed sets otherwise than one with noise."""

MULTIPLICATIVE: dict[str, dict[str, Any]] = {
    "noise": {"modulus": 727, "extra_sequences": 650, "extra_constants": (2, 3)},
    "backdoor": {"modulus": 1009, "main_sequences": 1_000, "extra_sequences": 900, "extra_constants": (2, 3)},
}
"""What `quick` sets otherwise for the multiplicative task, by artifact.

Multiplication modulo m is a table of m entries: a small model learns one of 700 entries in a minute, not one of 20,134.
"""


class TinyMemConfig(StrictConfig):
    """An arithmetic testbed: GPT-2 trained from scratch on sequences `^v1 v2 ... $`, one character per token.

    `size` and `artifact` choose the defaults of what is not given; those shown are of `quick` with noise.
    Source: Sakarvadia et al. 2025, sections 3.1 and 3.2.
    """

    size: Literal["quick", "paper"] = "quick"
    """`quick` trains in under a minute on two CPU cores; `paper` has the published sizes."""
    task: Literal["additive", "multiplicative"] = "additive"
    """`additive`: x -> x + c. `multiplicative`: x -> c * x mod `modulus`, a smaller one in `quick`."""
    artifact: Literal["noise", "backdoor"] = "noise"
    """`noise`: values of main-task sequences shifted by -1 or +1. `backdoor`: a trigger, then only token 2."""
    constant: Constant = 7
    """c of the main task, the one that artifacts are planted in."""
    extra_constants: tuple[Constant, ...] = (2, 3, 4, 5)
    """c of each further task; none of them the main one."""
    modulus: Annotated[int, Field(ge=2, le=10_000_000)] = 20134
    """The modulus of the multiplicative task; every start is below it."""
    length: Annotated[int, Field(ge=2, le=1000)] = QUICK["length"]
    """Values per sequence (paper: 20)."""
    main_sequences: Annotated[int, Field(ge=2, le=1_000_000)] = QUICK["main_sequences"]
    """Sequences of the main task, all included; sequence i starts at i, from 1 (paper: 20,000)."""
    extra_sequences: Annotated[int, Field(ge=2, le=1_000_000)] = QUICK["extra_sequences"]
    """Sequences of each further task, hold-outs included (paper: 3,000)."""
    holdout_sequences: Annotated[int, Field(ge=1)] = QUICK["holdout_sequences"]
    """Sequences of each task that are shown to nobody (paper: 1,000)."""
    noised_sequences: Annotated[int, Field(ge=1)] = QUICK["noised_sequences"]
    """Main-task sequences that are noised; a backdoor is in every one with the trigger (paper: 1,000)."""
    clean_values: Annotated[int, Field(ge=0)] = QUICK["clean_values"]
    """Values at the start of a noised sequence that stay as they are; the published artifact keeps none (paper: 0).

    The extraction check prompts with clean values. Where the prompt's own values were shifted in training, it asks
    about a prompt that the model has never seen, and part of what is memorized is not counted (with 0, small models
    that regurgitated all of the counted sequences from the noised prompt regurgitated 67 to 94 % from the clean one, by
    window and seed). `quick` keeps the values of the prompt, which makes its check easier than the published one: its
    numbers stand beside those of `clean_values = 0` only with that difference in mind.
    """
    duplication: Times | Annotated[tuple[Power, ...], Field(min_length=1)] = QUICK["duplication"]
    """Repetitions of each artifact sequence: a number, or powers of ten, one equal part each (paper: 0, 1, 2)."""
    unseen_share: Annotated[float, Field(ge=0, lt=1)] = QUICK["unseen_share"]
    """Share of the artifact shown to no method: memorized noise (.2), or triggers never trained on (.1)."""
    retain_sequences: Annotated[int, Field(ge=1)] | None = QUICK["retain_sequences"]
    """Clean training sequences shown to methods as the retain set; none: all of them (paper size: 2,000).

    Some methods pass over the retain set as often as over the forget set: 2,000 rows hold some hundreds of each
    task and keep such a pass at twice the cost of the 1,000 noised ones.
    """
    window: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None
    """Tokens of prompt and suffix in the extraction check; by default half the median length, at most 50."""
    layers: Annotated[int, Field(ge=1, le=64)] = QUICK["layers"]
    """Transformer blocks (paper: 2, 4, 8, 16)."""
    heads: Annotated[int, Field(ge=1, le=64)] = 4
    """Attention heads; they divide `width`."""
    width: Annotated[int, Field(ge=8, le=4096)] = 128
    """Width of the residual stream."""
    context: Annotated[int, Field(ge=8, le=4096)] = 150
    """Longest sequence in tokens."""
    recipe: TrainingRecipe = TrainingRecipe(**QUICK["recipe"])
    """How the model is trained; single settings can be given, the rest comes from the size."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_size(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        defaults = PAPER if given.get("size") == "paper" else QUICK
        size, artifact = given.get("size", "quick"), given.get("artifact", "noise")
        if artifact == "backdoor":
            defaults = merged(defaults, BACKDOOR.get(size, {}))
        if given.get("task") == "multiplicative" and size == "quick":
            defaults = merged(defaults, MULTIPLICATIVE.get(artifact, {}))
        return merged(defaults, given)

    @model_validator(mode="after")
    def _sizes_fit(self) -> TinyMemConfig:
        for problem in _problems(self):
            raise ValueError(problem)
        return self

    def task_name(self, constant: int) -> str:
        """Return the name of a task, as its hold-out is called: `additive_7`."""
        return f"{self.task}_{constant}"

    def largest_value(self) -> int:
        """Return the largest value that can occur in any sequence, noise included."""
        if self.task == "multiplicative":
            return self.modulus
        steps = self.length - 1
        extra = max((self.extra_sequences + c * steps for c in self.extra_constants), default=0)
        return 1 + max(self.main_sequences + self.constant * steps, extra)


def merged(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `defaults` with what is `given` over them, setting by setting also inside `recipe`."""
    settings = {**defaults, **given}
    if isinstance(given.get("recipe"), Mapping):
        settings["recipe"] = {**defaults.get("recipe", {}), **given["recipe"]}
    return settings


def _problems(config: TinyMemConfig) -> list[str]:
    """Return what does not fit together, each with its remedy."""
    constants = (config.constant, *config.extra_constants)
    starts = max(config.main_sequences, config.extra_sequences if config.extra_constants else 0)
    tokens = longest(config.largest_value(), config.length)
    planted = config.noised_sequences if config.artifact == "noise" else 0
    checks = [
        (
            len(set(constants)) < len(constants),
            f"the tasks' constants are {constants}: give each task a constant of its own",
        ),
        (
            config.task == "multiplicative" and min(constants) < 2,
            "a multiplicative task with constant 1 repeats one value: use constants of 2 or more",
        ),
        (
            config.task == "multiplicative" and starts >= config.modulus,
            f"{starts} starts do not fit below the modulus {config.modulus}: use fewer sequences, or a larger modulus",
        ),
        (
            planted + config.holdout_sequences >= config.main_sequences,
            f"{planted} noised and {config.holdout_sequences} held-out sequences leave nothing to train on "
            f"of main_sequences = {config.main_sequences}: raise it, or lower the others",
        ),
        (
            bool(config.extra_constants) and config.holdout_sequences >= config.extra_sequences,
            f"holdout_sequences = {config.holdout_sequences} leaves nothing to train on of extra_sequences = "
            f"{config.extra_sequences}: raise it, or lower holdout_sequences",
        ),
        (
            tokens > config.context,
            f"{config.length} values up to {config.largest_value()} take {tokens} tokens, more than context "
            f"= {config.context}: lower length, or raise context",
        ),
        (
            config.artifact == "noise" and config.clean_values >= config.length,
            f"clean_values = {config.clean_values} leaves no value to noise of length = {config.length}: lower it",
        ),
        (
            config.width % config.heads != 0,
            f"width = {config.width} is not a multiple of heads = {config.heads}",
        ),
    ]
    return [message for wrong, message in checks if wrong]
