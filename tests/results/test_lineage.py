"""Where a run's weights come from and what became of them: files by hash, from one run to the next."""

import hashlib
import json
import subprocess
from datetime import datetime

import pytest
from peft import LoraConfig

from fixtures.models import make_trainer, tiny_model, tiny_tokenizer
from hf_unlearn.model.fingerprints import hash_weights
from hf_unlearn.model.weight_files import loaded_file_hashes
from hf_unlearn.results import lineage
from hf_unlearn.results.hub.merge_adapter import merge_adapter
from hf_unlearn.results.lineage import Lineage, code_version, file_hash, lineage_words
from hf_unlearn.results.model_card import render_card
from hf_unlearn.results.record import RunRecord, load_record
from hf_unlearn.results.report.facts import facts_of

LORA = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)


def run(folder, model, **arguments):
    """A run of one step, saved as a plain script saves it; its record."""
    trainer = make_trainer(folder, model, **arguments)
    trainer.train()
    trainer.save_model()
    trainer.close()
    return load_record(folder / "out")


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The folder of a run whose model was in memory, and the hash of the model before."""
    folder, model = tmp_path_factory.mktemp("first"), tiny_model()
    before = hash_weights(model)
    run(folder, model)
    tiny_tokenizer().save_pretrained(folder / "out")
    return folder / "out", before


def test_runs_in_sequence_are_linked_by_their_files(tmp_path, first):
    parent, before = first
    known = load_record(parent).lineage
    assert known.weights_in == {"in memory": before} and known.parent is None and known.parent_record is None
    assert known.weights_out == {"model.safetensors": sha(parent / "model.safetensors")}
    assert datetime.fromisoformat(known.date).utcoffset().total_seconds() == 0

    adapted = run(tmp_path, str(parent), peft_config=LORA, save_strategy="steps", save_steps=1)
    child = adapted.lineage
    assert child.weights_in == known.weights_out and child.weights_in != child.weights_out
    assert (child.parent, child.parent_record) == ("out", sha(parent / "results.json"))
    assert child.weights_out == {"adapter_model.safetensors": sha(tmp_path / "out" / "adapter_model.safetensors")}
    assert not adapted.public  # what an earlier run was about is not known
    # A checkpoint says of its own files, whose weights are those of the end here.
    checkpoint = load_record(tmp_path / "out" / "checkpoint-1").lineage
    assert checkpoint.weights_out == child.weights_out and checkpoint.weights_in == child.weights_in

    # From an adapter: its own file, and its base's under another name.
    third = run(tmp_path / "third", str(tmp_path / "out")).lineage
    base = {f"base/{name}": weights for name, weights in child.weights_in.items()}
    assert third.weights_in == child.weights_out | base

    # Merged weights are other files, of the same run.
    merge_adapter(tmp_path / "out", tmp_path / "merged")
    merged = load_record(tmp_path / "merged").lineage
    assert merged.weights_out == {"model.safetensors": sha(tmp_path / "merged" / "model.safetensors")}
    assert (merged.weights_in, merged.date) == (child.weights_in, child.date)


def test_the_files_of_a_model_from_the_hub_are_those_of_its_snapshot(tmp_path):
    snapshot = tmp_path / "models--org--name" / "snapshots" / ("c" * 40)
    for folder, text in ((snapshot, "new"), (snapshot.with_name("d" * 40), "old")):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_text(text)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("c" * 40)
    for revision, text in ((None, "new"), ("main", "new"), ("d" * 40, "old")):
        expected = {"model.safetensors": hashlib.sha256(text.encode()).hexdigest()}
        assert loaded_file_hashes("org/name", revision=revision, cache_dir=str(tmp_path)) == expected
    for unknown in ("org/other", "no name", "a/b/c"):
        assert loaded_file_hashes(unknown, cache_dir=str(tmp_path)) == {}


def test_what_a_task_has_put_in_stays_and_a_new_training_has_a_new_date(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, tiny_model())
    trainer.record.lineage = Lineage(requests=("R-1", "R-2"), recipe="ab" * 32, parent="earlier")
    moments = iter(f"2026-01-0{day}T00:00:00+00:00" for day in range(1, 9))
    for place in ("hf_unlearn.results.lineage.now", "hf_unlearn.training.hooks.run_lineage.now"):
        monkeypatch.setattr(place, lambda: next(moments))
    dates = []
    for _ in range(2):
        trainer.train()
        for _ in range(2):  # one end, however often it is saved
            trainer.save_model()
        dates.append(load_record(tmp_path / "out").lineage.date)
    kept = load_record(tmp_path / "out").lineage
    assert (kept.requests, kept.recipe, kept.parent) == (("R-1", "R-2"), "ab" * 32, "earlier")
    assert dates[0] < dates[1]


def test_the_lineage_is_shown_in_short_and_older_records_have_none():
    sha256 = {f"model-{i}.safetensors": f"{i}" * 64 for i in range(5)}
    known = Lineage("2026-02-03T04:05:06+00:00", ("R-1",), "first", "e" * 64, {"in memory": "f" * 64}, sha256)
    record = RunRecord(name="second", lineage=known)
    assert record.as_saved() == record and record.as_saved().lineage.requests == ("R-1",)
    card = render_card(record)
    words = "continues from: first; weights in: in memory ffffffffffff; weights out: model-0.safetensors 000000000000"
    assert words in card and "and 2 more" in card and "0" * 13 not in card and "2026-02-03" in card
    assert ("continues from", "first") in facts_of(record.as_saved()).footer
    assert dict(lineage_words(Lineage(code=f"1.0, commit {'a' * 40}+changes")))["code"] == (
        f"hf_unlearn 1.0, commit {'a' * 12}+changes"
    )
    older = {name: value for name, value in record.to_dict().items() if name != "lineage"}
    assert "Lineage" not in render_card(RunRecord()) and "lineage" not in older


@pytest.mark.parametrize("wrong", [{"weights_in": ["a"]}, {"requests": "R-1"}, {"date": 3}, {"more": 1}])
def test_a_lineage_that_was_edited_into_something_else_is_refused(tmp_path, wrong):
    RunRecord(lineage=Lineage()).save(tmp_path)
    stored = json.loads((tmp_path / "results.json").read_text())
    stored["lineage"] |= wrong
    (tmp_path / "results.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=f"lineage.{next(iter(wrong))}"):
        load_record(tmp_path)


def test_the_commit_is_that_of_the_packages_own_checkout(tmp_path, monkeypatch):
    """Not of another project in whose folder it is installed, nor of the repository that a git hook is run for."""

    def git(*words):
        settings = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
        return subprocess.run(["git", *settings, "-C", str(tmp_path), *words], check=True, capture_output=True)

    package = tmp_path / "package"
    package.mkdir()
    (package / "version.py").write_text("")
    monkeypatch.setattr(lineage, "_PACKAGE", package)
    version = lineage.__version__

    def code():
        code_version.cache_clear()
        return code_version()

    try:
        assert code() == version  # no checkout
        git("init")
        assert code() == version  # not part of it
        git("add", ".")
        git("commit", "-m", "one")
        commit = git("rev-parse", "HEAD").stdout.decode().strip()
        monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
        assert code() == f"{version}, commit {commit}"
        (package / "more.py").write_text("")
        assert code() == f"{version}, commit {commit}+changes"
        monkeypatch.setenv("PATH", "")
        assert code() == version  # no git
    finally:
        code_version.cache_clear()
    assert file_hash(package / "missing") is None
