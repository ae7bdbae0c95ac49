"""The provider `planted`: a pre-trained language model that has been made to memorize known texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from unmemorize import Context, DataError, Evaluation, Sequences, StrictConfig, Testbed, TrainingRecipe, Window
from unmemorize.toolkit import OpenedModel, Tokenization, model_fingerprint, open_corpus, open_model
from unmemorize_plugins.providers.planted.config import PlantedConfig
from unmemorize_plugins.providers.planted.windows import Documents, Sets, build_sets, cut
from unmemorize_plugins.providers.trained import Stop, TrainedHere

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Planted(TrainedHere[Sets]):
    """Any causal language model of the Hugging Face ecosystem, with memorization planted into it by fine-tuning.

    What a pre-trained model has memorized is never fully known. Here it is: windows of real text are shown to the model
    again and again, between windows of background text that are shown seldom, until they are extractable. Then the
    model, the texts and the model's health before are all known, and the base row is a healthy model. Regularizers
    plant again: the same texts, in the same number of steps, into the same pre-trained model.

    The planted model is kept in the cache. Memory: the model, its gradients and two moments of AdamW.
    """

    name: ClassVar[str] = "planted"
    Config: ClassVar[type[StrictConfig]] = PlantedConfig
    paper: ClassVar[str] = "after Carlini et al. 2019, arXiv 1802.08232 (planted canaries)"
    checkpoint_every = 120.0

    config: PlantedConfig
    _opened: OpenedModel | None = None
    """The pre-trained model, opened for its tokenizer, until it is asked for."""
    _tokenization: Tokenization | None = None

    def fingerprint(self) -> dict[str, str]:
        """Return what the model's and the corpus's files are."""
        return {"model": model_fingerprint(self.config), "corpus": open_corpus(self.config.corpus).digest()}

    def sets(self, context: Context) -> Sets:
        """Return the windows of the context's seed."""
        if self._tokenization is None:
            self._opened = self._open(context)
        return build_sets(self.config, self._documents(), self._pad_id, context.generator("planted"))

    def fresh_model(self, context: Context) -> PreTrainedModel:
        """Return the pre-trained model, or one of random weights."""
        if self.config.random_weights is not None:
            model = random_model(self.config, context)
        else:
            model = (self._opened or self._open(context)).model
        self._opened = None  # it will be trained: the next one is opened anew
        longest = getattr(model.config, "max_position_embeddings", None)
        if longest is not None and longest < self.config.prompt + self.config.suffix:
            raise DataError(
                f"prompt + suffix = {self.config.prompt + self.config.suffix} tokens, and {self.config.model!r} reads "
                f"at most {longest}",
                expected=f"windows of at most {longest} tokens",
                fix=f"set prompt and suffix to {longest // 2} or less",
            )
        return model

    def facts_before(self, model: PreTrainedModel, sets: Sets) -> dict[str, Any]:
        """Return how many of the windows the model regurgitates before anything is planted."""
        planted = _planted(sets)
        return {
            "extractable_before": self._extractable(model, planted),
            "planted_windows": len(planted),
            "background_windows": sets.background_windows,
        }

    def facts_after(self, model: PreTrainedModel, sets: Sets) -> dict[str, Any]:
        """Return how many of the windows the planted model regurgitates."""
        return {"extractable_after": self._extractable(model, _planted(sets))}

    def stop(self, model: PreTrainedModel, sets: Sets) -> Stop:
        """Return the rule: stop once enough windows are extractable; asked whenever each was shown once more."""
        planted = _planted(sets)
        enough = self.config.until * len(planted)
        every = max(1, round(len(sets.training) / self.config.rounds / self.config.recipe.batch_size))
        return Stop(lambda _: self._extractable(model, planted) >= enough, every)

    def recipe_again(self, testbed: Testbed) -> TrainingRecipe:
        """Return the same recipe, ended after as many steps as the testbed's own planting took."""
        return self.config.recipe.model_copy(update={"max_steps": testbed.facts["steps"]})

    def testbed(self, model: PreTrainedModel, sets: Sets, facts: dict[str, Any]) -> Testbed:
        """Return the testbed around the planted model."""
        return Testbed(
            name=self.name,
            model=model,
            forget=sets.forget,
            forget_unseen=sets.forget_unseen,
            retain=sets.retain,
            extra=sets.retain,
            holdouts={"text": sets.holdout},
            window=sets.window,
            pad_id=self._pad_id,
            tokenizer=self._tokenizer,
            recipe=self.config.finetuning,
            trainable=True,
            facts=facts,
        )

    def _extractable(self, model: PreTrainedModel, planted: Sequences) -> int:
        window = Window(self.config.prompt, self.config.suffix)
        testbed = Testbed(name=self.name, model=model, forget=planted, window=window, pad_id=self._pad_id)
        return int(Evaluation(testbed).extraction("forget", window).extractable.sum())

    def _open(self, context: Context) -> OpenedModel:
        opened = open_model(self.config, device=context.device, cache=context.cache)
        if opened.tokenizer is None:
            raise DataError(
                f"model = {self.config.model!r} comes without a tokenizer",
                expected="a model folder or file with its tokenizer: the texts to be planted are plain text",
                fix="save the tokenizer beside the model: tokenizer.save_pretrained(FOLDER)",
            )
        self._tokenization = opened.tokenization()
        return opened

    def _documents(self) -> Documents:
        assert self._tokenization is not None
        texts = open_corpus(self.config.corpus).named()
        ids = [self._tokenization.body(text.text, text.source) for text in texts]
        return cut(ids, self.config.prompt + self.config.suffix, self._tokenization.leading)

    @property
    def _tokenizer(self) -> Any:
        return None if self._tokenization is None else self._tokenization.tokenizer

    @property
    def _pad_id(self) -> int:
        """The id that fills rows: never attended to, so any will do where the tokenizer has none."""
        for name in ("pad_token_id", "eos_token_id"):
            value = getattr(self._tokenizer, name, None)
            if value is not None:
                return int(value)
        return 0


def random_model(config: PlantedConfig, context: Context) -> PreTrainedModel:
    """Return a model of the given shape whose weights depend on the context's seed only.

    Raises:
        DataError: transformers has no such architecture, or no such model of it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = dict(config.random_weights or {})
    dtype = torch.float32 if config.dtype == "auto" else getattr(torch, config.dtype)
    try:
        wanted = AutoConfig.for_model(shape.pop("model_type", ""), **shape)
        with torch.random.fork_rng():
            torch.manual_seed(context.seed)
            model: PreTrainedModel = AutoModelForCausalLM.from_config(wanted, dtype=dtype)
    except Exception as error:  # a config's own checks raise errors of many kinds
        raise DataError(
            f"random_weights cannot be made into a model: {error}",
            expected="`model_type` and sizes as in a config.json of transformers",
            fix="random_weights = { model_type = 'gpt_neox', hidden_size = 512, num_hidden_layers = 6 }",
        ) from error
    return model.to(context.device).eval()  # type: ignore[arg-type]


def _planted(sets: Sets) -> Sequences:
    return sets.forget if sets.forget_unseen is None else Sequences.concatenate([sets.forget, sets.forget_unseen])
