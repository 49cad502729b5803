"""Who may see a pushed model: what its sets come from decides. Not what is in the files."""

import dataclasses
import os
import subprocess
import sys

import datasets
import httpx2
import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from fixtures.examples import assert_four_parts
from fixtures.models import FORGET, RETAIN, train_sets
from hf_unlearn.data.provenance import Source, source_of
from hf_unlearn.results.hub.push import Push, needs_private, plan_push
from hf_unlearn.results.record import ModelRecord, RunRecord, SetRecord, load_record
from results.hub.runs import REPO, copied, lab_like, pushed, trainer_of

pytest_plugins = ["fixtures.hub"]

ROWS = "tester/rows"
COMMIT = "a" * 40
LAB = SetRecord(30, "9a" * 32, "lab", "games", untouched=True)
LABS_MODEL = ModelRecord(id="games", origin="lab")


def on_hub(name=ROWS):
    return SetRecord(12, "3f" * 32, "hub", name, COMMIT, untouched=True)


def record_with(run, folder, **sets):
    """A copy of a run whose record has other sets."""
    target = copied(run, folder)
    record = load_record(target)
    record.sets = sets
    record.save(target)
    return target


def push(api, folder, **options):
    return Push(plan_push(folder, REPO), api=api, **options)()


@pytest.fixture
def dataset(api):
    """Makes a dataset repository on the Hub."""

    def make(name=ROWS, *, private=False):
        api.create_repo(name, repo_type="dataset", private=private)
        rows = b"".join(b'{"prompt": "p%d", "completion": " c%d"}\n' % (i, i) for i in range(40))
        api.upload_file(path_or_fileobj=rows, path_in_repo="train.jsonl", repo_id=name, repo_type="dataset")

    return make


# What decides


def test_sets_of_the_users_own_make_a_private_repository(hub, api, adapter_run):
    push(api, adapter_run)
    assert hub.private(REPO)


def test_the_labs_sets_make_a_public_one(hub, api, whole_run):
    push(api, whole_run)
    assert not hub.private(REPO)


@pytest.mark.parametrize(("where", "private"), [("public", False), ("private", True), ("missing", True)])
def test_a_dataset_of_the_hub_is_as_public_as_the_hub_says(hub, api, dataset, whole_run, tmp_path, where, private):
    if where != "missing":
        dataset(private=where == "private")
    push(api, record_with(whole_run, tmp_path, forget=on_hub(), retain=LAB))
    assert hub.private(REPO) is private


@pytest.mark.parametrize("gated", ["auto", "manual"])
def test_a_gated_dataset_is_not_public(hub, api, dataset, monkeypatch, gated):
    dataset()
    plain = api.dataset_info(ROWS)
    assert not needs_private(RunRecord(model=LABS_MODEL, sets={"forget": on_hub()}), api)
    plain.gated = gated
    monkeypatch.setattr(api, "dataset_info", lambda name: plain)
    assert needs_private(RunRecord(model=LABS_MODEL, sets={"forget": on_hub()}), api)


@pytest.mark.parametrize("error", [GatedRepoError, RepositoryNotFoundError])
def test_a_dataset_that_cannot_be_asked_for_is_not_public(api, monkeypatch, error):
    def refuse(name):
        raise error("no", response=httpx2.Response(403, request=httpx2.Request("GET", "http://hub")))

    monkeypatch.setattr(api, "dataset_info", refuse)
    assert needs_private(RunRecord(model=LABS_MODEL, sets={"forget": on_hub()}), api)


@pytest.mark.parametrize(
    ("sets", "private"),
    [
        ({}, True),  # nothing is known of a run without sets
        ({"forget": LAB, "retain": LAB}, False),
        ({"forget": LAB, "retain": SetRecord()}, True),  # one set is enough
        ({"forget": LAB, "holdout": SetRecord()}, True),
        ({"forget": SetRecord(origin="hub", untouched=True)}, True),  # of the Hub, by word only
        ({"forget": LAB, "retain": dataclasses.replace(LAB, untouched=False)}, True),  # it may hold other rows
        ({"forget": SetRecord(origin="web", id="a/b")}, True),
        ({"forget": on_hub(), "retain": on_hub("tester/hidden")}, True),
    ],
)
def test_every_set_has_to_be_public(hub, api, dataset, sets, private):
    dataset()
    dataset("tester/hidden", private=True)
    assert needs_private(RunRecord(model=LABS_MODEL, sets=sets), api) is private


@pytest.mark.parametrize(
    ("model", "private"),
    [
        (LABS_MODEL, False),
        (ModelRecord(), True),  # a local model: its weights are the user's own
        (ModelRecord(id="tester/open", origin="hub"), False),
        (ModelRecord(id="tester/secret", origin="hub"), True),
        (ModelRecord(id="tester/none", origin="hub"), True),
        (ModelRecord(fitted_from="tester/open", fitted_origin="hub"), False),
        (ModelRecord(fitted_from="tester/secret", fitted_origin="hub"), True),
        (ModelRecord(id="games", origin="lab", fitted_from="a local model", fitted_origin="local"), True),
    ],
)
def test_the_model_has_to_be_public_too(hub, api, model, private):
    api.create_repo("tester/open")
    api.create_repo("tester/secret", private=True)
    assert needs_private(RunRecord(model=model, sets={"forget": LAB}), api) is private


@pytest.mark.parametrize("private", [True, False])
def test_what_the_user_says_comes_first(hub, api, adapter_run, whole_run, private):
    push(api, whole_run if private else adapter_run, private=private)
    assert hub.private(REPO) is private


# A repository that exists


@pytest.mark.parametrize("asked", [None, True])
def test_a_public_repository_is_refused_when_it_has_to_be_private(hub, api, adapter_run, asked):
    api.create_repo(REPO, private=False)
    with pytest.raises(ValueError) as error:
        push(api, adapter_run, private=asked)
    assert_four_parts(str(error.value), REPO, "public already", "--public")
    assert ("asked for" in str(error.value)) is (asked is True)
    assert pushed(hub) == {} and not hub.private(REPO)

    push(api, adapter_run, private=False)
    assert "adapter_model.safetensors" in pushed(hub)


def test_a_private_repository_stays_private(hub, api, whole_run):
    api.create_repo(REPO, private=True)
    push(api, whole_run)
    assert hub.private(REPO) and "model.safetensors" in pushed(hub)


# The trainer


@pytest.mark.parametrize("public", [True, False])
def test_a_trainers_push_follows_the_sets(hub, tmp_path, public):
    trainer = trainer_of(tmp_path, public=public, hub_model_id=REPO)
    trainer.train()
    assert hub.requests == []
    trainer.push_to_hub()
    assert hub.private(REPO) is not public


@pytest.mark.parametrize("said", [True, False])
def test_a_trainers_push_does_as_it_is_told(hub, tmp_path, said):
    trainer_of(tmp_path, public=said, hub_model_id=REPO).push_to_hub(private=said)
    assert hub.private(REPO) is said


@pytest.mark.parametrize("said", [None, True, False])
@pytest.mark.parametrize("public", [True, False])
def test_pushes_during_the_training_follow_the_same_rules(hub, tmp_path, public, said):
    trainer = trainer_of(
        tmp_path,
        public=public,
        push_to_hub=True,
        hub_model_id=REPO,
        hub_strategy="every_save",
        hub_private_repo=said,
        save_strategy="steps",
        save_steps=1,
    )
    # Made before the training, and before anybody could vouch for the sets.
    private = True if said is None else said
    assert hub.private(REPO) is private
    trainer.train()
    trainer.push_to_hub()
    assert hub.private(REPO) is private
    assert len(hub.commits(REPO)) > 1


def test_a_public_repository_is_refused_before_the_training(hub, api, tmp_path):
    api.create_repo(REPO, private=False)
    with pytest.raises(ValueError) as error:
        trainer_of(tmp_path, push_to_hub=True, hub_model_id=REPO)
    assert_four_parts(str(error.value), REPO, "public already")
    assert pushed(hub) == {}


def test_a_public_repository_is_refused_by_a_trainers_push(hub, api, tmp_path):
    trainer = trainer_of(tmp_path, hub_model_id=REPO)
    api.create_repo(REPO, private=False)
    with pytest.raises(ValueError) as error:
        trainer.push_to_hub()
    assert_four_parts(str(error.value), REPO, "public already")
    # One that became public in the meantime, too.
    api.update_repo_settings(REPO, private=True)
    trainer.push_to_hub()
    api.update_repo_settings(REPO, private=False)
    trainer.processing_class.add_tokens(["<new>"])
    with pytest.raises(ValueError):
        trainer.push_to_hub()
    assert b"<new>" not in pushed(hub)["tokenizer.json"]


def test_what_a_user_says_of_the_sets_counts(hub, api, dataset, tmp_path):
    dataset()
    trainer = trainer_of(tmp_path, hub_model_id=REPO)
    for role in ("forget", "retain"):
        trainer.record.sets[role] = on_hub()
    trainer.record.model.origin = "lab"
    del trainer.record.sets["holdout"]
    trainer.push_to_hub()
    assert not hub.private(REPO)


# Where rows come from

PROGRAM = """
import sys
import datasets
from datasets import concatenate_datasets, load_dataset
from hf_unlearn.data.provenance import source_of
from hf_unlearn.data.sources import load_rows

name, commit, file = sys.argv[1:]

def told(rows, **expected):
    found = source_of(rows)
    wanted = ("hub", name, commit) if not expected else (expected["origin"], None, None)
    assert (found.origin, found.id, found.revision) == wanted, (found, wanted)

columns = {"prompt": "prompt", "completion": "completion"}
for revision in (None, "main", commit):
    rows = load_rows(name, revision=revision)
    told(rows)
    told(load_rows(name, revision=revision, limit=5, seed=1, columns=columns))
parts = load_dataset("tester/parts", split="train").cast_column("prompt", datasets.Value("string"))
assert source_of(parts).id == "tester/parts", source_of(parts)
told(concatenate_datasets([parts, load_dataset(name, split="train")]), origin="local")

def ended(row):
    return {"completion": row["completion"] + "."}

# Made in memory, rows have no cache that tells; those of load_rows are marked themselves.
told(load_rows(name).map(ended, keep_in_memory=True, load_from_cache_file=False))
told(load_dataset(name, split="train").map(ended, keep_in_memory=True, load_from_cache_file=False), origin="local")
for rows in (load_rows(name), load_dataset(name, split="train"), load_dataset(name, revision=commit)["train"]):
    told(rows)
    told(rows.map(ended))
    told(rows.select(range(5)).select([0, 2]))
    told(rows.rename_column("prompt", "question").shuffle(seed=0).filter(lambda row: len(row["question"]) > 2))
    told(rows.train_test_split(0.5, seed=0)["train"])
    told(concatenate_datasets([rows.select(range(3)), rows.select(range(5, 9))]))
    # With rows of one's own among them, nobody else can read all of it.
    own = datasets.Dataset.from_list([{"prompt": "mine", "completion": " mine"}])
    for mixed in ([rows, own], [own, rows], [rows, load_dataset("json", data_files=file, split="train")]):
        told(concatenate_datasets(mixed), origin="local")
    told(rows.to_list(), origin="local")
    told(datasets.Dataset.from_list(rows.to_list()), origin="local")
told(load_rows(file), origin="local")
told(load_dataset("json", data_files=file, split="train"), origin="local")
told(load_dataset("json", data_files=file, split="train", streaming=True), origin="local")
told(load_dataset(name, split="train", streaming=True), origin="local")
print("told")
"""


@pytest.mark.slow
def test_rows_of_the_hub_are_known_through_what_is_made_of_them(hub, api, dataset, tmp_path):
    dataset()
    dataset("tester/parts")
    api.upload_file(
        path_or_fileobj=b'{"prompt": "one more", "completion": " c"}\n',
        path_in_repo="train-2.jsonl",
        repo_id="tester/parts",
        repo_type="dataset",
    )
    file = tmp_path / "own.jsonl"
    file.write_text('{"prompt": "p", "completion": " c"}\n')
    commit = hub.commits(ROWS, "dataset")[-1].oid
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    run = subprocess.run(
        [sys.executable, str(program), ROWS, commit, str(file)],
        env={**os.environ, **hub.environment(tmp_path / "home"), "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.stdout.endswith("told\n"), run.stderr[-3000:]


def test_rows_of_the_lab_are_known_and_those_among_which_are_others_are_not():
    rows = lab_like()["forget"]
    made = (
        rows.map(lambda row: {"completion": row["completion"] + "."}).select(range(3)).rename_columns({"prompt": "q"})
    )
    for each in (rows, made):
        assert source_of(each) == Source("lab", "games")
    own = train_sets()["forget"]
    for each in (own, datasets.concatenate_datasets([rows, own]), FORGET, iter(RETAIN), None, "a name", [rows]):
        assert source_of(each) == Source()
    assert source_of(own.to_iterable_dataset()) == Source()


def test_a_saved_folder_is_the_users_own_whatever_it_is_called(tmp_path):
    folder = tmp_path / "owner___name" / "default" / "0.0.0" / COMMIT
    train_sets()["forget"].save_to_disk(folder)
    assert source_of(datasets.load_from_disk(folder)) == Source()
