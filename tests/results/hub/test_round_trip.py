"""What was pushed is loaded by others: in a new process, from the Hub alone, with the same logits. Minutes in all."""

import json
import os
from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard

from fixtures.examples import REPOSITORY
from fixtures.forked import run_python
from hf_unlearn.lab import load_lab
from local_hub.card_rules import check_card, parse_card
from local_hub.server import HubServer
from results.hub.runs import pushed

pytestmark = pytest.mark.slow

BASE = "tester/lab-base"
SECONDS = 240

# Trains for four steps and writes the logits of a fixed prompt; pushes where it is told to.
TRAIN = """
import json, sys
import torch
from peft import LoraConfig
from transformers import AutoTokenizer
from hf_unlearn import UnlearningConfig, UnlearningTrainer
from hf_unlearn.lab import load_lab

asked = json.loads(sys.argv[1])
lab = load_lab(asked["labs"])
name = asked["model"] or str(lab.model_path)
lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
trainer = UnlearningTrainer(
    model=name,
    args=UnlearningConfig(
        output_dir=asked["out"], max_steps=4, learning_rate=1e-2 if asked["adapter"] else 1e-4, report_to="none",
        per_device_train_batch_size=4, use_cpu=True, save_strategy="no", logging_steps=1, hub_model_id=asked["repo"],
    ),
    train_dataset={name: lab.datasets[name] for name in ("forget", "retain")},
    peft_config=lora if asked["adapter"] else None,
)
trainer.train()
trainer.save_model()
tokenizer = AutoTokenizer.from_pretrained(lab.model_path)
row = lab.datasets["forget"][0]
ids = tokenizer(row["prompt"] + row["completion"], return_tensors="pt").input_ids
model = trainer.model.eval()
with torch.no_grad():
    logits = model(ids).logits
torch.save({"ids": ids, "logits": logits}, asked["logits"])
if asked["push"]:
    trainer.push_to_hub()
"""

# Loads from the Hub, tokenizer too, and compares.
LOAD = """
import json, sys
import torch, peft, transformers

asked = json.loads(sys.argv[1])
kept = torch.load(asked["logits"])
base = transformers.AutoModelForCausalLM.from_pretrained(asked["base"]).eval()
loaded = []
for repo, loader in asked["models"]:
    model = getattr(peft if "Peft" in loader else transformers, loader).from_pretrained(repo).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(repo)
    text = tokenizer.decode(kept["ids"][0], skip_special_tokens=True)
    same = tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        logits, before = model(kept["ids"]).logits, base(kept["ids"]).logits
    loaded.append({
        "difference": float((logits - kept["logits"]).abs().max()),
        "moved": float((before - kept["logits"]).abs().max()),
        "ids": kept["ids"].tolist() == same.tolist(),
    })
print(json.dumps(loaded))
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A Hub with the lab's model on it, and how another process uses both."""
    lab, folder = load_lab(), tmp_path_factory.mktemp("round_trip")
    with HubServer() as hub:
        environment = {**os.environ, **hub.environment(folder / "home"), "PYTHONPATH": str(REPOSITORY)}
        made = SimpleNamespace(hub=hub, lab=lab, folder=folder, environment=environment)
        publish = (
            "import sys\nfrom huggingface_hub import HfApi\n"
            "HfApi().create_repo(sys.argv[1])\n"
            "HfApi().upload_folder(repo_id=sys.argv[1], folder_path=sys.argv[2])\n"
        )
        process(made, "-c", publish, BASE, str(lab.model_path))
        yield made


def process(world, *arguments):
    """The output of a Python process that has nothing but the Hub."""
    done = run_python(*arguments, environment=world.environment, folder=world.folder, seconds=SECONDS)
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stdout


def train(world, name, *, model=BASE, adapter=True, push=True):
    asked = {
        "labs": str(world.lab.path.parent),
        "model": model,
        "adapter": adapter,
        "push": push,
        "repo": f"tester/{name}",
        "out": str(world.folder / name),
        "logits": str(world.folder / f"{name}.pt"),
    }
    process(world, "-c", TRAIN, json.dumps(asked))
    return asked


def command(world, *arguments):
    return process(world, "-m", "hf_unlearn.cli", "push", *arguments)


def load(world, logits, *models):
    """Differences of the logits in another process, which never saw the folder, for each (repository, loader)."""
    asked = {"logits": logits, "models": models, "base": BASE}
    loaded = json.loads(process(world, "-c", LOAD, json.dumps(asked)).splitlines()[-1])
    assert len(loaded) == len(models)
    for model in loaded:
        assert model["ids"] and model["moved"] > 1e-2  # the steps changed something that could have been lost
    return [model["difference"] for model in loaded]


def assert_our_card(world, repo, *, adapter, monkeypatch):
    """The card on the Hub is the package's and not PEFT's, and the Hub has nothing against it."""
    card = pushed(world.hub, repo)["README.md"].decode()
    assert "More information needed" not in card and "More Information Needed" not in card and repo in card
    assert check_card(card) == ([], [])
    metadata = parse_card(card)
    assert {"unlearning", "hf_unlearn"} <= set(metadata["tags"])
    assert metadata["base_model"] == BASE
    assert (f"base_model:adapter:{BASE}" in metadata["tags"]) is adapter
    assert metadata["library_name"] == ("peft" if adapter else "transformers")
    world.hub.connect(monkeypatch)
    ModelCard(card).validate()
    stored = world.hub.stored_bytes()
    for secret in (world.folder, world.lab.path):
        assert str(secret).encode() not in stored
    assert world.hub.private(repo)  # sets that were handed to a trainer, for which nobody vouched


def test_an_adapter_that_the_trainer_pushed(world, monkeypatch):
    asked = train(world, "by-trainer")
    # transformers' own loader finds the base model too.
    loaders = ("AutoPeftModelForCausalLM", "AutoModelForCausalLM")
    assert max(load(world, asked["logits"], *((asked["repo"], loader) for loader in loaders))) <= 1e-6
    assert json.loads(pushed(world.hub, asked["repo"])["adapter_config.json"])["base_model_name_or_path"] == BASE
    assert_our_card(world, asked["repo"], adapter=True, monkeypatch=monkeypatch)


def test_an_adapter_of_a_local_model_pushed_and_merged_by_the_command(world, monkeypatch):
    asked = train(world, "local", model=None, push=False)
    command(world, asked["out"], "tester/local", "--base_model", BASE)
    command(world, asked["out"], "tester/merged", "--base_model", BASE, "--merge")
    models = (("tester/local", "AutoPeftModelForCausalLM"), ("tester/merged", "AutoModelForCausalLM"))
    adapter, merged = load(world, asked["logits"], *models)
    assert adapter <= 1e-6 and merged <= 1e-5
    assert_our_card(world, "tester/local", adapter=True, monkeypatch=monkeypatch)
    assert_our_card(world, "tester/merged", adapter=False, monkeypatch=monkeypatch)


def test_full_parameters(world, monkeypatch):
    asked = train(world, "whole", adapter=False)
    assert max(load(world, asked["logits"], (asked["repo"], "AutoModelForCausalLM"))) <= 1e-6
    assert_our_card(world, asked["repo"], adapter=False, monkeypatch=monkeypatch)
