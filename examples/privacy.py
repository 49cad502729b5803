"""Make a model forget what it knows of some people (TOFU), and show what it cost.

With no arguments: the lab's invented people, offline and on a CPU, in about two minutes.

    accelerate launch examples/privacy.py

TOFU from the Hub or from a local folder of its JSON files, and any model that was trained on it; the holdout rows are
questions and answers about authors whom it has never seen (a folder's own are in its holdout10.json):

    accelerate launch examples/privacy.py --source locuslab/TOFU --split forget10 --holdout_dataset holdout.jsonl \
        --model_name_or_path org/model

A model that has never seen TOFU is fitted to it first, and once more to the people who are kept, as the oracle. This
recipe needs no holdout rows:

    accelerate launch examples/privacy.py --config examples/configs/privacy_opt1.3b.yaml

Forget quality compares with a model that was trained without the forget rows (--oracle), and is given only then.

Without --config the values of examples/configs/privacy_lab.yaml are the defaults; the command line comes before both.
`hf-unlearn train --task privacy` is the same run.
"""

from hf_unlearn.tasks import run_task

if __name__ == "__main__":
    run_task("privacy", description=__doc__).accelerator.end_training()
