"""What an evaluation refuses before any work: models, tokenizers, rows and results that do not go together."""

from collections.abc import Mapping, Sequence
from typing import Any

from accelerate import Accelerator
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from transformers import PreTrainedTokenizerBase
from transformers.integrations import is_deepspeed_zero3_enabled

from ..data.pairing import TokenRow
from ..data.prepare import longest_row
from ..data.tokenization import prompt_ids
from ..errors import input_error
from .suite import Suite


def require_room(rows: Any, model: Any) -> None:
    """Raise where a tokenised set has a row that is longer than the model's positions."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and longest_row(rows, None) > positions:
        raise input_error(
            expected=f"rows of at most {positions} tokens, the model's max_position_embeddings",
            got=f"a row of {longest_row(rows, None)} tokens",
            why="the model has no positions for the rest",
            fix=f"build the suite with max_length={positions} or lower, which cuts such rows",
        )


def require_whole(model: Any) -> None:
    """Raise for a model whose parameters are split over ranks."""
    sharded = is_deepspeed_zero3_enabled() or isinstance(model, FullyShardedDataParallel)
    if sharded or any(isinstance(each, DTensor) for each in model.parameters()):
        raise input_error(
            expected="a model that is whole on every rank",
            got="one whose parameters are split over ranks (ZeRO-3 or FSDP)",
            why="ranks would have to generate in step, which they do not when their prompts differ",
            fix="save the model, load it with from_pretrained and evaluate that, or train with ZeRO-2 or DDP",
        )


def require_numbers(batch_size: int, generation_batch_size: int | None, temperature: float) -> None:
    """Raise for sizes below 1 and temperatures below 0."""
    sizes = {"batch_size": batch_size, "generation_batch_size": generation_batch_size}
    for name, size in sizes.items():
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise input_error(
                expected=f"{name} to be a whole number from 1 on",
                got=repr(size),
                why="it counts the rows of a batch",
                fix=f"pass {name}=32",
            )
    if not 0 <= temperature < float("inf"):
        raise input_error(
            expected="temperature to be 0 or a positive number",
            got=repr(temperature),
            why="answers are drawn from softmax(z / temperature), or are the likeliest ones at 0",
            fix="pass temperature=0.0 for greedy answers",
        )


def require_prompts(sets: Mapping[str, Sequence[TokenRow]]) -> None:
    """Raise where a row that is to be answered has no prompt."""
    for name, rows in sets.items():
        bare = [place for place, row in enumerate(rows) if not prompt_ids(row)]
        if bare:
            raise input_error(
                expected=f"rows of the {name} set with a prompt",
                got=f"{len(bare)} without one, the first at index {bare[0]}",
                why="the model would have nothing to answer",
                fix="cut texts into a start and its continuation, as hf_unlearn.data.books.book_rows does",
            )


def require_fit(model: Any, tokenizer: PreTrainedTokenizerBase, accelerator: Accelerator) -> None:
    """Raise where the tokenizer is missing or another model's, or the model is not where the rows are put."""
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise input_error(
            expected="the model's tokenizer",
            got=f"a {type(tokenizer).__name__}",
            why="rows become tokens and answers become text through it",
            fix="AutoTokenizer.from_pretrained(...) from where the model comes from",
        )
    vocabulary = model.config.get_text_config().vocab_size
    if len(tokenizer) > vocabulary:
        raise input_error(
            expected=f"the model's own tokenizer, of at most {vocabulary} tokens",
            got=f"one of {len(tokenizer)}",
            why="ids beyond the embeddings crash, or point at nothing that was learnt",
            fix="load the tokenizer from where the model comes from",
        )
    if model.device.type != accelerator.device.type:
        raise input_error(
            expected=f"the model on {accelerator.device}, where accelerate runs",
            got=f"a model on {model.device}",
            why="rows are put on accelerate's device",
            fix="model.to(accelerator.device), or pass accelerator=Accelerator(cpu=True)",
        )


def require_comparable(
    suite: Suite, settings: Mapping[str, Any], rows: Mapping[str, dict[str, Any]], tokenizer: str
) -> None:
    """Raise unless the results to compare with were found on the same rows, in the same way."""
    for which, result in (("oracle", suite.oracle), ("before", suite.before)):
        if result is None:
            continue
        if result.tokenizer != tokenizer:
            raise input_error(
                expected=f"{which} to be a result with this tokenizer",
                got="one with another tokenizer",
                why="numbers per token of two tokenizers are not of the same things",
                fix=f"evaluate the model behind {which} with the tokenizer of this one",
            )
        for name, value in settings.items():
            if result.settings.get(name) != value:
                raise input_error(
                    expected=f"{which} to be a result with {name}={value!r}",
                    got=repr(result.settings.get(name)),
                    why="its figures were found in another way",
                    fix=f"evaluate the model behind {which} with the same arguments",
                )
        for name in suite.sets:
            other, this = result.rows.get(name), rows[name]
            if other != this:
                got = (
                    "none"
                    if other is None
                    else f"{other['count']} rows" + (", others than these" if other["count"] == this["count"] else "")
                )
                raise input_error(
                    expected=f"{which} to be a result on the same {this['count']} {name} rows",
                    got=f"{got} in its {name} set",
                    why="a comparison of other rows (another split, limit or template) says nothing",
                    fix=f"evaluate the model behind {which} with the same arguments of the suite",
                )
