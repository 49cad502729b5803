"""What `examples/harmful.py` does, in plain Python, with the public classes and functions alone.

    python examples/plain_script.py

The numbers are those of `hf-unlearn train --config harmful_lab`. Your model, rows and judge go where the lab's are.
"""

import sys

from peft import LoraConfig

from hf_unlearn import UnlearningConfig, UnlearningTrainer
from hf_unlearn.data import measurement_rows
from hf_unlearn.evaluation import RuleJudge, comparison_table, evaluate, harmful
from hf_unlearn.lab import load_lab, shows_behaviour
from hf_unlearn.losses import UnseenLevel

lab = load_lab()
rows = {name: lab.datasets[name] for name in ("forget", "retain", "holdout")}
tokenizer = lab.load_tokenizer()

trainer = UnlearningTrainer(
    model=lab.load_model(),
    args=UnlearningConfig(
        output_dir=sys.argv[1] if len(sys.argv) > 1 else "unlearned/plain-script",
        forget_loss=UnseenLevel(token_weight=1.0),
        retain_loss="nll",
        levels="holdout",
        recalibrate_steps=5,
        forget_nll_bound=None,
        anchor_loss="kl",
        anchor_weight=1.0,
        anchor_ratio=0.5,
        forget_weight=3.0,
        retain_weight=5.0,
        retain_ratio=3,
        learning_rate=1e-3,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={"num_decay_steps": 30, "min_lr_ratio": 0.1},
        warmup_steps=5,
        num_train_epochs=20,
        per_device_train_batch_size=8,
        per_device_eval_batch_size=64,
        seed=0,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        dataloader_pin_memory=False,
    ),
    train_dataset=rows,
    processing_class=tokenizer,
    peft_config=LoraConfig(r=32, lora_alpha=64, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM"),
)


def measure(model, fluency_model, **compared):
    """The harmful suite on the first 200 rows of each set; of unseen rows those that the levels are not fitted to."""
    measured = {**rows, "holdout": measurement_rows(rows["holdout"])}
    sets = {name: subset.select(range(min(200, len(subset)))) for name, subset in measured.items()}
    suite = harmful(
        **sets,
        in_scope=lab.datasets["paraphrase"],
        judge=RuleJudge("the lab's rules", shows_behaviour),
        max_new_tokens=None,  # as long as the longest expected answer
        max_length=1024,
        **compared,
    )
    return evaluate(model, tokenizer, suite, batch_size=64, fluency_model=fluency_model)


oracle = measure(lab.load_oracle(), trainer.model)
before = measure(trainer.model, trainer.model, oracle=oracle)
trainer.train()
after = measure(trainer.model, lab.load_model(), before=before, oracle=oracle)

results = {"before": before, "after": after, "oracle": oracle}
for name, result in results.items():
    trainer.add_evaluation(name, result)
trainer.save_model()  # the adapter, results.json and the model card; trainer.push_to_hub() would publish them
print(comparison_table(results))
