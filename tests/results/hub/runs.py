"""Folders of runs that were really trained, in a second each, shared by the tests of publishing. No test here."""

import copy
import shutil
from pathlib import Path

import datasets
from peft import LoraConfig
from transformers import AutoModelForCausalLM

from fixtures.models import make_trainer, tiny_model, tiny_tokenizer, train_sets
from hf_unlearn import UnlearningTrainer
from hf_unlearn.results.record import PLOTS_OF, load_record

REPO = "tester/unlearned"
BASE = "tester/base"
SECRET = b"stay-where-you-are-4711"  # in every file that must stay where it is

# What a push of the made folders brings, and of which only the weights and the pictures are large files.
COMMON = {"README.md", "results.json", "tokenizer.json", "tokenizer_config.json"}
PLOTS = {"plots/losses.png", "plots/losses.svg"}
ADAPTER = COMMON | {"adapter_config.json", "adapter_model.safetensors"}
WHOLE = COMMON | {"config.json", "generation_config.json", "model.safetensors"}
# What else lies in such a folder, Trainer's files among them.
KEPT = ("training_args.bin", "trainer_state.json", "checkpoint-1/optimizer.pt", "checkpoint-1/model.safetensors")
PLANTED = (
    "evaluation_after.json",
    "showable.json",
    "report.html",
    "forget.jsonl",
    "rows.csv",
    "rows.parquet",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "scaler.pt",
    "notes.txt",
    "code.py",
    "plots/rows.json",
    ".results.json.17",
    "checkpoint-9/model.safetensors",
    "checkpoint-9/README.md",
    "checkpoint-9/results.json",
    "data/plots/forget.png",
    "deeper/tokenizer.json",
    "plots/deeper/rows.png",
    "model_of_another/weights.safetensors",
    "deeper/spiece.model",
)


def lora() -> LoraConfig:
    return LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


def lab_like(sets: dict[str, datasets.Dataset] | None = None) -> dict[str, datasets.Dataset]:
    """Sets that are marked as the lab's, and so public."""
    made = copy.deepcopy(train_sets() if sets is None else sets)  # other tests share them
    for rows in made.values():
        rows.info.builder_name, rows.info.config_name = "hf_unlearn_lab", "games"
    return made


def trainer_of(folder: Path, *, adapter: bool = True, public: bool = False, **arguments) -> UnlearningTrainer:
    """A trainer for two steps on a model that was loaded from `folder`/base, writing to `folder`/out."""
    base = folder / "base"
    if not base.exists():
        tiny_model().save_pretrained(base)
        tiny_tokenizer().save_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    arguments = {"max_steps": 2, "peft_config": lora() if adapter else None} | arguments
    trainer = make_trainer(folder, model, sets=arguments.pop("sets", lab_like() if public else None), **arguments)
    if public:
        trainer.record.model.origin = "lab"
        for rows in trainer.record.sets.values():
            rows.untouched = True  # the test vouches for them
    return trainer


def train(folder: Path, **arguments) -> Path:
    """The output folder of a run with a checkpoint, Trainer's own files and everything in PLANTED."""
    trainer = trainer_of(folder, save_strategy="steps", save_steps=1, **arguments)
    trainer.train()
    out = folder / "out"
    trainer.save_state()
    for name in (*PLOTS, *PLANTED):
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a plot" if name in PLOTS else SECRET)
    trainer.save_model()
    (out / "plots" / PLOTS_OF).write_text(load_record(out).figures_hash(), encoding="utf-8")
    trainer.write_card()  # again, with the plots in it
    return out


def copied(run: Path, folder: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(run, folder / "copy"))


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pushed(hub, repo: str = REPO, revision: str = "main") -> dict[str, bytes]:
    """What a repository holds beside what every repository starts with."""
    return {name: data for name, data in hub.files(repo, revision=revision).items() if name != ".gitattributes"}
