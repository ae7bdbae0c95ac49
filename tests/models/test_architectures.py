"""Every architecture of the table, as a tiny model: its MLPs are found, and removing a neuron is exactly that."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._C._functorch import is_batchedtensor
from torch.overrides import TorchFunctionMode
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationMixin,
    MambaConfig,
    MambaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutput

import unmemorize
from unmemorize import Layout
from unmemorize.contracts.layout import MLP
from unmemorize.editing.edits import matrices_of, zero_neurons
from unmemorize.errors import LayoutError
from unmemorize.execution.architecture import find_mlps
from unmemorize.models.discovery import discover
from unmemorize.models.layouts import mlps_of
from unmemorize.registry.manager import Registry
from unmemorize.testing import tiny_sequences, tiny_testbed
from unmemorize.training.losses import sequence_losses
from unmemorize.unlearning.activations import neuron_activations

REGISTRY = Registry.load("none")

NAMED = {
    "vocab_size": 29, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
GPT = {"vocab_size": 29, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 0,
       "eos_token_id": 1}  # fmt: skip
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 12}
DEEPSEEK = {
    "n_routed_experts": 4, "n_shared_experts": 2, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1,
    "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 4,
    "num_key_value_heads": 4, **EXPERTS,
}  # fmt: skip
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "gpt2": GPT, "gptj": {**GPT, "rotary_dim": 4}, "gpt_bigcode": {**GPT, "n_inner": 24},
    "gpt_neo": {**NAMED, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
    "bloom": {**NAMED, "n_layer": 2, "n_head": 4}, "opt": {**NAMED, "ffn_dim": 24, "word_embed_proj_dim": 16},
    "falcon": {**NAMED, "num_kv_heads": 2, "new_decoder_architecture": True},
    "gemma": {**NAMED, "head_dim": 8}, "gemma2": {**NAMED, "head_dim": 4}, "gemma3_text": {**NAMED, "head_dim": 4},
    **{kind: {**NAMED, "head_dim": 4} for kind in ("helium", "ministral", "hunyuan_v1_dense", "glm", "glm4")},
    "qwen3": {**NAMED, "head_dim": 8},
    "mixtral": {**NAMED, "num_local_experts": 4, "num_experts_per_tok": 2},
    "olmoe": {**NAMED, "num_experts": 4, **EXPERTS},
    "qwen2_moe": {**NAMED, "num_experts": 4, "mlp_only_layers": [0], "decoder_sparse_step": 1,
                  "shared_expert_intermediate_size": 20, **EXPERTS},
    "qwen3_moe": {**NAMED, "num_experts": 4, **EXPERTS},
    "flex_olmo": {**NAMED, "num_experts": 4, **EXPERTS},
    "qwen3_next": {**NAMED, "num_experts": 4, "shared_expert_intermediate_size": 20, "head_dim": 8, "layer_types":
                   ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 4,
                   "linear_key_head_dim": 4, "linear_value_head_dim": 4, **EXPERTS},
    "glm4_moe": {**NAMED, **DEEPSEEK}, "dots1": {**NAMED, **DEEPSEEK}, "minimax_m2": {**NAMED, "num_local_experts": 4,
    "num_experts_per_tok": 2, "head_dim": 4, "rotary_dim": 4},
    "ernie4_5_moe": {**NAMED, "moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 2, **EXPERTS},
    "deepseek_v2": {**NAMED, **DEEPSEEK}, "deepseek_v3": {**NAMED, **DEEPSEEK},
    "gpt_oss": {**NAMED, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 4, "rope_parameters":
                {"rope_type": "default", "rope_theta": 10000.0}},
    "llama4_text": {**NAMED, "num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size_mlp": 20,
                    "interleave_moe_layer_step": 2, "head_dim": 4},
}  # fmt: skip
"""What a tiny model of a type needs beside the usual names."""

TYPES = REGISTRY.names("layout")
MIXTURES = tuple(kind for kind in TYPES if any(".experts." in names[-1] for names in REGISTRY.layout(kind).mlps))
OUTSIDE = re.compile(r"attn|attention|norm|ln_|router|mlp\.gate\.weight|shared_expert_gate|_bias$")
"""Names of a block's parameters that are no matrices of an MLP."""


def built(kind: str) -> PreTrainedModel:
    """Return a tiny model of the type with 2 blocks of width 16, random but always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SETTINGS.get(kind, NAMED)))
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
    return model.eval()  # type: ignore[no-any-return]


class Silenced(TorchFunctionMode):
    """Runs a model as if some inputs of one parameter were 0, whatever product the model's own code uses."""

    def __init__(self, weight: Tensor, input_first: bool, neurons: Sequence[int]) -> None:
        super().__init__()
        inputs = -2 if input_first else -1
        self.storage, self.expert = weight.untyped_storage().data_ptr(), weight[0].numel() if weight.ndim == 3 else 0
        self.width, self.neurons = weight.shape[inputs], neurons

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        where = [n for n, value in enumerate(args) if self._is_weight(value)]
        if where and where[0] > 0 and args[where[0] - 1].shape[-1] == self.width:
            place, weight = where[0], args[where[0]]
            args = (*args[: place - 1], self._silent(args[place - 1], weight), *args[place:])
        return func(*args, **(kwargs or {}))

    def _is_weight(self, value: object) -> bool:
        if not isinstance(value, Tensor) or is_batchedtensor(value):  # a mask, made under vmap
            return False
        return value.untyped_storage().data_ptr() == self.storage

    def _silent(self, entering: Tensor, weight: Tensor) -> Tensor:
        silent = entering.clone()
        for neuron in self.neurons:
            expert, own = divmod(neuron, self.width)
            if weight.ndim == 3:  # all experts in one product
                silent[expert, :, own] = 0
            elif not self.expert or weight.storage_offset() == expert * self.expert:
                silent[..., own] = 0
        return silent


@pytest.fixture(params=TYPES)
def model(request: pytest.FixtureRequest) -> Iterator[PreTrainedModel]:
    return built(request.param)


def mlps_in(model: PreTrainedModel) -> tuple[MLP, ...]:
    found = find_mlps(model, REGISTRY)
    assert not found.note
    return found.mlps


def logits(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        return model(input_ids=tiny_sequences(3, seed=9).inputs()).logits  # type: ignore[no-any-return]


def test_enough_architectures_are_known() -> None:
    assert len(TYPES) >= 35
    assert {"mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v3", "gpt_oss", "olmoe", "llama4_text"} <= set(MIXTURES)


def test_the_matrices_are_all_weights_of_mlps_and_no_others(model: PreTrainedModel) -> None:
    kind = model.config.model_type
    blocks = REGISTRY.layout(kind).blocks
    shapes = {name: value for name, value in model.named_parameters() if name.startswith(blocks) and value.ndim > 1}
    found = matrices_of(mlps_in(model))
    assert found.keys() == {name for name in shapes if not OUTSIDE.search(name)}
    assert all(matrix.weight is shapes[name] for name, matrix in found.items())
    every = [matrix.name for mlp in mlps_in(model) for matrix in mlp.block_matrices()]
    others = set(shapes) - set(every)
    assert len(set(every)) == len(every)
    assert all(re.search(r"router|mlp\.gate\.weight|shared_expert_gate|_bias$|conv1d", name) for name in others)


def test_removing_a_neuron_is_what_silencing_its_input_does(model: PreTrainedModel) -> None:
    model.config._experts_implementation = "eager"
    for index, mlp in enumerate(mlps_in(model)):
        strong: list[Tensor] = []
        with neuron_activations(
            [mlp], lambda _, activations, strong=strong: strong.append(activations.abs().sum((0, 1)))
        ):
            whole = logits(model)
        neurons = [*strong[0].topk(2).indices.tolist(), mlp.neurons - 1]
        before = mlp.down.weight.detach().clone()
        with Silenced(mlp.down.weight, mlp.down.stores_input_first, neurons):
            expected = logits(model)
        zero_neurons([mlp], [torch.isin(torch.arange(mlp.neurons), torch.tensor(neurons))])
        assert torch.allclose(logits(model), expected, atol=2e-5), index
        assert not torch.allclose(expected, whole, atol=1e-3), index
        mlp.down.weight.data.copy_(before)


def test_a_silent_neuron_is_a_removed_one(model: PreTrainedModel) -> None:
    mlps = mlps_in(model)
    masks = [torch.arange(mlp.neurons) % 3 == 0 for mlp in mlps]
    whole = logits(model)
    with neuron_activations(mlps, lambda index, activations: activations.masked_fill(masks[index], 0.0)):
        expected = logits(model)
    with neuron_activations(mlps, lambda index, activations: None):
        assert torch.allclose(logits(model), whole, atol=2e-5)
    zero_neurons(mlps, masks)
    assert torch.allclose(logits(model), expected, atol=2e-5)
    assert not torch.allclose(whole, expected, atol=1e-3)


@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind not in MIXTURES])
def test_structure_alone_finds_what_the_table_says(kind: str) -> None:
    model = built(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    by_structure = matrices_of(mlps_of(model, discover(model)))
    assert by_structure.keys() == matrices_of(mlps_in(model)).keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


METHODS = ("durable", "random_weights", "random_neurons", "activations", "slimming", "zero_out", "second_order")


@pytest.mark.parametrize("method", METHODS)
def test_methods_act(model: PreTrainedModel, method: str) -> None:
    testbed = tiny_testbed(model, mlps_in(model))
    acting = REGISTRY.method(method)(ratio=0.1) if method != "slimming" else REGISTRY.method(method)(max_steps=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert acting.supports(testbed) is None
    acting.apply(testbed, unmemorize.Context())
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert changed <= matrices_of(testbed.mlps).keys()


@pytest.mark.parametrize("kind", MIXTURES)
def test_zero_out_is_exact_for_experts(kind: str) -> None:
    testbed = tiny_testbed(built(kind))
    method = REGISTRY.method("zero_out")()
    scores = method.attribute(testbed, unmemorize.Context()).split([mlp.neurons for mlp in testbed.mlps])
    whole = losses(testbed)
    for mlp, own in zip(testbed.mlps, scores, strict=True):
        kept = mlp.down.weight.detach().clone()
        for neuron in [*own.abs().topk(2).indices.tolist(), 0]:
            zero_neurons([mlp], [torch.arange(mlp.neurons) == neuron])
            assert float(own[neuron]) == pytest.approx(float((losses(testbed) - whole).mean()), rel=1e-3, abs=1e-5)
            mlp.down.weight.data.copy_(kept)


def losses(testbed: unmemorize.Testbed) -> Tensor:
    with torch.no_grad():
        return sequence_losses(testbed.model, testbed.forget.cut(), tokens="suffix")


class HomemadeConfig(PretrainedConfig):
    model_type = "homemade"

    def __init__(self, experts: int = 0, **settings: Any) -> None:
        self.hidden_size, self.num_hidden_layers, self.vocab_size, self.experts = 16, 2, 29, experts
        super().__init__(**settings)


class Routed(nn.Module):
    """Every expert takes the tokens that its number is the remainder of."""

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16)) for _ in range(experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = [expert(x[:, n :: len(self.experts)]) for n, expert in enumerate(self.experts) if n < x.shape[1] - 4]
        return nn.functional.pad(torch.cat(parts, dim=1), (0, 0, 0, x.shape[1]))[:, : x.shape[1]]


class HomemadeBlock(nn.Module):
    """Attention and a bilinear MLP side by side, with a norm behind the MLP."""

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.mix, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.left, self.right, self.back = nn.Linear(16, 20), nn.Linear(16, 20), nn.Linear(20, 16)
        self.before, self.behind = nn.LayerNorm(16), nn.LayerNorm(16)
        self.more = Routed(experts) if experts else None

    def forward(self, x: Tensor) -> Tensor:
        seen = self.before(x)
        attended = nn.functional.scaled_dot_product_attention(*self.mix(seen).chunk(3, dim=-1), is_causal=True)
        wide = torch.tanh(self.left(seen)) * self.right(seen)
        x = x + self.behind(self.back(wide)) + self.out(attended)
        return x if self.more is None else x + self.more(x)


class Homemade(PreTrainedModel, GenerationMixin):
    """A model of a type without a layout."""

    config_class = HomemadeConfig
    base_model_prefix = "core"

    def __init__(self, config: HomemadeConfig) -> None:
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, 16)
        self.stages = nn.ModuleList(HomemadeBlock(config.experts) for _ in range(config.num_hidden_layers))
        self.head = nn.Linear(16, config.vocab_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.words

    def forward(self, input_ids: Tensor, **_: Any) -> CausalLMOutput:
        hidden = self.words(input_ids)
        for stage in self.stages:
            hidden = stage(hidden)
        return CausalLMOutput(logits=self.head(hidden))


def homemade(**settings: Any) -> Homemade:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Homemade(HomemadeConfig(**settings)).eval()


FORGET = [[3, 9, 5, 7, 11, 4, 8, 6], [12, 4, 9, 15, 3, 20, 7, 5]]


def test_an_undescribed_type_is_found_by_structure_and_flagged() -> None:
    done = unmemorize.mitigate(homemade(), method="durable", forget=FORGET, registry=REGISTRY)
    assert done.edited > 0
    assert "layout-by-structure" in done.flags
    row = "Layout(model_types=('homemade',), blocks='stages', mlps=(('left', 'right', 'back'),))"
    assert done.notes["layout"] == (f"no layout is registered for model type 'homemade'; found by structure: {row}")
    finetuned = unmemorize.mitigate(homemade(), method="random_weights", forget=FORGET, registry=REGISTRY)
    assert "layout-by-structure" in finetuned.flags


def test_what_was_found_is_confirmed_as_a_row_of_a_plugin() -> None:
    model = homemade()
    row = discover(model)
    own = Registry.load("none")
    own.add(SimpleNamespace(register_layouts=unmemorize.hookimpl(lambda: [row])), name="mine")
    assert find_mlps(model, own).note == ""
    done = unmemorize.mitigate(model, method="durable", forget=FORGET, registry=own)
    assert "layout-by-structure" not in done.flags


def mamba() -> PreTrainedModel:
    return MambaForCausalLM(MambaConfig(**NAMED, state_size=4)).eval()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (mamba, "block 0 has no linear map that feeds the residual stream"),
        (lambda: homemade(experts=3), "block 0 does not run more.experts.0.0 once"),
    ],
)
def test_what_structure_does_not_tell_is_refused_with_the_methods_that_act(make: Any, reason: str) -> None:
    model = make()
    with pytest.raises(LayoutError, match=reason):
        discover(model)
    with pytest.raises(unmemorize.ConfigError) as caught:
        unmemorize.mitigate(model, method="durable", forget=FORGET, registry=REGISTRY)
    assert reason in caught.value.what
    named = caught.value.what.rpartition("with the data that they need: ")[2]
    assert named == "both (clean, extra), clean (clean), extra (extra)"


def test_a_row_that_does_not_fit_gives_way_to_structure() -> None:
    wrong = Registry()
    row = Layout(model_types=("llama",), blocks="model.layers", mlps=(("mlp.fc_in", "mlp.down_proj"),))
    wrong.add(SimpleNamespace(register_layouts=unmemorize.hookimpl(lambda: [row])), name="mine")
    model = built("llama")
    with pytest.raises(LayoutError, match=r"model.layers.0 lacks mlp.fc_in"):
        mlps_of(model, row)
    found = find_mlps(model, wrong)
    assert matrices_of(found.mlps).keys() == matrices_of(mlps_in(model)).keys()
    assert found.note.startswith("the layout of llama does not fit this model: model.layers.0 lacks mlp.fc_in; found")
