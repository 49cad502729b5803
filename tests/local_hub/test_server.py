"""What tests of pushes trust of the local Hub: it stores, refuses and fails as the real client expects."""

from pathlib import Path

import httpx2
import pytest
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from fixtures.hub import FILES, REPO, STAGES, push, without_attributes, write
from local_hub.card_rules import check_card

pytest_plugins = ["fixtures.hub"]


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


@pytest.mark.parametrize(
    ("kind", "error"),
    [(403, HfHubHTTPError), (500, HfHubHTTPError), ("cut", httpx2.RemoteProtocolError), ("hang", httpx2.ReadTimeout)],
)
def test_a_fault_reaches_the_client_and_not_the_store(hub, api, folder, impatient, kind, error):
    hub.fail(kind, match=STAGES["commit"])
    with pytest.raises(error):
        push(api, folder)
    assert hub.requests[-1].fault == kind
    assert [commit.title for commit in hub.commits(REPO)] == ["initial commit"]
    hub.heal()
    push(api, folder)
    assert without_attributes(hub.files(REPO)) == FILES


GOOD_CARD = """
base_model: [tester/base, gpt2]
base_model_relation: adapter
license: other
language: [en, yue]
tags: [unlearning]
model-index:
- name: model
  results:
  - task: {type: text-generation, name: Text generation}
    dataset: {type: tester/rows, name: Rows}
    metrics: [{type: accuracy, name: Accuracy, value: 0.5}]
"""

BAD_CARDS = {
    GOOD_CARD.replace("gpt2", "./runs/base"): '"base_model[1]" with value "./runs/base" is not valid',
    GOOD_CARD.replace("adapter", "unlearned"): '"base_model_relation" must be one of [adapter, finetune, merge, quan',
    GOOD_CARD.replace("license: other", "license: MIT"): '"license" must be one of',
    GOOD_CARD.replace("yue", "English"): '"language[1]" with value "English"',
    GOOD_CARD.replace("[unlearning]", "unlearning"): '"tags" must be an array',
    GOOD_CARD.replace("name: Rows", "title: Rows"): '"model-index[0].results[0].dataset.name" is required',
    GOOD_CARD.replace("value: 0.5", "value: .nan"): 'metrics[0].value" must be a number',
}


@pytest.mark.parametrize("metadata", BAD_CARDS, ids=BAD_CARDS.values())
def test_a_bad_card_is_refused(hub, api, metadata):
    assert check_card(f"---{GOOD_CARD}---\n") == ([], [])
    errors, _ = check_card(f"---{metadata}---\n")
    assert len(errors) == 1 and BAD_CARDS[metadata] in errors[0]  # the rest of the card is not at fault
    api.create_repo(REPO)
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        api.upload_file(path_or_fileobj=f"---{metadata}---\n".encode(), path_in_repo="README.md", repo_id=REPO)
    assert len(hub.commits(REPO)) == 1
