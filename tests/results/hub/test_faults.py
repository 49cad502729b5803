"""A Hub that fails at every request of a push in turn: what the user is told, and that the same push then goes on."""

import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections import Counter

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import close_session, get_session

from fixtures.examples import assert_four_parts
from hf_unlearn.cli import main
from hf_unlearn.results.hub.errors import PushError, hub_errors
from hf_unlearn.results.hub.push import Push, plan_push
from hf_unlearn.results.record import SetRecord, load_record
from local_hub.answers import Answer
from results.hub.runs import ADAPTER, PLOTS, REPO, WHOLE, content, copied, pushed, trainer_of

pytest_plugins = ["fixtures.hub"]

KINDS = (500, 429, 401, 403, 503, "cut", "hang")
LARGE = {"adapter_model.safetensors", "plots/losses.png"}
ROWS = "tester/rows"
SILENCE = 0.15  # seconds after which a push gives up; the test Hub answers in a hundredth of one
SAYS = {401: "hf auth login", 403: "hf auth login", 429: "a few minutes", 500: "wait", 503: "wait"}


@pytest.fixture(scope="module")
def run(adapter_run, tmp_path_factory):
    """A run on a set of the Hub, so that a push has to ask for it."""
    folder = copied(adapter_run, tmp_path_factory.mktemp("faults"))
    record = load_record(folder)
    record.sets = {
        "forget": SetRecord(12, "3f" * 32, "hub", ROWS, "a" * 40, untouched=True),
        "retain": SetRecord(origin="lab", untouched=True),
    }
    record.model.origin = "lab"  # so that the Hub is asked of the sets
    record.save(folder)
    return folder


def push(hub, folder, repo, revision=None):
    api = HfApi(endpoint=hub.url, token=hub.token)
    return Push(plan_push(folder, repo), api=api, revision=revision, timeout=SILENCE)()


def named(requests):
    """Requests by method and the last words of their paths, without what differs between two pushes."""
    return [f"{each.method} {'/'.join(each.path.split('?')[0].split('/')[1:3])}" for each in requests]


def assert_told(error, hub, kind):
    """The text of a PushError says all four parts and how to go on, and no secret."""
    text = str(error)
    assert_four_parts(text, "run the same command again", "not sent twice", "local folder is unchanged")
    assert SAYS.get(kind, "check the network") in text
    assert str(kind) in text if isinstance(kind, int) else "connection failed" in text
    chain, each = [], error
    while each is not None:
        chain.append(f"{each!r} {each}")
        each = each.__cause__
    assert len(chain) > 1 and hub.token not in "".join(chain)


def state_of(hub, repo, revision):
    """What a repository holds at a branch, None where there is none."""
    known = hub.repos.get(("model", repo))
    return None if known is None or revision not in known.branches else pushed(hub, repo, revision)


def arrived(hub, repo):
    """The hashes of the large files that a repository has been sent, committed or not."""
    return set(hub.blobs(repo)) if ("model", repo) in hub.repos else set()


def prepared(hub, where, repo, whole_run):
    """The repository before the push."""
    if where != "new":
        push(hub, whole_run, repo)


@pytest.mark.parametrize(
    ("where", "kind"), [*itertools.product(["new", "existing"], KINDS), *(("branch", kind) for kind in (403, "cut"))]
)
def test_a_push_fails_cleanly_at_every_request_and_goes_on(hub, api, impatient, run, whole_run, where, kind):
    api.create_repo(ROWS, repo_type="dataset")
    revision = "rank-2" if where == "branch" else None
    branch = revision or "main"
    prepared(hub, where, "tester/clean", whole_run)
    hub.clear_requests()
    push(hub, run, "tester/clean", revision)
    count, clean, before = len(hub.requests), pushed(hub, "tester/clean", branch), content(run)
    assert set(clean) == ADAPTER | PLOTS and count >= 9
    for position in range(count):
        # Of the same length, as it stands in the card.
        repo = f"tester/cl-{position:02}"
        prepared(hub, where, repo, whole_run)
        there, main = state_of(hub, repo, branch), state_of(hub, repo, "main")
        hub.fail(kind, at=position)
        with pytest.raises(PushError) as error:
            push(hub, run, repo, revision)
        assert_told(error.value, hub, kind)
        assert content(run) == before
        # No file is new and none is gone; an empty repository, or a branch like main, may have been made.
        assert state_of(hub, repo, branch) in ((there, main or {}) if where != "existing" else (there,))
        hub.heal()

        missing = {hashlib.sha256(clean[name]).hexdigest() for name in LARGE} - arrived(hub, repo)
        hub.clear_requests()
        push(hub, run, repo, revision)
        found = pushed(hub, repo, branch)
        assert {name: data.replace(repo.encode(), b"tester/clean") for name, data in found.items()} == clean
        assert len([request for request in hub.requests if request.method == "PUT"]) == len(missing)
        assert content(run) == before


def test_the_requests_of_a_push_are_few(hub, api, run):
    api.create_repo(ROWS, repo_type="dataset")
    hub.clear_requests()
    push(hub, run, REPO)
    asked = Counter(named(hub.requests))
    assert asked["POST api/repos"] == asked["POST api/validate-yaml"] == asked["GET api/datasets"] == 1
    assert len([each for each in hub.requests if each.method == "PUT"]) == len(LARGE)
    assert len([each for each in hub.requests if "/commit/" in each.path]) == 1
    assert str(hub.requests[0]).startswith("GET /api/datasets/")  # nothing is made before it is known who may see it


@pytest.mark.parametrize("kind", ["new", "existing"])
def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub, api, impatient, run, whole_run, kind):
    api.create_repo(ROWS, repo_type="dataset")
    prepared(hub, kind, REPO, whole_run)
    answer = hub._server.handle

    def forgetful(call, connection):
        found = answer(call, connection)
        return None if "/commit/" in call.path else found

    hub._server.handle = forgetful
    with pytest.raises(PushError) as error:
        push(hub, run, REPO)
    assert_told(error.value, hub, "cut")
    assert "all of the new files or none" in str(error.value)
    commits = len(hub.commits(REPO))
    assert set(pushed(hub)) == ADAPTER | PLOTS
    hub._server.handle = answer
    push(hub, run, REPO)
    assert len(hub.commits(REPO)) == commits and set(pushed(hub)) == ADAPTER | PLOTS


@pytest.mark.parametrize("status", [200, 502, 504])
def test_a_gateways_error_page_is_a_push_error(hub, api, impatient, run, monkeypatch, status):
    api.create_repo(ROWS, repo_type="dataset")
    hub.clear_requests()
    push(hub, run, "tester/clean")
    count = len(hub.requests)
    page = Answer(status, b"<html><h1>Bad gateway</h1></html>", {"Content-Type": "text/html"})
    monkeypatch.setattr("local_hub.faults.refused", lambda refusal: page)
    read = 0
    for position in range(count):
        repo = f"tester/model-{position}"
        hub.fail(500, at=position, times=1)
        try:
            push(hub, run, repo)
        except PushError as error:
            assert_four_parts(str(error), "run the same command again")
            read += 1
        hub.heal()
        push(hub, run, repo)
        assert set(pushed(hub, repo)) == ADAPTER | PLOTS
    # With status 200, an upload and its check pass for done; a file is then missed at the commit.
    assert read == count or (status == 200 and read >= count - 2 * len(LARGE))


def test_what_the_client_can_wait_for_it_waits_for(hub, api, slept, run):
    api.create_repo(ROWS, repo_type="dataset")
    hub.fail(503, match="preupload", times=2)
    hub.fail(429, match="lfs-uploads", times=1, retry_after=5)
    push(hub, run, REPO)
    assert sorted(slept) == [1, 2, 6] and set(pushed(hub)) == ADAPTER | PLOTS


def test_the_clients_own_patience_is_given_back(hub, api, run):
    api.create_repo(ROWS, repo_type="dataset")
    before = list(get_session().event_hooks["request"])
    limits = []
    get_session().event_hooks["request"].append(lambda request: limits.append(request.extensions["timeout"]["read"]))
    push(hub, run, REPO)
    hub.fail(500, match="repos/create")
    with pytest.raises(PushError):
        push(hub, run, REPO)
    api.whoami()
    assert get_session().event_hooks["request"][:-1] == before
    assert limits[-1] is None and len(limits) > 10
    close_session()


def test_a_hub_that_is_not_there(hub, impatient, run):
    api = HfApi(endpoint="http://127.0.0.1:9", token=hub.token)
    with pytest.raises(PushError) as error:
        Push(plan_push(run, REPO), api=api, timeout=SILENCE)()
    assert_told(error.value, hub, "cut")


def test_offline_mode_is_told(hub, run, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PushError) as error:
        push(hub, run, REPO)
    assert "OfflineModeIsEnabled" in str(error.value)


@pytest.mark.parametrize("made", ["RuntimeError", "XetAuthenticationError", "XetObjectNotFoundError"])
def test_what_xet_raises_is_a_push_error(hub, api, run, monkeypatch, made):
    """Its own words for an upload that failed: not those of the Hub's client, and without a cause."""
    hf_xet = pytest.importorskip("hf_xet")
    api.create_repo(ROWS, repo_type="dataset")

    def refuse(*args, **kwargs):
        raise RuntimeError("failed") if made == "RuntimeError" else getattr(hf_xet, made)("failed")

    monkeypatch.setattr(HfApi, "create_commit", refuse)
    with pytest.raises(PushError) as error:
        push(hub, run, REPO)
    assert_four_parts(str(error.value), made)


@pytest.mark.parametrize("made", [PermissionError, FileNotFoundError, IsADirectoryError])
def test_a_file_that_cannot_be_read_is_no_fault_of_the_hubs(hub, api, run, monkeypatch, made):
    api.create_repo(ROWS, repo_type="dataset")

    def refuse(*args, **kwargs):
        raise made("a local file")

    monkeypatch.setattr(HfApi, "create_commit", refuse)
    with pytest.raises(made):
        push(hub, run, REPO)


# The trainer


@pytest.mark.parametrize("kind", KINDS)
def test_a_trainers_push_fails_and_goes_on(hub, impatient, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(hub_errors.__wrapped__, "__defaults__", (SILENCE,))
    monkeypatch.setattr(Push, "timeout", SILENCE)
    monkeypatch.setattr(
        Push.__init__, "__defaults__", tuple(SILENCE if x == 300.0 else x for x in Push.__init__.__defaults__)
    )
    trainer = trainer_of(tmp_path, hub_model_id=REPO)
    trainer.train()
    for at in (0, 1, 5):
        hub.fail(kind, at=at)
        with pytest.raises(PushError) as error:
            trainer.push_to_hub()
        assert_told(error.value, hub, kind)
        hub.heal()
    trainer.push_to_hub()
    assert set(pushed(hub)) == ADAPTER


# The command line


def command(run, *more):
    return ["push", str(run), REPO, "--timeout", str(SILENCE), *more]


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_ends_with_1_and_then_with_0(hub, impatient, whole_run, capsys, kind):
    before = content(whole_run)
    for position in (0, 1, 4, 8):
        hub.fail(kind, at=position)
        assert main(command(whole_run)) == 1
        out, err = capsys.readouterr()
        assert err.startswith("hf-unlearn push: Expected ") or "hf-unlearn push: Expected " in err
        assert_four_parts(err, "run the same command again")
        assert out == "" and "Traceback" not in err and hub.token not in err
        hub.heal()
    assert main(command(whole_run)) == 0
    out, err = capsys.readouterr()
    assert f"Pushed {len(WHOLE | PLOTS)} files: {hub.url}/{REPO}/commit/{hub.commits(REPO)[-1].oid}" in out
    assert content(whole_run) == before and set(pushed(hub)) == WHOLE | PLOTS


def test_the_command_ends_with_2_for_what_is_the_users(hub, api, adapter_run, whole_run, tmp_path, capsys):
    edited = copied(adapter_run, tmp_path)
    (edited / "README.md").write_text("---\nlicense: my-own\n---\n", encoding="utf-8")
    api.create_repo("tester/public", private=False)
    wrong = {
        "results.json": ["push", str(tmp_path / "none"), REPO],
        "owner/name": ["push", str(whole_run), "a/b/c"],
        "leave --merge out": ["push", str(whole_run), REPO, "--merge"],
        "a dtype of torch": ["push", str(adapter_run), REPO, "--merge", "--merge_dtype", "float33"],
        "base_model as owner/name": ["push", str(adapter_run), REPO, "--base_model", "/secret/base"],
        "public already": ["push", str(adapter_run), "tester/public"],
        "whose metadata the Hub accepts": ["push", str(edited), REPO],
    }
    for words, arguments in wrong.items():
        assert main(arguments) == 2, words
        out, err = capsys.readouterr()
        assert out == "" and "hf-unlearn push: " in err and words in err and "Traceback" not in err
    assert pushed(hub, "tester/public") == {}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], "would be private, as not all of its model and sets are known to be public"),
        (["--public"], "would be public."),
        (["--private"], "would be private."),
        (["--base_model", "tester/base", "--revision", "a"], "would be private"),
        (["--json"], None),
    ],
)
def test_a_dry_run_asks_nobody(hub, adapter_run, capsys, more, words):
    before = content(adapter_run)
    assert main(command(adapter_run, "--dry-run", *more)) == 0
    out = capsys.readouterr().out
    assert hub.requests == [] and content(adapter_run) == before
    if words is None:
        assert set(json.loads(out)["files"]) == ADAPTER | PLOTS and "showable.json" in json.loads(out)["kept"]
        return
    going, _, staying = out.partition("Would stay here:")
    assert words in out and f"Would push to {REPO}:" in going
    assert {line.split()[-1] for line in going.splitlines() if line.startswith("  ")} == ADAPTER | PLOTS
    assert "checkpoint-1/optimizer.pt" in staying


def test_a_dry_run_of_a_merge_merges_nothing(hub, adapter_run, capsys, monkeypatch):
    """Loading the base model may mean a download of gigabytes."""
    monkeypatch.setattr("hf_unlearn.results.hub.merge_adapter.merge_adapter", None)
    assert main(command(adapter_run, "--dry-run", "--merge")) == 0
    out = capsys.readouterr().out
    assert hub.requests == [] and "would be private" in out
    expected = (WHOLE | PLOTS) - {"model.safetensors"} | {"model*.safetensors"}
    assert {line.strip() for line in out.splitlines() if line.startswith("  ")} == expected


def test_the_command_merges_tells_json_and_names_branch_and_message(hub, adapter_run, capsys):
    arguments = ["--merge", "--base_model", "tester/base", "--public", "--json"]
    assert main(command(adapter_run, *arguments, "--revision", "v1", "--commit_message", "Merged")) == 0
    found = json.loads(capsys.readouterr().out)
    last = hub.commits(REPO, branch="v1")[-1]
    assert found["commit"].endswith(last.oid) and last.title == "Merged" and not hub.private(REPO)
    assert set(pushed(hub, revision="v1")) == WHOLE | PLOTS == set(found["files"])
    assert "base_model: tester/base" in pushed(hub, revision="v1")["README.md"].decode()
    assert str(adapter_run.parent).encode() not in hub.stored_bytes()


TWICE = """
import sys
from hf_unlearn.cli import main
print("status", main(sys.argv[1:]), flush=True)
input()
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_the_command_as_a_process_of_its_own(hub, adapter_run, tmp_path):
    """Twice in one process, which takes its seconds to start: the Hub fails, and is well again."""
    line = [sys.executable, "-c", TWICE, "push", str(adapter_run), REPO]
    environment = {**os.environ, **hub.environment(tmp_path), "PYTHONPATH": os.getcwd()}
    hub.fail(500, match="validate-yaml")  # which the client does not try again
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(line, env=environment, text=True, **pipes) as process:
        assert process.stdout.readline() == "status 1\n"
        assert pushed(hub) == {}
        hub.heal()
        out, err = process.communicate("\n", timeout=120)
    assert process.returncode == 0 and "Pushed 8 files" in out and "Traceback" not in err, err
    assert_four_parts(err, "status 500", "run the same command again")
    assert set(pushed(hub)) == ADAPTER | PLOTS and hub.private(REPO)
    for text in (err, out, hub.stored_bytes().decode(errors="replace")):
        assert hub.token not in text
