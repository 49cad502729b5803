"""A model in memory as lm-evaluation-harness takes it. Imported only where the harness is installed."""

import contextlib
import copy
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import lm_eval.api.model
import lm_eval.api.task
import lm_eval.models.huggingface
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from ...data.chat_template import DATE_VARIABLE, ChatTemplate
from ...progress import bar

# Each of them imported tqdm under a name of its own.
_WITH_BARS: tuple[Any, ...] = (lm_eval.api.task, lm_eval.api.model, lm_eval.models.huggingface)


class InMemoryModel(lm_eval.models.huggingface.HFLM):
    """HFLM that counts its requests, and those among them that the model has too few positions for.

    The harness cuts such prompts from the left, and a prompt without its beginning is another task.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        tokenizer = copy.deepcopy(tokenizer)  # it may get a padding token, and its padding side is turned
        variables = dict(chat_template_kwargs or {})
        if isinstance(tokenizer.chat_template, str):
            tokenizer.chat_template = ChatTemplate(tokenizer, None, variables, "a task").source  # with a fixed date
        super().__init__(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=batch_size,
            chat_template_args={name: value for name, value in variables.items() if name != DATE_VARIABLE},
            # In the 16 bits of a model, options are often equal to the last bit, and the first one would win.
            softmax_dtype="float32",
        )
        self.requests = 0
        self.truncated = 0

    def _loglikelihood_tokens(self, requests: list[Any], *arguments: Any, **settings: Any) -> list[tuple[float, bool]]:
        self.requests += len(requests)
        # The last token is scored and never read.
        self.truncated += sum(len(prompt) + len(answer) > self.max_length + 1 for _, prompt, answer in requests)
        return super()._loglikelihood_tokens(requests, *arguments, **settings)

    def generate_until(self, requests: list[Any], *arguments: Any, **settings: Any) -> list[str]:
        self.requests += len(requests)
        for prompt, wanted in (request.args for request in requests):
            room = self.max_length - wanted.get("max_gen_toks", self.max_gen_toks)
            self.truncated += len(self.tok_encode(prompt)) > room
        return super().generate_until(requests, *arguments, **settings)


@contextlib.contextmanager
def left_as_it_is(model: Any) -> Iterator[None]:
    """Inside, the model ties no weights and generation settings are copies of its own.

    HFLM ties weights by the config: a head that was untied on purpose would be lost, and another model measured.
    """
    # A PeftModel hands its settings to its base model when it generates.
    holders = [model, model.get_base_model()] if isinstance(model, PeftModel) else [model]
    # What an object reads from the one it wraps is not its own, and is taken from it again.
    before = [(holder, "generation_config" in vars(holder), holder.generation_config) for holder in holders]
    model.tie_weights = lambda *_, **__: None
    try:
        for holder in holders:
            holder.generation_config = copy.deepcopy(holder.generation_config)
        yield
    finally:
        del model.tie_weights
        for holder, is_own, settings in before:
            if is_own:
                holder.generation_config = settings
            else:
                del holder.generation_config


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Progress bars on terminals only, and of the harness's log only errors: its warnings can quote documents."""
    logger = logging.getLogger("lm_eval")
    level, bars = logger.level, [module.tqdm for module in _WITH_BARS]
    try:
        logger.setLevel(logging.ERROR)
        for module in _WITH_BARS:
            module.tqdm = bar
        yield
    finally:
        logger.setLevel(level)
        for module, own in zip(_WITH_BARS, bars, strict=True):
            module.tqdm = own
