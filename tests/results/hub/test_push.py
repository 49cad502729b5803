"""Which files of a run a push brings to the Hub, and what becomes of a repository. Not who may see it, nor faults."""

import json

import pytest
from huggingface_hub import HfApi
from safetensors.torch import load_file

from fixtures.examples import assert_four_parts
from hf_unlearn.results.card_file import saved_plots
from hf_unlearn.results.hub.errors import PushError
from hf_unlearn.results.hub.merge_adapter import merge_adapter
from hf_unlearn.results.hub.push import Push, plan_push
from hf_unlearn.results.model_card import render_card
from hf_unlearn.results.record import load_record
from local_hub.card_rules import check_card
from results.hub.runs import (
    ADAPTER,
    BASE,
    KEPT,
    PLANTED,
    PLOTS,
    REPO,
    SECRET,
    WHOLE,
    content,
    copied,
    pushed,
    train,
    trainer_of,
)

pytest_plugins = ["fixtures.hub"]


def push(api, folder, repo=REPO, *, base_model=None, **options):
    return Push(plan_push(folder, repo, base_model=base_model), api=api, **options)()


# What goes


@pytest.mark.parametrize("kind", ["adapter", "whole"])
def test_exactly_the_allowed_files_go(hub, api, adapter_run, whole_run, kind):
    run, allowed = {"adapter": (adapter_run, ADAPTER), "whole": (whole_run, WHOLE)}[kind]
    before = content(run)
    assert {*KEPT[:3], *PLANTED} <= set(before)  # the folder has what must not go
    push(api, run)

    assert set(pushed(hub)) == allowed | PLOTS
    assert SECRET not in hub.stored_bytes()
    assert str(run.parent).encode() not in hub.stored_bytes()
    assert content(run) == before
    changed = {"README.md", "adapter_config.json"}
    assert {name: data for name, data in pushed(hub).items() if name not in changed} == {
        name: before[name] for name in (allowed | PLOTS) - changed
    }


def test_a_plan_says_what_goes_and_what_stays(adapter_run):
    plan = plan_push(adapter_run, REPO)
    assert set(plan.files) == ADAPTER | PLOTS
    assert set(plan.kept) == set(content(adapter_run)) - ADAPTER - PLOTS
    weights = adapter_run / "adapter_model.safetensors"
    assert plan.sizes()["adapter_model.safetensors"] == weights.stat().st_size
    assert plan.sizes()["README.md"] == len(plan.files["README.md"])


def test_sharded_weights_and_templates_go_and_other_safetensors_stay(whole_run, tmp_path):
    run = copied(whole_run, tmp_path)
    more = {
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "chat_template.jinja",
        "additional_chat_templates/tool_use.jinja",
        "spiece.model",
        "merges.txt",
        "special_tokens_map.json",
    }
    kept = {
        "optimizer.safetensors",
        "reference.safetensors",
        "global_step2/model.safetensors",
        "additional_chat_templates/a/b.jinja",
        "pytorch_model.bin",  # a pickle stays even beside safetensors
        "pytorch_model.bin.index.json",
        "model.pt",
        "tokenizer.pkl",
        "weights.bin",
    }
    for name in more | kept:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(b"x")
    plan = plan_push(run, REPO)
    assert set(plan.files) == WHOLE | PLOTS | more
    assert kept <= set(plan.kept)


@pytest.mark.parametrize("pickle", ["adapter_model.bin", "pytorch_model.bin", "pytorch_model-00001-of-00002.bin"])
def test_pickled_weights_are_refused(adapter_run, tmp_path, pickle):
    run = copied(adapter_run, tmp_path)
    (run / "adapter_model.safetensors").rename(run / pickle)
    with pytest.raises(ValueError) as error:
        plan_push(run, REPO)
    assert_four_parts(str(error.value), "safetensors", pickle, "runs whatever code is in it")


def test_a_folder_without_weights_or_with_those_of_two_runs_is_refused(adapter_run, whole_run, tmp_path):
    run = copied(adapter_run, tmp_path)
    (run / "model.safetensors").write_bytes((whole_run / "model.safetensors").read_bytes())
    with pytest.raises(ValueError) as error:
        plan_push(run, REPO)
    assert_four_parts(str(error.value), "adapter_model.safetensors", "model.safetensors", "two runs")
    for name in ("model.safetensors", "adapter_model.safetensors"):
        (run / name).unlink()
    with pytest.raises(ValueError) as error:
        plan_push(run, REPO)
    assert_four_parts(str(error.value), "nothing to push")


def test_a_folder_without_a_record_is_refused(adapter_run, tmp_path):
    run = copied(adapter_run, tmp_path)
    (run / "results.json").unlink()
    with pytest.raises(ValueError) as error:
        plan_push(run, REPO)
    # Its checkpoints tell that the run was killed.
    assert_four_parts(str(error.value), "results.json", "--resume_from_checkpoint true")
    with pytest.raises(ValueError, match="output_dir of a run"):
        plan_push(tmp_path / "none", REPO)


@pytest.mark.parametrize(
    "name", ["a/b/c", "tester/-x", "tester/a b", "/secret/model", "", "tester/x--y", "tester/x.git"]
)
def test_what_is_no_repository_is_refused(adapter_run, name):
    for given in ({"repo_id": name}, {"repo_id": REPO, "base_model": name}):
        with pytest.raises(ValueError) as error:
            plan_push(adapter_run, **given)
        assert_four_parts(str(error.value), "owner/name", repr(name))


# The card


def test_the_card_is_rendered_with_the_repositorys_name(hub, api, adapter_run):
    push(api, adapter_run)
    card = pushed(hub)["README.md"].decode()
    assert REPO in card and REPO not in (adapter_run / "README.md").read_text(encoding="utf-8")
    assert "plots/losses.png" in card
    assert check_card(card) == ([], [])


def test_plots_of_an_earlier_run_are_neither_shown_nor_pushed(hub, api, adapter_run, tmp_path):
    """Another log in the record, as a second run in the same folder leaves it, before its own plots are drawn."""
    run = copied(adapter_run, tmp_path)
    assert saved_plots(run) == {"Losses": "plots/losses.png"}
    record = load_record(run)
    record.log.append({"loss": 1.0, "step": 3})
    record.save(run)
    assert saved_plots(run) == {}
    (run / "README.md").unlink()
    push(api, run)
    assert set(pushed(hub)) == ADAPTER and "plots/" not in pushed(hub)["README.md"].decode()


def test_an_adapter_without_a_base_on_the_hub_comes_with_a_note(adapter_run):
    assert "--base_model" in plan_push(adapter_run, REPO).notes[0]
    assert plan_push(adapter_run, REPO, base_model=BASE).notes == ()


def test_a_card_that_was_edited_by_hand_is_pushed_as_it_is(hub, api, adapter_run, tmp_path):
    run = copied(adapter_run, tmp_path)
    edited = (run / "README.md").read_text(encoding="utf-8") + "\nOne more sentence, by hand.\n"
    (run / "README.md").write_text(edited, encoding="utf-8")
    push(api, run)
    assert pushed(hub)["README.md"].decode() == edited


@pytest.mark.parametrize("line", ["license: my-own", "base_model: /a/path", "tags: one"])
def test_a_card_that_the_hub_refuses_is_the_users_to_mend(hub, api, adapter_run, tmp_path, line):
    run = copied(adapter_run, tmp_path)
    (run / "README.md").write_text(f"---\n{line}\n---\n# By hand\n", encoding="utf-8")
    with pytest.raises(ValueError, match="whose metadata the Hub accepts"):
        push(api, run)
    assert pushed(hub) == {}


def test_a_card_is_told_from_an_edited_one_whatever_its_record_holds(tmp_path):
    """Figures that are no numbers, and what JSON turns into something else, must not look like an edit."""
    trainer = trainer_of(tmp_path)
    trainer.train()
    trainer.record.attacks = []
    trainer.record.holdout_nll = float("nan")
    trainer.record.trainer_metrics = {"eval_forget_nll": float("inf"), "eval_retain_nll": 0.5}
    trainer.record.arguments = {"betas": (0.9, 0.95), "layers": {1: 2.0}}
    trainer.state.log_history.append({"step": 2, "loss": float("nan"), "forget/npo": float("-inf")})
    trainer.save_model()
    out = tmp_path / "out"
    assert REPO.encode() in plan_push(out, REPO).files["README.md"]
    written = (out / "README.md").read_text(encoding="utf-8")
    assert written == render_card(load_record(out))


def test_a_card_is_made_where_there_is_none(hub, api, adapter_run, tmp_path):
    run = copied(adapter_run, tmp_path)
    (run / "README.md").unlink()
    push(api, run)
    assert REPO in pushed(hub)["README.md"].decode()


# The base model


def test_the_path_of_a_local_base_model_is_taken_out(hub, api, adapter_run):
    path = json.loads((adapter_run / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert path == str(adapter_run.parent / "base")
    push(api, adapter_run)
    config = json.loads(pushed(hub)["adapter_config.json"])
    assert (config["base_model_name_or_path"], config["revision"], config["r"]) == (None, None, 2)
    assert path.encode() not in hub.stored_bytes()


def test_a_relative_path_of_the_base_model_is_taken_out_wherever_the_push_is_started(
    hub, api, adapter_run, tmp_path, monkeypatch
):
    run = copied(adapter_run, tmp_path)
    config = json.loads((run / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "secret-project/base"  # as it was given where that folder is
    (run / "adapter_config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    push(api, run)
    assert json.loads(pushed(hub)["adapter_config.json"])["base_model_name_or_path"] is None
    assert b"secret-project" not in hub.stored_bytes()


def test_the_base_models_repository_is_put_in_where_it_is_named(hub, api, adapter_run):
    push(api, adapter_run, base_model=BASE)
    files = pushed(hub)
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == BASE
    card, record = files["README.md"].decode(), json.loads(files["results.json"])
    assert f"base_model: {BASE}" in card and f"base_model:adapter:{BASE}" in card
    assert (record["model"]["id"], record["model"]["origin"]) == (BASE, "hub")
    assert check_card(card) == ([], [])
    assert load_record(adapter_run).model.id is None


# The repository


def test_a_second_push_without_changes_makes_no_commit(hub, api, adapter_run):
    first = push(api, adapter_run)
    hub.clear_requests()
    second = push(api, adapter_run)
    assert len(hub.commits(REPO)) == 2 and second.oid == first.oid
    assert not [request for request in hub.requests if "/commit/" in request.path or "lfs-uploads" in request.path]


def test_a_merged_model_takes_the_place_of_its_adapter(hub, api, adapter_run, tmp_path):
    push(api, adapter_run)
    api.upload_file(path_or_fileobj=b"a note", path_in_repo="notes.md", repo_id=REPO)
    api.upload_file(path_or_fileobj=b"a pickle", path_in_repo="adapter_model.bin", repo_id=REPO)
    merged = merge_adapter(adapter_run, tmp_path / "merged")
    push(api, merged)
    assert set(pushed(hub)) == WHOLE | PLOTS | {"notes.md"}  # what is no model's is left alone
    assert load_record(merged).model.merged and not load_record(adapter_run).model.merged
    card = pushed(hub)["README.md"].decode()
    assert "library_name: transformers" in card and "base_model:adapter" not in card
    push(api, adapter_run)
    assert set(pushed(hub)) == ADAPTER | PLOTS | {"notes.md"}
    assert [len(commit.files) for commit in hub.commits(REPO)][-1] == len(ADAPTER | PLOTS) + 2


def test_what_is_no_adapter_is_not_merged(whole_run, tmp_path):
    with pytest.raises(ValueError) as error:
        merge_adapter(whole_run, tmp_path / "merged")
    assert_four_parts(str(error.value), "adapter", "--merge")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_merged_weights_have_the_dtype_that_was_asked_for(adapter_run, tmp_path, dtype):
    merged = merge_adapter(adapter_run, tmp_path / "merged", dtype=dtype)
    found = load_file(merged / "model.safetensors")
    assert {str(weight.dtype) for weight in found.values()} == {f"torch.{dtype}"}


def test_a_branch_is_made_and_pushed_to(hub, api, adapter_run, whole_run):
    push(api, whole_run)
    main = pushed(hub)
    push(api, adapter_run, revision="rank/2", private=False, message="Rank 2")
    assert set(pushed(hub, revision="rank/2")) == ADAPTER | PLOTS
    assert pushed(hub) == main
    assert hub.commits(REPO, branch="rank/2")[-1].title == "Rank 2"
    push(api, adapter_run, revision="rank/2", private=False)
    assert len(hub.commits(REPO, branch="rank/2")) == 3  # the first, main's and one of its own


def test_a_name_without_an_owner_is_the_tokens(hub, api, whole_run):
    push(api, whole_run, repo="unlearned")
    assert set(pushed(hub, "tester/unlearned")) == WHOLE | PLOTS


# The trainer


def test_a_trainers_push_brings_the_same_files(hub, tmp_path):
    run = train(tmp_path)
    trainer = trainer_of(tmp_path, hub_model_id=REPO)
    trainer.train()
    commit = trainer.push_to_hub("By the trainer", license="mit")
    assert set(pushed(hub)) == ADAPTER  # the plots in the folder are those of the run before
    assert (hub.commits(REPO)[-1].title, commit.oid) == ("By the trainer", hub.commits(REPO)[-1].oid)
    card = pushed(hub)["README.md"].decode()
    assert "license: mit" in card and REPO in card
    assert SECRET not in hub.stored_bytes() and str(run.parent).encode() not in hub.stored_bytes()
    assert trainer.push_to_hub(blocking=False).result().oid == commit.oid


def test_every_save_is_pushed_as_a_model_that_loads(hub, tmp_path):
    trainer = trainer_of(
        tmp_path,
        max_steps=3,
        push_to_hub=True,
        hub_model_id=REPO,
        hub_strategy="every_save",
        hub_always_push=True,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=1,
    )
    trainer.train()
    trainer.push_to_hub()
    commits = [(commit.title, set(commit.files) - {".gitattributes"}) for commit in hub.commits(REPO)[1:]]
    assert [title for title, _ in commits][:2] == [f"Training in progress, step {step}" for step in (1, 2)]
    assert all(files == ADAPTER for _, files in commits)
    assert len(commits) >= 3
    assert json.loads(pushed(hub)["results.json"])["steps"] == 3


def test_templates_of_a_checkpoint_go_along(hub, tmp_path):
    trainer = trainer_of(
        tmp_path, push_to_hub=True, hub_model_id=REPO, save_strategy="steps", save_steps=1, hub_always_push=True
    )
    trainer.processing_class.chat_template = {"default": "{{ messages }}", "tool_use": "{{ tools }}"}
    trainer.train()
    trainer.push_to_hub()
    assert {"chat_template.jinja", "additional_chat_templates/tool_use.jinja"} <= set(pushed(hub))
    assert not [request for request in hub.requests if request.fault]


@pytest.mark.parametrize("strategy", ["checkpoint", "all_checkpoints"])
def test_strategies_that_push_pickles_are_refused(hub, tmp_path, strategy):
    with pytest.raises(ValueError) as error:
        trainer_of(tmp_path, push_to_hub=True, hub_model_id=REPO, hub_strategy=strategy)
    assert_four_parts(str(error.value), "every_save or end", strategy)
    assert hub.requests == []


def test_the_hub_sees_no_secret_of_the_arguments(hub, tmp_path):
    trainer = trainer_of(tmp_path, hub_model_id=REPO, hub_token=hub.token, run_name="secret-run", push_to_hub=True)
    trainer.train()
    trainer.push_to_hub()
    assert isinstance(trainer.args.hub_token, str) and trainer.args.hub_token == hub.token
    for secret in (hub.token, "secret-run", str(tmp_path)):
        assert secret.encode() not in hub.stored_bytes()
    for path in (tmp_path / "out").rglob("*"):
        assert not path.is_file() or hub.token.encode() not in path.read_bytes(), path.name


def test_a_push_without_a_token_says_how_to_log_in(hub, adapter_run, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PushError) as error:
        push(HfApi(endpoint=hub.url, token=False), adapter_run)
    assert_four_parts(str(error.value), "401", "hf auth login")
