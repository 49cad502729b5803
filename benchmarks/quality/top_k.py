"""Compares the KL of reference="topk" with the exact KL, for several k, on two models and real rows.

    python -m benchmarks.quality.top_k --reference tofu-full --model tofu-retain90 --data tofu --output results.json

By set and k: the mass that the reference leaves to other tokens, the exact KL, the KL of k + 1 events, what that
lacks, and the bound of it (`hf_unlearn.model.reference_logits.tail_bound`); means over answer tokens, nats.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.common.environment import machine, versions
from hf_unlearn.data import DataCollatorForUnlearning, Role
from hf_unlearn.data.batch import IndexingCollator
from hf_unlearn.data.prepare import RowOptions
from hf_unlearn.data.tofu import training_sets
from hf_unlearn.losses import RetainKL
from hf_unlearn.model.head_query import LogitCache, TokenReadout
from hf_unlearn.model.output_head import output_head
from hf_unlearn.model.reference_logits import TopKLogits, tail_bound
from hf_unlearn.model.score_rows import evaluation_mode
from hf_unlearn.model.scoring import Likelihoods, score


def figures(k: int, logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
    """Tail mass, exact KL, KL of k + 1 events and bound of the difference, [t, 4]."""
    assert reference is not None
    logps, ids = reference.log_softmax(-1).topk(k)
    near = TopKLogits(ids, logps).at(slice(0, len(ids)), logits)
    kl = RetainKL()
    tail = 1 - logps.exp().sum(-1)
    exact, approximate = (kl.at_positions(logits, token_ids, of_reference) for of_reference in (reference, near))
    return torch.stack([tail, exact, approximate, tail_bound(logits, ids, logps)], dim=1)


def measure(args: argparse.Namespace, model: Any, reference: Any, rows: Any) -> dict[int, list[float]]:
    """Means over the answer tokens of rows, by k."""
    collate = IndexingCollator(DataCollatorForUnlearning(0))
    values: dict[int, list[Tensor]] = {k: [] for k in args.k}
    for start in range(0, len(rows), args.batch):
        batch = collate([rows[i] for i in range(start, min(start + args.batch, len(rows)))])
        with evaluation_mode(reference), evaluation_mode(model):
            keep = {Role.FORGET: LogitCache.HIDDEN}
            before, _ = score(reference, output_head(reference), batch, keep=keep, likelihoods=Likelihoods.NONE)
            logits = before.rows(Role.FORGET).logits
            readouts = [
                TokenReadout(str(k), Role.FORGET, lambda *given, k=k: figures(k, *given), reference=logits, width=4)
                for k in args.k
            ]
            scores, _ = score(model, output_head(model), batch, readouts=readouts)
        for k in args.k:
            values[k].append(scores.rows(Role.FORGET).readouts[str(k)])
    return {k: torch.cat(parts).double().mean(0).tolist() for k, parts in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", required=True, help="folder or Hub id of the model before")
    parser.add_argument("--model", required=True, help="folder or Hub id of the model that is compared with it")
    parser.add_argument("--data", required=True, help="TOFU's files")
    parser.add_argument("--split", default="forget10")
    parser.add_argument("--template", default="<s><|user|>{prompt}<|assistant|>{completion}")
    parser.add_argument("--rows", type=int, default=200, help="of each set")
    parser.add_argument("--k", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    Accelerator(cpu=not torch.cuda.is_available())
    reference, model = (AutoModelForCausalLM.from_pretrained(folder) for folder in (args.reference, args.model))
    options = RowOptions(AutoTokenizer.from_pretrained(args.reference), None, args.template, None)
    results = []
    print(f"{'set':8} {'k':>5} {'tail mass':>10} {'exact KL':>10} {'top k':>10} {'lacks':>8} {'bound':>10}")
    for name, rows in training_sets(args.data, args.split).items():
        if name not in ("forget", "retain"):
            continue
        tokenised = options.tokenize(rows.select(range(min(args.rows, len(rows)))), name)
        for k, (tail, exact, near, bound) in measure(args, model, reference, tokenised).items():
            lacks = 1 - near / exact
            results.append(
                {"set": name, "k": k, "tail_mass": tail, "exact": exact, "top_k": near, "lacks": lacks, "bound": bound}
            )
            print(f"{name:8} {k:5} {tail:10.6f} {exact:10.5f} {near:10.5f} {lacks:8.2%} {bound:10.5f}", flush=True)
    if args.output:
        settings = {
            "rows": args.rows,
            "split": args.split,
            "models": [Path(args.reference).name, Path(args.model).name],
        }
        content = {"settings": settings, "machine": machine(torch.cuda.is_available()), "versions": versions()}
        args.output.write_text(json.dumps(content | {"results": results}, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
