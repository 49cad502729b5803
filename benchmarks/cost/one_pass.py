"""Would KL's reference cost less in the policy's own forward? One of its own against more rows in the batch.

    python -m benchmarks.cost.one_pass

A LoRA step on a small Llama: hidden states of 8 rows with the adapter, compared on 4 of them with those of the model
without it. "two passes" reads the latter without a graph, with the adapter off, as the package does. "one pass" adds
the 4 rows to the batch, where they are part of the graph: no kernel takes a graph for some rows of a batch alone, so
that the backward pass goes through them for nothing. Their adapter stays on here, as PEFT refuses batches in which
some rows have none while it trains (`adapter_names`); it is the time that counts. Medians of the CPU time of steps in
turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM


def main() -> None:
    """Time both and print their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=96, help="of a row")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = dict(hidden_size=options.hidden, intermediate_size=3 * options.hidden, num_hidden_layers=options.layers)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=512, num_attention_heads=4, **sizes)).to(options.device)
    model = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear"))
    blocks = model.get_base_model().model
    rows = torch.randint(0, 512, (8, options.tokens), device=options.device)

    def compared(policy: Tensor, reference: Tensor) -> None:
        ((policy - reference.detach()) ** 2).mean().backward()

    def two_passes() -> None:
        with torch.no_grad(), model.disable_adapter():
            reference = blocks(rows[4:]).last_hidden_state
        compared(blocks(rows).last_hidden_state[4:], reference)

    def one_pass() -> None:
        states = blocks(torch.cat([rows, rows[4:]])).last_hidden_state
        compared(states[4:8], states[8:])

    def milliseconds(step: Callable[[], None]) -> float:
        begun = time.process_time()
        step()
        if options.device != "cpu":
            torch.accelerator.synchronize()
        model.zero_grad()
        return 1000 * (time.process_time() - begun)

    times = [(milliseconds(two_passes), milliseconds(one_pass)) for _ in range(2 + options.steps)][2:]
    two, one = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(second / first for first, second in times)
    print(f"two passes {two:.1f} ms, one pass {one:.1f} ms, ratio {ratio:.2f} (median of {options.steps} pairs)")


if __name__ == "__main__":
    main()
