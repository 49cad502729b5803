"""What an import costs: libraries that only metrics and plots use are not brought by the trainer."""

import json
import subprocess
import sys

SCRIPT = """
import json, sys
import accelerate, datasets, peft, transformers, trl
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback
from trl import ModelConfig, TrlParser, get_peft_config
theirs = set(sys.modules)
from hf_unlearn import UnlearningTrainer
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - theirs})))
"""
# Each takes from a tenth of a second to a second; scipy comes with transformers, its statistics do not.
LATE = {"bm25s", "evaluate", "matplotlib", "nltk", "rouge_score", "sacrebleu", "scipy", "sklearn"}


def test_the_trainer_brings_no_library_of_metrics_or_plots():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    ours = set(json.loads(done.stdout.splitlines()[-1]))
    assert "hf_unlearn" in ours and sorted(ours & LATE) == []
