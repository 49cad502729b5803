"""CPU time and steps of answers to the forget set's questions: ours against `generate` batch after batch.

    python -m benchmarks.cost.answers_time
    python -m benchmarks.cost.answers_time --model DIR --data DIR --limit 96

The batches of `generate` are of prompts alike in length, and each goes on until its last answer has ended. Both give
the same answers. The lab's model has its rows by heart; one that has not learnt the forget set shows more. CPU seconds
of this process, the least of interleaved rounds; on a GPU, where a step takes as long for many rows as for few, the
steps say more.
"""

import argparse
from typing import Any

import torch
import transformers
from accelerate import Accelerator
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.cost.evaluation_time import padded, timed
from hf_unlearn.data.prepare import RowOptions
from hf_unlearn.data.tokenized_row import prompt_ids
from hf_unlearn.evaluation import generate_answers, tofu
from hf_unlearn.lab import load_lab


def plainly(model: Any, tokenizer: Any, prompts: list[list[int]], longest: int, batch: int) -> list[list[int]]:
    """Answers, each batch to its end."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    answers: list[list[int]] = [[]] * len(prompts)
    for start in range(0, len(order), batch):
        places = order[start : start + batch]
        ids, mask = padded([{"input_ids": prompts[i]} for i in places], tokenizer.pad_token_id, left=True)
        output = model.generate(input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=longest)
        for place, said in zip(places, output[:, ids.shape[1] :].tolist(), strict=True):
            end = tokenizer.eos_token_id
            answers[place] = said[: said.index(end)] if end in said else said
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a model (default: the lab's)")
    parser.add_argument("--data", help="folder of TOFU's JSON files (default: the lab's people)")
    parser.add_argument("--limit", type=int, default=96, help="at most so many questions")
    parser.add_argument("--max_new_tokens", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    lab = load_lab(world="people")
    model = AutoModelForCausalLM.from_pretrained(args.model) if args.model else lab.load_model()
    tokenizer = AutoTokenizer.from_pretrained(args.model) if args.model else lab.load_tokenizer()
    people = {
        "forget10_perturbed" if name == "forget_perturbed" else name: rows for name, rows in lab.datasets.items()
    }
    template = None if args.model else lab.template
    suite = tofu(args.data or people, limit=args.limit, template=template)
    options = RowOptions(tokenizer, suite.max_length, suite.template, None)
    rows = list(options.tokenize(suite.sets["forget"].to_list(), "forget"))
    prompts = list(map(prompt_ids, rows))
    accelerator, steps = Accelerator(cpu=True), [0]
    model.eval().register_forward_hook(lambda *_: steps.__setitem__(0, steps[0] + 1))
    size = dict(max_new_tokens=args.max_new_tokens, batch_size=args.batch_size)
    ways = {
        "generate": lambda: plainly(model, tokenizer, prompts, args.max_new_tokens, args.batch_size),
        "ours": lambda: generate_answers(model, tokenizer, prompts, accelerator, description="answers", **size),
    }
    generate_answers(model, tokenizer, prompts[:1], accelerator, description="trial", **size)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    answers, forwards = {}, {}
    for _ in range(args.rounds):
        for name, way in ways.items():
            steps[0] = 0
            spent, answers[name] = timed(way)
            forwards[name] = steps[0]
            seconds[name].append(spent)
    assert answers["ours"] == answers["generate"], "other answers"
    lengths = sorted(map(len, answers["ours"]))
    print(
        f"{len(prompts)} answers of {lengths[0]} to {lengths[-1]} tokens, {lengths[len(lengths) // 2]} in the middle"
    )
    for name, spent in seconds.items():
        ratio = min(spent) / min(seconds["ours"])
        print(f"{name:<10}{forwards[name]:6} forwards{min(spent):8.2f} CPU seconds{ratio:7.2f}x")


if __name__ == "__main__":
    main()
