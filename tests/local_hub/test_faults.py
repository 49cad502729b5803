"""What the local test Hub fails on purpose: the client sees it, the store does not. Not tests of hf_unlearn."""

import threading
import time

import httpx2
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import close_session

from fixtures.hub import FILES, REPO, STAGES, push, without_attributes
from local_hub.server import HubServer

pytest_plugins = ["fixtures.hub"]

KINDS = (401, 403, 429, 500, 503, "cut", "hang")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_reaches_the_client_and_not_the_store(hub, api, folder, impatient, kind, stage):
    hub.fail(kind, match=STAGES[stage])
    expected = {"cut": httpx2.RemoteProtocolError, "hang": httpx2.ReadTimeout}.get(kind, HfHubHTTPError)
    in_a_worker = stage in ("upload", "verify")
    with pytest.raises(RuntimeError if in_a_worker else expected) as caught:
        push(api, folder)
    error = caught.value.__cause__ if in_a_worker else caught.value
    assert isinstance(error, expected)
    if expected is HfHubHTTPError:
        assert error.response.status_code == kind
    assert hub.requests[-1].fault == kind or stage == "create"  # create_repo then asks whether the repository exists

    assert list(hub.repos) == ([] if stage == "create" else [("model", REPO)])
    if stage != "create":
        assert [commit.title for commit in hub.commits(REPO)] == ["initial commit"]
        assert len(hub.blobs(REPO)) == (stage in ("verify", "commit"))
    hub.heal()
    push(api, folder)
    assert without_attributes(hub.files(REPO)) == FILES


@pytest.mark.parametrize("position", range(8))
def test_a_fault_begins_at_a_request(hub, api, folder, impatient, position):
    hub.fail(403, at=position)
    with pytest.raises((HfHubHTTPError, RuntimeError)):
        push(api, folder)
    assert [request.fault for request in hub.requests[: position + 1]] == [None] * position + [403]
    hub.clear_requests()
    hub.heal()
    hub.fail(403, at=20)
    push(api, folder)
    assert {request.fault for request in hub.requests} == {None}


def test_the_client_retries_where_it_does_by_itself(hub, api, folder, slept):
    hub.fail(503, match="preupload", times=2)
    hub.fail(429, match="lfs-uploads", times=1, retry_after=5)
    push(api, folder)
    assert slept == [1, 2, 6]
    assert without_attributes(hub.files(REPO)) == FILES

    slept.clear()
    hub.fail("cut", match="preupload")
    with pytest.raises(httpx2.RemoteProtocolError):
        push(api, folder)
    assert slept == [1, 2, 4, 8, 8]

    slept.clear()
    hub.heal()
    hub.fail(503, match="/commit/", times=1)
    with pytest.raises(HfHubHTTPError):
        api.upload_file(path_or_fileobj=b"new", path_in_repo="new.txt", repo_id=REPO)
    assert slept == []
    assert "new.txt" not in hub.files(REPO)


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_may_not_create_may_use_what_exists(hub, api, folder, status):
    hub.fail(status, match="repos/create")
    with pytest.raises(HfHubHTTPError) as error:
        api.create_repo(REPO, exist_ok=True)
    assert error.value.response.status_code == status
    hub.heal()
    api.create_repo(REPO)
    hub.fail(status, match="repos/create")
    push(api, folder)  # create_repo(exist_ok=True) looks whether the repository is there, and goes on
    assert without_attributes(hub.files(REPO)) == FILES


def test_an_unknown_fault_is_an_error(hub):
    with pytest.raises(ValueError, match="kind must be one of"):
        hub.fail(418)


def test_healing_lets_go_of_what_hangs(monkeypatch):
    before = set(threading.enumerate())
    with HubServer() as hub:
        hub.connect(monkeypatch)
        hub.fail("hang")
        errors = []

        def ask():
            try:
                HfApi(endpoint=hub.url, token=hub.token).create_repo(REPO)
            except httpx2.RemoteProtocolError as error:
                errors.append(error)

        client = threading.Thread(target=ask)
        client.start()
        while not hub.requests:
            time.sleep(0.01)
        assert client.is_alive()
        hub.heal()
        client.join(timeout=5)
        assert len(errors) == 1
        assert HfApi(endpoint=hub.url, token=hub.token).create_repo(REPO).repo_id == REPO
    # Neither what hung nor the connections that the client keeps open outlive the server.
    assert not [thread for thread in set(threading.enumerate()) - before if thread.is_alive() and thread is not client]
    close_session()
