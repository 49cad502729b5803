"""The local test Hub, asked by the real client: a test may trust that server. Not tests of hf_unlearn."""

import json
import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import get_session

from fixtures.hub import FILES, REPO, STAGES, push, without_attributes, write
from local_hub.server import HubServer

pytest_plugins = ["fixtures.hub"]


def stages(hub):
    """The requests so far as the names of their stages; the addresses of uploads differ each time."""
    named = []
    for request in hub.requests:
        name = [name for name, start in STAGES.items() if str(request).startswith(start)]
        named.append(name[0] if name else str(request))
    return named


def test_a_push_is_read_back(hub, api, folder, tmp_path):
    commit = push(api, folder)
    assert without_attributes(hub.files(REPO)) == FILES
    assert [commit.oid, 2] == [hub.commits(REPO)[-1].oid, len(hub.commits(REPO))]
    assert hub.private(REPO)
    # What is binary went to large file storage and nothing else did.
    assert list(hub.blobs(REPO).values()) == [FILES["adapter.safetensors"]]

    for name, data in FILES.items():
        path = hf_hub_download(REPO, name, cache_dir=tmp_path / "cache", token=hub.token)
        assert Path(path).read_bytes() == data
    snapshot = snapshot_download(REPO, local_dir=tmp_path / "snapshot", token=hub.token)
    assert {name: (tmp_path / "snapshot" / name).read_bytes() for name in FILES} == FILES
    assert snapshot == str(tmp_path / "snapshot")


def test_the_requests_of_a_push(hub, api, folder):
    push(api, folder)
    # upload_folder checks the card, and create_commit, which it calls, does so again.
    first = ["create", "card", "card", "preupload", "batch", "upload", "verify", "commit"]
    assert stages(hub) == first
    assert hub.requests[first.index("upload")].size == len(FILES["adapter.safetensors"])

    hub.clear_requests()
    before = hub.commits(REPO), hub.blobs(REPO)
    push(api, folder)
    assert stages(hub) == [
        "create",
        "card",
        "card",
        "preupload",
        "batch",
        "GET /api/models/tester/model/revision/main",
    ]
    assert (hub.commits(REPO), hub.blobs(REPO)) == before


def test_the_requests_of_a_push_with_xet_installed(monkeypatch, folder):
    with HubServer(lfs=False) as hub:
        hub.connect(monkeypatch)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
        push(HfApi(endpoint=hub.url, token=hub.token), folder)
        assert stages(hub) == ["create", "card", "preupload", "commit"]
        assert without_attributes(hub.files(REPO)) == FILES
        assert hub.blobs(REPO) == {}


def test_workers_upload_at_the_same_time(hub, api, tmp_path):
    files = {f"part-{i:02}.bin": os.urandom(2000) for i in range(24)}
    api.create_repo(REPO)
    api.upload_folder(repo_id=REPO, folder_path=write(tmp_path / "parts", files))
    assert without_attributes(hub.files(REPO)) == files
    assert stages(hub).count("upload") == 24


def test_the_modules_own_functions_reach_it_too(hub, tmp_path):
    from transformers import AutoConfig, LlamaConfig

    huggingface_hub.create_repo("tester/config")
    LlamaConfig(hidden_size=32, num_attention_heads=4).push_to_hub("tester/config")
    assert json.loads(hub.files("tester/config")["config.json"])["hidden_size"] == 32
    assert AutoConfig.from_pretrained("tester/config", cache_dir=tmp_path).hidden_size == 32


def test_a_dataset_is_loaded_from_another_process(hub, api, tmp_path):
    rows = b'{"question": "a", "n": 1}\n{"question": "b", "n": 2}\n'
    api.create_repo("tester/rows", repo_type="dataset", private=True)
    api.upload_file(path_or_fileobj=rows, path_in_repo="train.jsonl", repo_id="tester/rows", repo_type="dataset")
    program = (
        "from datasets import load_dataset\n"
        "rows = load_dataset('tester/rows', split='train')\n"
        "rows.push_to_hub('tester/parquet')\n"
        "print(rows['n'][:], load_dataset('tester/parquet', split='train')['question'][:])\n"
    )
    environment = {**os.environ, **hub.environment(tmp_path / "home")}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert run.stdout == "[1, 2] ['a', 'b']\n", run.stderr
    assert hub.files("tester/rows", "dataset")["train.jsonl"] == rows
    assert [path for path in hub.files("tester/parquet", "dataset") if path.endswith(".parquet")]


def test_a_private_repository_is_hidden(hub, api, folder, tmp_path):
    push(api, folder)
    anyone = HfApi(endpoint=hub.url, token=False)
    with pytest.raises(RepositoryNotFoundError):
        anyone.repo_info(REPO)
    with pytest.raises(RepositoryNotFoundError):
        anyone.hf_hub_download(REPO, "README.md", cache_dir=tmp_path)
    assert api.repo_info(REPO).private is True
    assert api.model_info(REPO).card_data.license == "mit"

    api.update_repo_settings(REPO, private=False)
    assert not hub.private(REPO)
    assert anyone.repo_info(REPO).private is False
    assert [anyone.repo_exists(REPO), anyone.repo_exists("tester/none")] == [True, False]


def test_writing_takes_the_token(hub, api, folder):
    api.create_repo(REPO, private=False)
    for stranger in (HfApi(endpoint=hub.url, token=False), HfApi(endpoint=hub.url, token="hf_another")):
        for call in (
            lambda api=stranger: api.create_repo("tester/other"),
            lambda api=stranger: api.upload_folder(repo_id=REPO, folder_path=folder),
            lambda api=stranger: api.delete_repo(REPO),
        ):
            with pytest.raises(HfHubHTTPError) as error:
                call()
            assert error.value.response.status_code == 401
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi(endpoint=hub.url).whoami(token="hf_another")
    assert api.whoami()["name"] == hub.user
    assert list(hub.repos) == [("model", REPO)]
    assert len(hub.commits(REPO)) == 1


def test_repositories_are_made_once_and_deleted(hub, api):
    api.create_repo(REPO, visibility="private")
    with pytest.raises(HfHubHTTPError, match="already created") as error:
        api.create_repo(REPO)
    assert error.value.response.status_code == 409
    assert api.create_repo(REPO, exist_ok=True, private=False).repo_id == REPO
    assert hub.private(REPO)  # as on the Hub, creating it again changes nothing
    api.create_repo(REPO, repo_type="dataset")
    api.delete_repo(REPO)
    assert list(hub.repos) == [("dataset", REPO)]
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo(REPO)


def test_trees_branches_and_commits(hub, api, folder):
    first = push(api, folder).oid
    api.create_branch(REPO, branch="v1/a", revision=first)
    with pytest.raises(HfHubHTTPError):
        api.create_branch(REPO, branch="v1/a")
    api.create_commit(
        REPO,
        [CommitOperationDelete("sub/"), CommitOperationAdd("b.txt", b"b")],
        commit_message="Second",
        commit_description="More",
        parent_commit=first,
    )
    assert api.list_repo_files(REPO) == [".gitattributes", "README.md", "adapter.safetensors", "b.txt"]
    assert without_attributes(hub.files(REPO, revision="v1/a")) == FILES
    assert [commit.title for commit in api.list_repo_commits(REPO)][::2] == ["Second", "initial commit"]
    assert [ref.name for ref in api.list_repo_refs(REPO).branches] == ["main", "v1/a"]

    tree = {entry.path: entry for entry in api.list_repo_tree(REPO, recursive=True, revision="v1/a")}
    assert set(tree) == {*FILES, "sub", ".gitattributes"}
    assert tree["adapter.safetensors"].lfs.sha256 == next(iter(hub.blobs(REPO)))
    assert [entry.path for entry in api.list_repo_tree(REPO, "sub", revision=first)] == ["sub/config.json"]
    assert [entry.path for entry in api.get_paths_info(REPO, ["sub", "none", "README.md"], revision=first)] == [
        "sub",
        "README.md",
    ]
    with pytest.raises(RevisionNotFoundError):
        api.list_repo_files(REPO, revision="none")
    with pytest.raises(HfHubHTTPError, match="A commit has happened since"):
        api.create_commit(REPO, [CommitOperationAdd("c", b"c")], commit_message="c", parent_commit=first)
    api.delete_branch(REPO, branch="v1/a")
    assert [ref.name for ref in api.list_repo_refs(REPO).branches] == ["main"]


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=2-4", 206, slice(2, 5)),
        ("bytes=1020-9999", 206, slice(1020, 1024)),
        ("bytes=1000-", 206, slice(1000, 1024)),
        ("bytes=-3", 206, slice(1021, 1024)),
        ("bytes=1024-", 416, None),
    ],
)
def test_parts_of_a_file(hub, api, folder, asked, status, part):
    push(api, folder)
    url = f"{hub.url}/{REPO}/resolve/main/adapter.safetensors"
    headers = {"Authorization": f"Bearer {hub.token}"}
    answer = get_session().get(url, headers={**headers, "Range": asked})
    assert answer.status_code == status
    if part:
        assert answer.content == FILES["adapter.safetensors"][part]
        assert answer.headers["Content-Range"] == f"bytes {part.start}-{part.stop - 1}/1024"
    whole = get_session().head(url, headers=headers)
    assert [whole.headers["Content-Length"], whole.headers["X-Linked-Size"]] == ["1024", "1024"]
    assert whole.headers["X-Repo-Commit"] == hub.commits(REPO)[-1].oid


def test_everything_that_arrived_can_be_searched(hub, api, folder, impatient):
    push(api, folder)
    write(folder, {"a.txt": "cänary one".encode(), "b.bin": b"canary two" + bytes(1000)})
    hub.fail(500, match="/commit/")
    with pytest.raises(HfHubHTTPError):
        api.upload_folder(repo_id=REPO, folder_path=folder, commit_message="cänary three")
    hub.clear_requests()
    stored = hub.stored_bytes()
    for canary in ("cänary one", "canary two", "cänary three", "b.bin"):
        assert canary.encode() in stored
    assert FILES["adapter.safetensors"] in stored
    assert hub.token.encode() not in stored
    assert b"canary four" not in stored
    assert "a.txt" not in hub.files(REPO)
