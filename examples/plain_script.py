"""What `examples/harmful.py` does, in plain Python, with the public classes and functions alone.

    python examples/plain_script.py

The numbers are those of `hf-unlearn train --config harmful_lab`. Your model, rows and judge go where the lab's are.
"""

import sys

from peft import LoraConfig

from hf_unlearn import UnlearningConfig, UnlearningTrainer
from hf_unlearn.evaluation import RuleJudge, comparison_table, evaluate, harmful
from hf_unlearn.lab import load_lab, shows_behaviour
from hf_unlearn.losses import SimNPO

lab = load_lab()
rows = {name: lab.datasets[name] for name in ("forget", "retain", "holdout")}
tokenizer = lab.load_tokenizer()

trainer = UnlearningTrainer(
    model=lab.load_model(),
    args=UnlearningConfig(
        output_dir=sys.argv[1] if len(sys.argv) > 1 else "unlearned/plain-script",
        forget_loss=SimNPO(beta=0.5),
        retain_loss="nll",
        forget_nll_bound="holdout",
        retain_weight=3.0,
        retain_ratio=3,
        learning_rate=2e-3,
        lr_scheduler_type="linear",
        num_train_epochs=8,
        per_device_train_batch_size=8,
        per_device_eval_batch_size=64,
        stop_retain_nll_increase=0.5,
        seed=0,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        dataloader_pin_memory=False,
    ),
    train_dataset=rows,
    processing_class=tokenizer,
    peft_config=LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM"),
)


def measure(model, fluency_model, **compared):
    """The harmful suite on the first 200 rows of each set."""
    sets = {name: subset.select(range(min(200, len(subset)))) for name, subset in rows.items()}
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
