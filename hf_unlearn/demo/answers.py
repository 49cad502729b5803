"""Answers token by token, and scores of answers that are given: all work of models, on one thread of its own."""

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from ..data.batch import indexed
from ..data.collator import DataCollatorForUnlearning
from ..data.tokenized_row import IGNORED_LABEL, answer_start
from ..evaluation.decoding import Decoding, SeededSampling
from ..evaluation.generation import answer_room, generation_settings, left_padded, own_settings_aside
from ..evaluation.generation_trial import first_positions
from ..evaluation.stop_rule import StopRule
from ..model.output_head import output_head
from ..model.probe import probe_model
from ..model.score_rows import evaluation_mode
from ..model.scoring import score_answers
from ..tasks.shown_answers import encode_prompts
from .columns import Column
from .tokens import TextPieces, Token


class ModelThread:
    """The thread on which models work, one piece of work after another: columns share weights that are switched."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="models")
        self._closing = threading.Event()

    def answer(self, column: Column, prompt: str, decoding: Decoding) -> Iterator[Token]:
        """The tokens of a model's answer, each as soon as it is there. Closing the iterator ends the generation.

        Args:
            column: whose model answers.
            prompt: as a person wrote it; it is read as a prompt of the run's rows is.
            decoding: greedy, or drawn from a seed.

        Raises:
            ValueError: a prompt that is too long for a row of the run.
        """
        (ids,), ends = encode_prompts([prompt], column.options)
        stop = StopRule.of(column.model, column.tokenizer, ends)
        stream = _Stream(self._closing)
        work = self._executor.submit(_generate, column, stop, ids, decoding, stream)
        work.add_done_callback(stream.finish)
        pieces, answer = TextPieces(column.tokenizer, ids), []
        try:
            while (item := stream.arrived.get()) is not None:
                token_id, logp = item
                answer.append(token_id)
                ended = len(stop.strip(answer)) < len(answer)
                yield Token(pieces.add(token_id), logp, ended)
            work.result()
        finally:
            stream.cancelled.set()

    def score(self, column: Column, prompt: str, answer: str) -> list[Token]:
        """The tokens of a given answer, with the log-prob that a model gives each.

        Args:
            column: whose model scores.
            prompt: as a person wrote it; "" for a text that follows none.
            answer: the text, as a row's answer is written; what ends it is scored too.

        Raises:
            ValueError: no answer, or a row that is too long for the run.
        """
        return self._executor.submit(_score, column, prompt, answer).result()

    def close(self) -> None:
        """End what is under way, and the thread."""
        self._closing.set()
        self._executor.shutdown(wait=True, cancel_futures=True)


def read_prompt(column: Column, prompt: str) -> str:
    """A prompt as a column's model reads it, special tokens included."""
    (ids,), _ = encode_prompts([prompt], column.options)
    return str(column.tokenizer.decode(ids))


class _Stream(BaseStreamer):
    """Hands tokens with their log-probs from the thread of the models to who waits for them."""

    def __init__(self, closing: threading.Event) -> None:
        self.arrived: SimpleQueue[tuple[int, float] | None] = SimpleQueue()
        self.cancelled, self.closing = threading.Event(), closing
        # By step: `generate` may be a step ahead of the token that it puts.
        self.steps: deque[Tensor] = deque()
        self._prompt = True

    def put(self, value: Tensor) -> None:
        """Take what `generate` puts: the prompt first, then token after token."""
        if self._prompt:
            self._prompt = False
            return
        for token_id in value.flatten().tolist():
            self.arrived.put((token_id, float(self.steps.popleft()[token_id])))

    def end(self) -> None:
        """The last token was put; that the work has ended is told by `finish`."""

    def finish(self, _: Future[Any]) -> None:
        """No token follows: the answer has ended, or an error."""
        self.arrived.put(None)


class _Recorder(LogitsProcessor):
    """Keeps the log-probs of each step as the model gives them, before a temperature or a draw; changes nothing."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._stream.steps.append(scores[0].float().log_softmax(-1))
        return scores


class _Cancelled(StoppingCriteria):
    """Ends an answer that nobody waits for any more."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Any:
        ends = self._stream.cancelled.is_set() or self._stream.closing.is_set()
        return torch.full((len(input_ids),), ends, device=input_ids.device, dtype=torch.bool)


def _generate(column: Column, stop: StopRule, ids: list[int], decoding: Decoding, stream: _Stream) -> None:
    if stream.cancelled.is_set():
        return
    with column.active() as model, evaluation_mode(model), own_settings_aside(model):
        inputs = {n: value.to(model.device) for n, value in left_padded([ids], column.tokenizer.pad_token_id).items()}
        processors: list[LogitsProcessor] = [_Recorder(stream)]
        if decoding.temperature > 0:
            processors.append(SeededSampling([ids], decoding))
        model.generate(
            **inputs,
            **first_positions(inputs["attention_mask"], probe_model(model, model)),
            generation_config=generation_settings(stop, min(decoding.max_new_tokens, answer_room(model, len(ids)))),
            logits_processor=LogitsProcessorList(processors),
            stopping_criteria=StoppingCriteriaList([*stop.criteria([len(ids)]), _Cancelled(stream)]),
            streamer=stream,
        )


def _score(column: Column, prompt: str, answer: str) -> list[Token]:
    given = {"prompt": prompt, "completion": answer} if prompt else {"text": answer}
    (row,) = column.options.tokenize([given], "eval")
    start, labels, ids = answer_start(row), row["labels"], row["input_ids"]
    batch = indexed(DataCollatorForUnlearning(column.tokenizer.pad_token_id).collate_rows([row]))
    with column.active() as model, evaluation_mode(model):
        on_device = {name: value.to(model.device) for name, value in batch.items()}
        scores, _ = score_answers(model, output_head(model), on_device)
    # The first position of a row is predicted from nothing, and has no score.
    scored = [place for place in range(1, len(ids)) if labels[place] != IGNORED_LABEL]
    logps = dict(zip(scored, scores.logps.tolist(), strict=True))
    ends = StopRule.of(column.model, column.tokenizer, column.options.answer_ends([given], [row])).ends
    pieces = TextPieces(column.tokenizer, ids[:start])
    last = len(ids) - 1
    return [
        Token(pieces.add(ids[place]), logps.get(place), place == last and ids[place] in ends.tokens)
        for place in range(start, len(ids))
    ]
