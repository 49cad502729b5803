"""What an evaluation refuses before any work: models, tokenizers, rows and results that do not go together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from transformers import PreTrainedTokenizerBase

from ..data.digests import shared_rows
from ..data.lengths import longest_row
from ..data.tokenized_row import TokenizedRow, prompt_ids
from ..errors import input_error, require_range
from ..model.probe import probe_model
from ..model.probe_checks import require_causal_lm, require_scorable
from ..model.sharding import gathers_itself, is_sharded
from .harness.suite import LMEvalSuite
from .main_process import refused_together
from .suite import Suite


def require_kinds(model: Any, suite: Any, partial: Any) -> None:
    """Raise for what is no model, no suite, or no folder."""
    if not isinstance(model, nn.Module):
        raise input_error(
            expected="a loaded causal language model",
            got=f"a {type(model).__name__}",
            why="it is asked as it is in memory",
            fix="AutoModelForCausalLM.from_pretrained(...)",
        )
    if not isinstance(suite, Suite | LMEvalSuite):
        raise input_error(
            expected="a suite, as harmful(...), copyright(...), tofu(...), custom(...) and lm_eval(...) make them",
            got=f"a {type(suite).__name__}",
            why="it says what to measure and on which rows",
            fix="call one of these with its rows, and pass what it returns",
        )
    if partial is not None and Path(partial).is_file():
        raise input_error(
            expected="partial to be a folder, or a path where there is nothing yet",
            got=f"the file {Path(partial).name}",
            why="every rank keeps its findings in a file of its own",
            fix='pass another path, such as partial="evaluation.partial"',
        )


def require_rows_alone(fluency_model: Any | None, temperature: float, partial: Any) -> None:
    """Raise where lm_eval tasks come with arguments that only suites of rows have a use for."""
    given = {
        "fluency_model": fluency_model is not None,
        "temperature": temperature != 0,
        "partial": partial is not None,
    }
    unused = [name for name, was_given in given.items() if was_given]
    if unused:
        raise input_error(
            expected=f"{unused[0]} with a suite of rows",
            got="an lm_eval suite",
            why="the harness has its own ways, and the argument would have no effect",
            fix=f"leave {unused[0]} out",
        )


def require_right_log_probs(models: Sequence[Any], accelerator: Accelerator) -> None:
    """Raise for a model that is not causal, or sees padding: a few forwards of ten tokens, once for each model.

    Args:
        models: not wrapped; None stands for no model.
        accelerator: under whose autocast they are called, by every rank.
    """
    for model in models:
        if model is None:
            continue
        with refused_together(accelerator, model):
            require_scorable(probe_model(model, model, autocast=accelerator.autocast), model)


def require_same_vocabulary(fluency_model: Any, model: Any, accelerator: Accelerator) -> None:
    """Raise for a fluency model that reads other tokens, has less room, or stands on another device."""
    require_causal_lm(fluency_model)
    room, needed = _positions(fluency_model), _positions(model)
    if room < needed:
        raise input_error(
            expected=f"a fluency model with the model's {needed:g} positions",
            got=f"one with {room:g}",
            why="it reads what the model wrote, to the end",
            fix="pass the model before unlearning",
        )
    size, expected_size = (reader.config.get_text_config().vocab_size for reader in (fluency_model, model))
    if size != expected_size or fluency_model.device.type != accelerator.device.type:
        raise input_error(
            expected=f"a fluency model with the model's vocabulary of {expected_size} tokens on {accelerator.device}",
            got=f"one of {size} tokens on {fluency_model.device}",
            why="it scores the token ids of the model's answers, which mean something else to another model",
            fix="pass the model before unlearning, moved to the same device",
        )


def require_unseen(sets: Mapping[str, Sequence[TokenizedRow]]) -> None:
    """Raise where a holdout row is a forget row, which an attack is to tell it from."""
    shared = shared_rows(sets.get("forget", ()), sets.get("holdout", ()))
    if shared:
        raise input_error(
            expected="holdout rows that the model has never seen",
            got=f"{len(shared)} that are forget rows, the first at index {shared[0]}",
            why="membership attacks tell forget rows from holdout rows",
            fix="remove them from the holdout set",
        )


def require_room(rows: Any, model: Any) -> None:
    """Raise where a tokenised set has a row that is longer than the model's positions."""
    positions = _positions(model)
    if longest_row(rows) > positions:
        raise input_error(
            expected=f"rows of at most {positions} tokens, the model's max_position_embeddings",
            got=f"a row of {longest_row(rows)} tokens",
            why="the model has no positions for the rest",
            fix=f"build the suite with max_length={positions} or lower, which cuts such rows",
        )


def require_whole(model: Any) -> None:
    """Raise for a model, wrapped as it may be, whose parameters are split over ranks."""
    if is_sharded(model):
        raise input_error(
            expected="a model that is whole on every rank, for lm_eval",
            got="one whose parameters are split over ranks (ZeRO-3 or FSDP)",
            why="the harness runs on the main process alone, which would wait for the others",
            fix="save the model, load it with from_pretrained and evaluate that, or train with ZeRO-2 or DDP",
        )


def require_callable(model: Any) -> None:
    """Raise for a model, wrapped as it may be, that is split over ranks and cannot be called as it is."""
    if any(isinstance(module, FullyShardedDataParallel) for module in model.modules()):
        raise input_error(
            expected="a model that is whole on every rank, or split by FSDP2 or ZeRO-3",
            got="one that FSDP1 has split",
            why="it cannot generate: its parameters are put together for whole forwards of the wrapper alone",
            fix="set fsdp_version: 2 in accelerate's config (hf-unlearn's fsdp2 has it)",
        )
    if not gathers_itself(model):
        raise input_error(
            expected="a model that ZeRO-3 can put together for each forward",
            got="one that it has split and not yet prepared",
            why="its layers would be called with empty parameters",
            fix="evaluate the trainer's model during or after training, or a saved one without ZeRO-3 (on the "
            "command line: train with --measure false, then hf-unlearn evaluate)",
        )


def require_own_gradients(model: Any) -> None:
    """Raise for gradients of single rows where they would be put together over ranks."""
    if is_sharded(model):
        raise input_error(
            expected="attacks without gradient_norm for a model that is split over ranks",
            got="gradient_norm under ZeRO-3 or FSDP",
            why="no rank has the gradient of a row of its own: they are averaged over the ranks' rows",
            fix="leave gradient_norm out of attacks, or evaluate the saved model in one process",
        )


def require_numbers(batch_size: int, generation_batch_size: int | None, temperature: float) -> None:
    """Raise for sizes below 1 and temperatures below 0."""
    require_range("batch_size", batch_size, at_least=1, whole=True)
    if generation_batch_size is not None:
        require_range("generation_batch_size", generation_batch_size, at_least=1, whole=True)
    require_range("temperature", temperature, at_least=0)


def require_prompts(sets: Mapping[str, Sequence[TokenizedRow]], tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise where a row that is to be answered has no prompt, or one of special tokens alone."""
    special = set(tokenizer.all_special_ids)
    for name, rows in sets.items():
        bare = [place for place, row in enumerate(rows) if special.issuperset(prompt_ids(row))]
        if bare:
            raise input_error(
                expected=f"rows of the {name} set with a prompt",
                got=f"{len(bare)} without one, the first at index {bare[0]}",
                why="the model would have nothing to answer",
                fix="cut texts into a start and its continuation, as hf_unlearn.data.books.book_rows does",
            )


def require_fit(model: Any, tokenizer: PreTrainedTokenizerBase, accelerator: Accelerator) -> None:
    """Raise for another kind of model, a tokenizer that is not the model's, or a model not where the rows are put."""
    require_causal_lm(model)
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


def _positions(model: Any) -> float:
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return float("inf") if positions is None else positions
