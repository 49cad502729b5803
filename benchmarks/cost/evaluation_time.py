"""CPU time of a TOFU evaluation: one pass against a loop over the metrics. Both must give the same figures.

    python -m benchmarks.cost.evaluation_time --output r.json
    python -m benchmarks.cost.evaluation_time --model DIR --data DIR --limit 100

The rows are the lab's people. The lab's own model is so small that the metrics' arithmetic would be what is timed, so
the default is an untrained Llama of 5M parameters, whose answers all run to --max_new_tokens.

The loops do what evaluators commonly do: every metric goes through the rows that it needs by itself, in the order of
the file, with the logits of every position; answers are generated once a set. `loop` takes one row at a time,
`batched loop` 16. The one pass takes batches of 16 too. CPU seconds of this process; medians over interleaved rounds.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from rouge_score.rouge_scorer import RougeScorer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from benchmarks.common.ratio_chart import draw
from hf_unlearn.data.prepare import RowOptions
from hf_unlearn.data.tokenized_row import prompt_ids
from hf_unlearn.evaluation import Suite, evaluate, tofu
from hf_unlearn.lab import load_lab

BATCH = 16
# Which sets each metric of the suite goes through in a loop of its own.
MAIN, ALL = ("forget", "retain"), ("forget", "retain", "real_authors", "world_facts")
LOOPS: dict[str, tuple[str, ...]] = {
    "probability": ALL,
    "probability of options": ("real_authors_perturbed", "world_facts_perturbed"),
    "truth ratio": tuple(f"{name}_{kind}" for name in ALL for kind in ("paraphrased", "perturbed")),
    "exact memorisation": MAIN,
    "extraction strength": MAIN,
    "loss attack": ("forget", "holdout"),
    "zlib attack": ("forget", "holdout"),
    "min-k attack": ("forget", "holdout"),
    "min-k++ attack": ("forget", "holdout"),
}
TokenizedRow = dict[str, list[int]]


def padded(rows: Sequence[TokenizedRow], pad: int, *, left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask of rows, [B, L]."""
    length = max(len(row["input_ids"]) for row in rows)
    ids, mask = torch.full((len(rows), length), pad), torch.zeros((len(rows), length), dtype=torch.long)
    for i, row in enumerate(rows):
        size = len(row["input_ids"])
        place = slice(length - size, length) if left else slice(0, size)
        ids[i, place], mask[i, place] = torch.tensor(row["input_ids"]), 1
    return ids, mask


def loop_nll(model: PreTrainedModel, rows: Sequence[TokenizedRow], pad: int, batch: int) -> list[float]:
    """Mean NLL of each row's answer, the plain way."""
    nlls = []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        ids, mask = padded(part, pad)
        logps = model(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
        for i, row in enumerate(part):
            places = [t for t, label in enumerate(row["labels"]) if label != -100]
            nlls.append(-sum(float(logps[i, t - 1, row["labels"][t]]) for t in places) / len(places))
    return nlls


def loop_rouge(
    model: PreTrainedModel, rows: Sequence[TokenizedRow], tokenizer: Any, batch: int, longest: int
) -> list[float]:
    """ROUGE-L recall of the greedy answers to the rows' prompts, in the order of the file."""
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    recalls = []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        ids, mask = padded([{"input_ids": prompt_ids(row)} for row in part], tokenizer.pad_token_id, left=True)
        output = model.generate(input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=longest)
        answers = tokenizer.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True)
        expected = [
            tokenizer.decode([t for t in row["labels"] if t != -100], skip_special_tokens=True) for row in part
        ]
        recalls += [scorer.score(own, said)["rougeL"].recall for own, said in zip(expected, answers, strict=True)]
    return recalls


@torch.no_grad()
def loops(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    suite: Suite,
    batch: int,
) -> tuple[float, float]:
    """One loop a metric; the retain set's probability and ROUGE, to be compared with the one pass."""
    options = RowOptions(tokenizer, suite.max_length, suite.template, None)
    sets = {name: list(options.tokenize(rows.to_list(), "eval")) for name, rows in suite.sets.items()}
    probability, rouge = float("nan"), float("nan")
    for metric, names in LOOPS.items():
        for name in names:
            nll = loop_nll(model, sets[name], tokenizer.pad_token_id, batch)
            if (metric, name) == ("probability", "retain"):
                probability = float(torch.tensor(nll, dtype=torch.float64).neg().exp().mean())
    for name in ALL:
        recalls = loop_rouge(model, sets[name], tokenizer, batch, suite.max_new_tokens)
        if name == "retain":
            rouge = statistics.fmean(recalls)
    return probability, rouge


def untrained(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A Llama with random weights and a vocabulary of 8192."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process, and what the work gave."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def measure(model: PreTrainedModel, tokenizer: Any, suite: Suite, rounds: int) -> dict[str, Any]:
    """Seconds of the three ways, interleaved."""
    ways = {
        "one pass": lambda: evaluate(model, tokenizer, suite, batch_size=BATCH),
        "loop": lambda: loops(model, tokenizer, suite, 1),
        "batched loop": lambda: loops(model, tokenizer, suite, BATCH),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            spent, result = timed(work)
            seconds[name].append(spent)
            if name == "one pass":
                cost = result.cost
                expected = [result[f"retain_{metric}"].value for metric in ("probability", "rouge")]
            else:
                differences = [abs(own - other) for own, other in zip(result, expected, strict=True)]
                assert max(differences) < 1e-5, f"{name} found other figures"
    return {"seconds": seconds, "cost": cost}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a model trained on TOFU (default: the lab's)")
    parser.add_argument("--data", help="folder of TOFU's JSON files (default: the lab's people)")
    parser.add_argument("--template", help="of the model's rows, with {prompt} and {completion}")
    parser.add_argument("--limit", type=int, default=32, help="at most so many rows of each set")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max_new_tokens", type=int, default=24)
    parser.add_argument("--output", type=Path, help="write the figures there as JSON, and a chart beside it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    if args.model is None:
        lab = load_lab(world="people")
        tokenizer, template = lab.load_tokenizer(), lab.template
        model = untrained(tokenizer)
        source = {
            "forget10_perturbed" if name == "forget_perturbed" else name: rows for name, rows in lab.datasets.items()
        }
    else:
        model = AutoModelForCausalLM.from_pretrained(args.model)
        tokenizer, template = AutoTokenizer.from_pretrained(args.model), args.template
        source = args.data
    suite = tofu(source, limit=args.limit, max_new_tokens=args.max_new_tokens, template=template)
    figures = measure(model.eval(), tokenizer, suite, args.rounds)
    medians = {name: statistics.median(spent) for name, spent in figures["seconds"].items()}
    print(f"rows {figures['cost']['rows']}, scored once each {figures['cost']['rows_scored']}")
    for name, spent in medians.items():
        print(f"{name:<14}{spent:8.2f} CPU seconds{spent / medians['one pass']:8.2f}x")
    if args.output:
        record = {
            "command": " ".join(["python", "-m", "benchmarks.cost.evaluation_time", *sys.argv[1:]]),
            "machine": f"{platform.machine()}, CPU only, one thread of {os.cpu_count()}",
            "versions": {module.__name__: module.__version__ for module in (torch, transformers)},
            "medians": medians,
            **figures,
        }
        args.output.write_text(json.dumps(record, indent=2) + "\n")
        ratios = {name: spent / medians["one pass"] for name, spent in medians.items()}
        draw({"CPU time of an evaluation": ratios}, args.output.with_suffix(".png"), "one pass")


if __name__ == "__main__":
    main()
