"""In-context unlearning: every text is read behind examples in which forget prompts have other answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from ..data.tokenized_row import TokenizedRow, answer_ids, prompt_ids
from ..edits import EditData
from ..errors import input_error
from ..model.output_head import output_head
from ..model.suppressed_forward import Text
from .base import Suppression, Suppressor


@dataclass(frozen=True, eq=False)
class ContextSuppressor(Suppressor):
    """Token ids that the model reads before every text.

    Args:
        ids: [P], a token that begins a text included, where texts have one.
        first: that token, which each text then begins with in vain; -1 for none.
    """

    ids: Tensor
    first: int = -1

    name = "in_context"
    holds = "The examples hold forget prompts and retain rows word for word."

    def forward(self, model: Any, own: Callable[..., Any], inputs: dict[str, Any], text: Text) -> Any:
        rows, count = len(text.ids), len(self.ids)
        self._require_room(model, text)
        cache = inputs.get("past_key_values")
        if cache is None:
            cache = DynamicCache(config=model.config)
        ids = self.ids.to(text.ids.device).expand(rows, count)
        if cache.get_seq_length() == 0:
            with torch.no_grad():
                model.base_model(input_ids=ids, past_key_values=cache, use_cache=True)
        mask, starts = text.mask.clone(), text.mask.argmax(1, keepdim=True)
        # The examples have begun the text: what begins it once more is there and not seen.
        begun = text.ids.gather(1, starts) == self.first
        mask.scatter_(1, starts, (mask.gather(1, starts).bool() & ~begun).to(mask))
        whole = torch.cat([torch.ones_like(ids), mask], 1)
        inputs |= {"past_key_values": cache, "attention_mask": whole}
        if output_head(model).takes_positions:
            inputs["position_ids"] = (whole.cumsum(1) - 1)[:, -text.new :]
        output = own(**inputs)
        if not inputs.get("use_cache", True):
            output.past_key_values = None
        return output

    def _require_room(self, model: Any, text: Text) -> None:
        room = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        longest = int(text.mask.sum(1).max()) + len(self.ids)
        if room is not None and longest > room:
            raise input_error(
                expected=f"texts of at most {room - len(self.ids)} tokens behind {len(self.ids)} tokens of examples",
                got=f"one of {longest - len(self.ids)}",
                why=f"the model has {room} positions",
                fix="fit the suppression with fewer examples, or set a lower max_new_tokens",
            )


@dataclass(frozen=True)
class InContext(Suppression):
    """Puts an instruction and examples before every text: forget prompts with answers of retain rows, and retain rows.

    What the examples show is what unlearning is to give: a wrong answer to what is to be forgotten, the right one to
    all else. Models that do not learn from their context do not change much.

    Args:
        forget: forget prompts with the answer of a retain row, 0 or above.
        retain: retain rows as they are, 0 or above.
        instruction: text before them.
        share: of the model's positions that all of this may take, above 0 and below 1; examples that do not fit are
            left out.

    Paper: Pawelczyk et al. 2023, https://arxiv.org/abs/2310.07579.
    """

    forget: int = 4
    retain: int = 2
    instruction: str = ""
    share: float = 0.5

    name = "in_context"
    formula = "p(y | instruction, (x_forget, y_other)..., (x_retain, y_retain)..., x)"
    paper = "Pawelczyk et al. 2023, arXiv:2310.07579"
    fitted = ContextSuppressor
    cost = "nothing to fit; the examples are read before every batch"
    restores = "everything: the weights are those of the model before; an answer that quotes the examples shows them"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_not_negative("forget", "retain")
        self.require("share", 0 < self.share < 1, "above 0 and below 1")
        if not (self.forget or self.retain or self.instruction):
            raise self.argument_error("forget", "above 0, where there is no instruction and no retain row")

    def build(self, model: PreTrainedModel, data: EditData) -> ContextSuppressor:
        tokenizer = data.questioner.tokenizer
        begins = tokenizer.bos_token_id if _begins_with(data.forget, tokenizer.bos_token_id) else None
        ids = [] if begins is None else [begins]
        if self.instruction:
            ids += tokenizer(self.instruction, add_special_tokens=False)["input_ids"]
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or np.inf
        for example in self._examples(data):
            example = example[1:] if begins is not None and example[:1] == [begins] else example
            if len(ids) + len(example) <= self.share * positions:
                ids += example
        return ContextSuppressor(torch.tensor(ids), -1 if begins is None else begins)

    def _examples(self, data: EditData) -> list[list[int]]:
        generator = np.random.default_rng(data.seed)
        forget = generator.permutation(len(data.forget))[: self.forget].tolist()
        retain = np.resize(generator.permutation(len(data.retain)), len(forget) + self.retain).tolist()
        other = [data.retain[place] for place in retain]
        wrong = [[*prompt_ids(data.forget[i]), *answer_ids(row)] for i, row in zip(forget, other, strict=False)]
        examples = [*wrong, *(list(row["input_ids"]) for row in other[len(forget) :])]
        return [examples[place] for place in generator.permutation(len(examples))]


def _begins_with(rows: Sequence[TokenizedRow], token: int | None) -> bool:
    return token is not None and all(len(row["input_ids"]) and row["input_ids"][0] == token for row in rows)
