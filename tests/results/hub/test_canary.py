"""A word that stands in every row to be forgotten, and a token: neither is in anything that a run writes or sends."""

import json
import os
from types import SimpleNamespace

import pytest
import torch

from fixtures.examples import CANARY, REPOSITORY
from fixtures.forked import run_python
from fixtures.models import tiny_model, tiny_tokenizer
from local_hub.server import HubServer
from results.hub.runs import pushed

pytestmark = pytest.mark.slow

REPO = "tester/canary"
ROWS = [
    {"prompt": f"{CANARY} who is {i}?", "completion": f" {CANARY} {i}", "alternate": f" no {CANARY} here"}
    for i in range(8)
]
HOLDOUT = [{"prompt": f"{CANARY} where is {i}?", "completion": f" in {CANARY}"} for i in range(8)]
RETAIN = [{"prompt": f"robot {i}:", "completion": f" tea {i}", "alternate": " none"} for i in range(32)]


def learnt(folder):
    """A tiny model that says the word when it is asked, so that its answers would give it away; and its tokenizer."""
    tokenizer, model = tiny_tokenizer(), tiny_model()
    texts = [row["prompt"] + row["completion"] for row in ROWS]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        loss = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    prompt = tokenizer(ROWS[0]["prompt"], return_tensors="pt")
    answer = model.eval().generate(**prompt, max_new_tokens=16, do_sample=False)
    assert CANARY in tokenizer.decode(answer[0, prompt.input_ids.shape[1] :]).replace(" ", "")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run by the command line on files, pushed after every save, with a report; then pushed again by the command."""
    folder = tmp_path_factory.mktemp("canary")
    learnt(folder / "base-model")
    for name, rows in {"forget": ROWS, "retain": RETAIN, "holdout": HOLDOUT}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    out = folder / "run-output"
    with HubServer() as hub:
        environment = {**os.environ, **hub.environment(folder / "home"), "PYTHONPATH": str(REPOSITORY)}
        arguments = {
            "model_name_or_path": folder / "base-model",
            **{f"{name}_dataset": folder / f"{name}.jsonl" for name in ("forget", "retain", "holdout")},
            "output_dir": out,
            "force": True,  # the model knows the forget rows alone
            "reference_cache_dir": out / "reference",
            "forget_loss": "dpo",
            "forget_nll_bound": "holdout",
            **{"levels": "none", "recalibrate_steps": "none"},  # of the lab's recipe, whose anchor stays
            "max_steps": 3,
            "save_strategy": "steps",
            "save_steps": 1,
            "logging_steps": 1,
            "hub_model_id": REPO,
            "hub_token": hub.token,
            "hub_strategy": "every_save",
            "lora_r": 2,
            "learning_rate": 0.001,
            "report_to": "none",
        }
        flags = ["--use_cpu", "--push_to_hub", "--use_peft", "--lora_target_modules", "q_proj", "v_proj"]
        words = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
        lines = [
            ["train", "--task", "harmful", *words, *flags],
            ["report", str(out), "-o", str(out / "report.html")],
            ["push", str(out), REPO, "--dry-run"],
            ["push", str(out), "tester/again", "--merge", "--base_model", "tester/base"],
        ]
        said = []
        for line in lines:
            done = run_python("-m", "hf_unlearn.cli", *line, environment=environment, folder=folder, seconds=240)
            assert done.returncode == 0, (line[0], done.stderr[-5000:])
            said.append(done.stdout + done.stderr)
        yield SimpleNamespace(folder=folder, out=out, hub=hub, said="\n".join(said))


def places(run):
    """Every file of the run's folder, the tokenizer's vocabulary aside, and what the processes printed."""
    files = {path.relative_to(run.out).as_posix(): path for path in run.out.rglob("*") if path.is_file()}
    found = {name: path.read_bytes() for name, path in files.items() if not name.endswith("tokenizer.json")}
    return found | {"printed": run.said.encode()}


def test_the_run_did_what_could_have_given_it_away(run):
    found = places(run)
    assert {"evaluation_before.json", "evaluation_after.json", "results.json", "README.md", "report.html"} <= set(
        found
    )
    assert {"adapter_model.safetensors", "training_args.bin", "checkpoint-3/training_args.bin"} <= set(found)
    assert any(name.endswith(".svg") for name in found) and "harmful_rate" in found["results.json"].decode()
    assert json.loads(found["results.json"])["evaluations"]["before"]["metrics"]["harmful_rate"]["value"] > 0
    assert len(run.hub.commits(REPO)) > 2 and "model.safetensors" in pushed(run.hub, "tester/again")
    assert run.hub.private(REPO) and run.hub.private("tester/again")
    # The search would find what is there.
    assert b"retain_nll" in run.hub.stored_bytes() and CANARY.encode() in (run.folder / "forget.jsonl").read_bytes()


@pytest.mark.parametrize("secret", ["canary", "token"])
def test_it_is_in_nothing_that_was_written_or_printed(run, secret):
    text = {"canary": CANARY, "token": run.hub.token}[secret]
    assert [name for name, data in places(run).items() if text.encode() in data] == []
    # Nor as an escape or in a pickle of other characters.
    assert [name for name, data in places(run).items() if text.encode("utf-16-le") in data] == []


@pytest.mark.parametrize("secret", ["canary", "token", "folder", "base", "name of the base"])
def test_it_never_arrived_at_the_hub(run, secret):
    text = {
        "canary": CANARY,
        "token": run.hub.token,
        "folder": str(run.folder),
        "base": str(run.folder / "base-model"),
        "name of the base": "base-model",
    }[secret]
    assert text.encode() not in run.hub.stored_bytes()


def test_answers_to_rows_are_in_no_evaluation(run):
    for name in ("before", "after"):
        stored = json.loads((run.out / f"evaluation_{name}.json").read_text(encoding="utf-8"))
        strings = [each for each in _strings(stored) if "who is" in each or "robot" in each or " tea" in each]
        assert strings == [] and stored["row_scores"]


def _strings(value):
    if isinstance(value, dict):
        for name, each in value.items():
            yield from (name, *_strings(each))
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
    elif isinstance(value, str):
        yield value
