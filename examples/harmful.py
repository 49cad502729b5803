"""Make a model forget harmful answers, and show what it cost.

With no arguments: the lab, a small model with a made-up behaviour, offline and on a CPU, in about a minute.

    accelerate launch examples/harmful.py

The experiment of Gundavarapu et al. 2024 (OPT-1.3b, PKU-SafeRLHF, TruthfulQA), full parameters:

    accelerate launch examples/harmful.py --config examples/configs/harmful_opt1.3b.yaml

Any model and data (rows with the columns prompt and completion; others are renamed), here with LoRA. Holdout rows are
like the forget rows, and the model has never seen them:

    accelerate launch examples/harmful.py --model_name_or_path org/model --use_peft \
        --forget_dataset forget.jsonl --forget_columns '{"question": "prompt", "answer": "completion"}' \
        --retain_dataset retain.jsonl --holdout_dataset holdout.jsonl

Without holdout rows leave them out and add `--config methods/npo --forget_nll_bound log_vocab`. Learning rate and
epochs of both are those of the lab's small model: a larger one takes a lower rate.

Without --config the values of examples/configs/harmful_lab.yaml are the defaults; the command line comes before both.
`hf-unlearn train --task harmful` is the same run; `examples/plain_script.py` is what it does, in plain Python.
"""

from hf_unlearn.tasks import run_task

if __name__ == "__main__":
    run_task("harmful", description=__doc__).accelerator.end_training()
