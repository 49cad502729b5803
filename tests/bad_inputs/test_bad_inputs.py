"""More than 500 bad inputs, made from a seed: each is refused by name, before work starts, without a traceback."""

import json
import random
import shutil
from pathlib import Path

import pytest
import yaml
from peft import LoraConfig

from bad_inputs.generate import bad_adapters, bad_arguments, bad_files, bad_methods, bad_records, bad_texts
from fixtures.bad_input import build, rows
from fixtures.models import tiny_model, tiny_tokenizer
from fixtures.report import record, save_run
from hf_unlearn import UnlearningConfig
from hf_unlearn.cli import main
from hf_unlearn.data.sources import load_rows
from hf_unlearn.results.record import load_record
from hf_unlearn.tasks import make_task, parse_task
from hf_unlearn.tasks.custom import Arguments
from hf_unlearn.tasks.evaluate_saved import evaluate_saved

SEED = 14
REFUSED: dict[str, int] = {}  # kind of input -> how many were refused; each test fills in its own


def counted(kind: str, accepted: list, at_least: int, tried: int) -> None:
    """Fail for inputs that were taken, and where the generator has made too few."""
    assert accepted == []
    assert tried >= at_least
    REFUSED[kind] = tried


def refusal(call) -> str | None:
    """What a ValueError says; None where nothing was refused. Any other error is a traceback, and fails the test."""
    try:
        call()
    except ValueError as error:
        return str(error)
    return None


def test_arguments(tmp_path):
    cases = list(bad_arguments(UnlearningConfig, random.Random(SEED), 3))
    accepted = []
    for name, value in cases:
        given = {"output_dir": str(tmp_path / "out"), "use_cpu": True, "report_to": "none", name: value}
        said = refusal(lambda given=given: UnlearningConfig(**given))
        if said is None or name not in said:
            accepted.append((name, value, said))
    counted("arguments", accepted, 250, len(cases))
    assert not (tmp_path / "out").exists()


def test_methods(tmp_path):
    cases = list(bad_methods(random.Random(SEED)))
    accepted = []
    for argument, spec, word in cases:
        given = {"output_dir": str(tmp_path / "out"), "use_cpu": True, "report_to": "none", argument: spec}
        said = refusal(lambda given=given: UnlearningConfig(**given))
        if said is None or word not in said:
            accepted.append((argument, spec, said))
    counted("methods", accepted, 60, len(cases))


def test_records(tmp_path):
    run = save_run(tmp_path / "run", record())
    sound = json.loads((run / "results.json").read_text())
    assert refusal(lambda: load_record(run)) is None
    accepted, tried = [], 0
    for changed, key in bad_records(sound, random.Random(SEED), 150):
        tried += 1
        (run / "results.json").write_text(json.dumps(changed))
        said = refusal(lambda: load_record(run))
        if said is None or "results.json" not in said or key not in said:
            accepted.append((key, said))
    counted("records", accepted, 150, tried)


def test_files_of_rows(tmp_path):
    accepted, tried = [], 0
    for path in bad_files(tmp_path / "files", random.Random(SEED)):
        tried += 1
        said = refusal(lambda path=path: load_rows(path))
        if said is None or path.name not in said or "keeper" in said:
            accepted.append((path.name, said))
    counted("files", accepted, 58, tried)


def test_the_line_that_is_wrong_is_named(tmp_path):
    row = '{"prompt": "who keeps key 1?", "completion": " the keeper"}'
    wrong = {"3": "line 3, which is no JSON object", row[:30]: "at line 3", '{"prompt": {}}': "line 3, whose 'prompt'"}
    for line, words in wrong.items():
        file = tmp_path / "rows.jsonl"
        file.write_text(f"{row}\n\n{line}\n{row}\n")
        said = refusal(lambda file=file: load_rows(file))
        assert said is not None and words in said and "keeper" not in said


@pytest.fixture(scope="module")
def run_arguments(tmp_path_factory) -> dict[str, str]:
    """Model and rows of a small run, which would start."""
    folder = tmp_path_factory.mktemp("bad_inputs")
    tiny_model().save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    for name in ("forget", "retain"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(name, 8)))
    return {
        "task": "custom",
        "model_name_or_path": str(folder / "model"),
        "forget_dataset": str(folder / "forget.jsonl"),
        "retain_dataset": str(folder / "retain.jsonl"),
        "output_dir": str(folder / "out"),
    }


def ended(capsys, *arguments: str) -> tuple[int, str]:
    """Exit status and standard error of a command."""
    try:
        status = main(list(arguments))
    except SystemExit as end:  # of argparse
        status = int(end.code or 0)
    return status, capsys.readouterr().err


def test_recipes_and_command_lines(run_arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hf_unlearn.tasks.run.UnlearningTrainer", lambda **_: pytest.fail("it went on"))
    draw = random.Random(SEED)
    cases = draw.sample(list(bad_arguments(UnlearningConfig, draw, 2)), 24) + list(bad_arguments(Arguments, draw, 1))
    # A list or a mapping on a command line is a word; `task` and `output_dir` say where the recipe is for.
    cases = [(n, v) for n, v in cases if n not in ("task", "output_dir", "forget_columns", "retain_columns")]
    accepted = []
    for index, (name, value) in enumerate(cases):
        recipe = tmp_path / f"{index}.yaml"
        recipe.write_text(yaml.safe_dump({**run_arguments, "use_cpu": True, "report_to": "none", name: value}))
        status, said = ended(capsys, "train", "--config", str(recipe))
        if status != 2 or name not in said or "Traceback" in said:
            accepted.append((name, value, status, said[-300:]))
    counted("recipes", accepted, 40, len(cases))
    assert not Path(run_arguments["output_dir"]).exists()


# What no generator of wrong types thinks of, as the end of a recipe, and a word of the refusal.
ODD_RECIPES = {
    "seed: 1\nseed: 2": "seed twice",
    "forget_loss: {name: npo, beta: 1, beta: 2}": "beta twice",
    "forget_columns: {prompt: 1}": "names to names",
    "forget_columns: {prompt: [a]}": "names to names",
    "lora_target_modules: [5]": "lora_target_modules",
    "env: {A=B: x}": "env",
    "env: {A: [1]}": "env",
    "config: itself.yaml": "config",
    "seed: !!python/object:os.system {}": "ConstructorError",
    "5: 6": "another shape",
    "optim_args: 'eps=1'": "optim_args",
}


def test_odd_recipes_and_files_where_folders_belong(run_arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hf_unlearn.tasks.run.UnlearningTrainer", lambda **_: pytest.fail("it went on"))
    sound = yaml.safe_dump({**run_arguments, "use_cpu": True, "report_to": "none"})
    (tmp_path / "sound.yaml").write_text(sound)
    file = tmp_path / "a_file"
    file.write_text("{")
    cases = {
        ("--output_dir", str(file)): "a_file is a file",
        ("--output_dir", str(file / "below")): "a_file is a file",
        ("--output_dir", ""): "an empty text",
        ("--partial_dir", str(file)): "a_file is a file",
        ("--accelerate_config", str(file)): "a_file to hold a configuration of accelerate",
        ("--num_processes", "0"): "--num_processes",
        ("--num_processes=-2",): "--num_processes",
        ("--num_machines", "x"): "--num_machines",
    }
    accepted = []
    for words, word in cases.items():
        status, said = ended(capsys, "train", "--config", str(tmp_path / "sound.yaml"), *words)
        if status != 2 or word not in said:
            accepted.append((words, status, said[-300:]))
    for end, word in ODD_RECIPES.items():
        (tmp_path / "odd.yaml").write_text(f"{sound}\n{end}\n")
        status, said = ended(capsys, "train", "--config", str(tmp_path / "odd.yaml"))
        if status != 2 or word not in said:
            accepted.append((end, status, said[-300:]))
    counted("odd recipes", accepted, 19, len(cases) + len(ODD_RECIPES))
    assert not Path(run_arguments["output_dir"]).exists()


def _with_template(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": 5}))


def _of_another_type(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": "wide"}))


def _truncated(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def _other_shape(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": config["hidden_size"] * 2}))


# What is done to a model's folder.
BROKEN_MODELS = {
    "truncated weights": _truncated,
    "empty weights": lambda folder: (folder / "model.safetensors").write_bytes(b""),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "a pickle instead": lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
    "no config": lambda folder: (folder / "config.json").unlink(),
    "a broken config": lambda folder: (folder / "config.json").write_text("{"),
    "an unknown type": lambda folder: (folder / "config.json").write_text('{"model_type": "no_such"}'),
    "another shape": _other_shape,
    "a size that is no number": _of_another_type,
    "a template that is no text": _with_template,
    "a broken tokenizer": lambda folder: (folder / "tokenizer.json").write_text("{"),
}


@pytest.mark.parametrize("case", BROKEN_MODELS)
def test_broken_models(run_arguments, tmp_path, capsys, monkeypatch, case):
    monkeypatch.setattr("hf_unlearn.tasks.run.RunEvaluator.__call__", lambda *_, **__: pytest.fail("it went on"))
    folder = shutil.copytree(run_arguments["model_name_or_path"], tmp_path / "the_model")
    BROKEN_MODELS[case](folder)
    words = [f"--{name}={value}" for name, value in {**run_arguments, "model_name_or_path": folder}.items()]
    status, said = ended(capsys, "train", *words, "--use_cpu", "--report_to", "none")
    assert status in (1, 2) and "the_model" in said and "Traceback" not in said
    assert "keeper" not in said and "xyzzy" not in said
    assert not Path(run_arguments["output_dir"]).exists()


@pytest.fixture(scope="module")
def edited(run_arguments, tmp_path_factory):
    """A run's folder, a checkpoint of a run, and what each command makes of them: status and error by its name."""
    folder = tmp_path_factory.mktemp("edited")
    run = save_run(folder / "run", record(), showable=[{"prompt": "who?", "answers": {"before": "a", "after": "b"}}])
    words = [f"--{name}={value}" for name, value in {**run_arguments, "output_dir": run}.items() if name != "task"]
    parsed = parse_task("custom", [*words, "--use_cpu", "--report_to", "none"])
    task = make_task("custom", parsed)
    # After the arguments, which reset what all trainers of a process share.
    trainer = build(
        folder / "resumed", peft_config=LoraConfig(r=2, target_modules=["q_proj"]), max_steps=1, save_strategy="steps"
    )
    trainer.train()
    checkpoint = folder / "resumed" / "checkpoint-1"
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(checkpoint / name, run)

    def ends(verb: str, capsys) -> tuple[int, str]:
        if verb in ("evaluate", "resume"):
            call = {
                "evaluate": lambda: evaluate_saved(task, parsed, "after", None),
                "resume": lambda: trainer.run_folder.open(str(checkpoint)),
            }[verb]
            said = refusal(call)
            return (0, "") if said is None else (2, said)  # the command's status for a ValueError
        where = {"report": ["-o", str(folder / "report.html")], "card": [], "push": ["me/model", "--dry-run"]}[verb]
        return ended(capsys, verb, str(run), *where)

    return run, checkpoint, ends


READ_BY = {
    "results.json": ("report", "card", "push", "evaluate", "resume"),
    "evaluation_after.json": ("report", "evaluate"),
    "showable.json": ("report", "evaluate"),
    "adapter_config.json": ("push", "evaluate", "resume"),
}


@pytest.mark.parametrize("name", READ_BY)
def test_edited_files_through_every_command_that_reads_them(edited, capsys, monkeypatch, name):
    monkeypatch.setattr("hf_unlearn.tasks.evaluate_saved.load_model", lambda *_: pytest.fail("it went on"))
    run, checkpoint, ends = edited
    sound = (run / name).read_bytes()
    draw = random.Random(SEED)
    edits: list = [(text, name) for text in bad_texts(sound.decode(), draw)]
    if name == "adapter_config.json":
        edits += bad_adapters(json.loads(sound))
    elif name != "showable.json":
        edits += bad_records(json.loads(sound), draw, 4)  # `test_records` has more, of the loader alone
    accepted, tried = [], 0
    for verb in READ_BY[name]:
        place = (checkpoint if verb == "resume" else run) / name
        whole = place.read_bytes()
        for edit, key in edits:
            tried += 1
            place.write_bytes(edit if isinstance(edit, bytes) else json.dumps(edit).encode())
            status, said = ends(verb, capsys)
            named = name in said and (key in said or verb == "resume")  # a checkpoint's files have known lengths
            if status != 2 or not named or "Traceback" in said:
                accepted.append((verb, key, status, said[-300:]))
        place.write_bytes(whole)
    counted(f"edits of {name}", accepted, 22, tried)
