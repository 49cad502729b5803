"""A local causal language model as judge: which of two labels it finds likelier after the question. Writes nothing."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from ...data.batch import indexed
from ...data.collator import DataCollatorForUnlearning
from ...errors import input_error, require_range
from ...model.fingerprints import hash_samples
from ...model.head_query import TokenReadout
from ...model.loading import load_tokenizer, loading
from ...model.output_head import output_head
from ...model.score_rows import evaluation_mode
from ...model.scoring import score_answers, sum_rows
from .judge import not_loadable, source_name
from .replies import Reply, ReplySource

_IGNORED = -100
# Models that think before they answer would put a thought where a label is expected.
_NO_THOUGHT = {"enable_thinking": False}


class LabelLikelihoods(ReplySource):
    """P(label | question) of two labels under a local model, as shares: exp(l_1) / (exp(l_1) + exp(l_2)).

    l is the sum of the log-probs of a label's tokens after the question, which is written by the tokenizer's chat
    template where it has one, and else followed by "Verdict:". Nothing is generated and no text is parsed, so that
    every question has a reply, unless it is longer than the model has room for: it is not cut, as the leak may be in
    what would be cut off.

    Args:
        model: folder, id on the Hub, or a loaded causal language model.
        tokenizer: of a loaded model.
        revision: commit, branch or tag on the Hub.
        batch_size: questions of one forward; the result does not depend on it.
        device: of a model that is loaded here; the accelerator if there is one, else the CPU.
        dtype: of a model that is loaded here; "auto" for that of its files.

    Raises:
        ValueError: a model that cannot be loaded, or a loaded one without its tokenizer.
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        revision: str | None = None,
        batch_size: int = 16,
        device: str | torch.device | None = None,
        dtype: str = "auto",
    ) -> None:
        require_range("batch_size", batch_size, at_least=1, whole=True)
        self.batch_size = batch_size
        if isinstance(model, str | Path):
            self._source = source_name(model)
            self._model, self._tokenizer = _load(model, self._source, revision, dtype)
            accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
            self._model.to(torch.device(device if device is not None else accelerator or "cpu"))
        else:
            if tokenizer is None:
                raise input_error(
                    expected="tokenizer=... with a loaded model",
                    got="none",
                    why="the questions become tokens by it",
                    fix="pass the model's own tokenizer, or the model's name instead",
                )
            self._source, self._model, self._tokenizer = source_name(model.name_or_path), model, tokenizer
        commit = getattr(self._model.config, "_commit_hash", None)
        # Of a folder there is no commit: some values of every tensor say which weights they are.
        self.version = str(commit or revision or hash_samples(self._model.named_parameters()) or "")[:12]

    @property
    def name(self) -> str:
        """Model and version: the commit on the Hub, else a hash of weights."""
        return f"{self._source}@{self.version}" if self.version else self._source

    def record(self) -> dict[str, Any]:
        """Where it runs is here: no answer leaves the machine."""
        return {"model": self._source, "version": self.version, "place": "local", "scored_by": "label likelihood"}

    def replies(self, questions: Sequence[str], labels: tuple[str, str]) -> tuple[list[Reply], dict[str, Any]]:
        """The share of the first label; an error for questions without room, and for logits that are no numbers."""
        ends = [self._label_ids(label) for label in labels]
        prompts = [self._prompt_ids(question) for question in questions]
        room = self._room() - max(map(len, ends))
        asked = sorted((i for i, ids in enumerate(prompts) if len(ids) <= room), key=lambda i: -len(prompts[i]))
        found = [Reply(None, "longer than the judge can read")] * len(questions)
        for start in range(0, len(asked), self.batch_size):
            places = asked[start : start + self.batch_size]
            first, second = self._log_likelihoods([prompts[i] for i in places], ends)
            # The same as exp(l_1) / (exp(l_1) + exp(l_2)), where these would round to 0.
            for place, share in zip(places, torch.sigmoid(first - second).tolist(), strict=True):
                found[place] = Reply(None, "not a number") if math.isnan(share) else Reply(share)
        return found, {}

    def _log_likelihoods(self, prompts: list[list[int]], ends: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Of both labels after each prompt, each [prompts] in fp64."""
        if all(len(ids) == 1 for ids in ends):
            # Both are read at one place: half the work, and the rule for models whose words are tokens.
            pair = torch.tensor([ids[0] for ids in ends])
            readout = TokenReadout("labels", None, partial(_read, pair), width=2)
            read = self._score([(ids, ends[0]) for ids in prompts], [readout]).readouts["labels"]
            return read[:, 0].double(), read[:, 1].double()
        scores = self._score([(ids, end) for end in ends for ids in prompts])
        first, second = sum_rows(scores.logps.double(), scores.lengths).split(len(prompts))
        return first, second

    def _score(self, rows: list[tuple[list[int], list[int]]], readouts: Sequence[TokenReadout] = ()) -> Any:
        """Scores of rows of prompt and label, one forward."""
        tokens = [
            {"input_ids": prompt + end, "labels": [_IGNORED] * len(prompt) + end, "row": place}
            for place, (prompt, end) in enumerate(rows)
        ]
        padding = self._tokenizer.pad_token_id
        collator = DataCollatorForUnlearning(padding if padding is not None else 0)  # masked, whichever it is
        batch = {key: value.to(self._model.device) for key, value in indexed(collator.collate_rows(tokens)).items()}
        with evaluation_mode(self._model):
            scores, _ = score_answers(self._model, output_head(self._model), batch, readouts=readouts)
        return scores

    def _prompt_ids(self, question: str) -> list[int]:
        if self._tokenizer.chat_template is None:
            return self._tokenizer(question + "\nVerdict:", verbose=False)["input_ids"]
        return self._tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=True, **_NO_THOUGHT
        )["input_ids"]

    def _label_ids(self, label: str) -> list[int]:
        # Behind a chat template's generation prompt a word has no space in front.
        written = f" {label}" if self._tokenizer.chat_template is None else label
        return self._tokenizer(written, add_special_tokens=False)["input_ids"]

    def _room(self) -> int:
        positions = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        return min(positions or self._tokenizer.model_max_length, self._tokenizer.model_max_length)


def _read(pair: Tensor, logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
    """Log-probs of both labels: [t, V] -> [t, 2]."""
    return logits.float().log_softmax(-1)[:, pair.to(logits.device)]


def _load(
    model: str | Path, source: str, revision: str | None, dtype: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    path = str(Path(model).expanduser()) if Path(model).expanduser().is_dir() else str(model)
    try:
        with loading(source):
            loaded = AutoModelForCausalLM.from_pretrained(path, revision=revision, dtype=dtype)
        return loaded, load_tokenizer(path, revision)
    except (OSError, SafetensorError) as error:
        raise not_loadable(source, error, "a causal language model") from error
