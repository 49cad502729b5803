"""Fixtures for what is pushed to a Hub: the local test Hub, its client, one without patience, a folder. No tests.

A test module takes the fixtures with `pytest_plugins = ["fixtures_hub"]`. It has imported this file by then, for its
constants, which pytest warns of unless it finds PYTEST_DONT_REWRITE here; there are no assertions to rewrite.
"""

from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import _http, close_session, http_backoff

from hub_server import HubServer

REPO = "tester/model"
CARD = b"---\nlicense: mit\n---\n# A model\n"
FILES = {
    "README.md": CARD,
    "adapter.safetensors": bytes(range(256)) * 4,
    "sub/config.json": b'{"a": 1}',
}
# The requests of a push, in their order.
STAGES = {
    "create": "POST /api/repos/create",
    "card": "POST /api/validate-yaml",
    "preupload": "POST /api/models/tester/model/preupload/main",
    "batch": "POST /tester/model.git/info/lfs/objects/batch",
    "upload": "PUT /lfs-uploads/",
    "verify": "POST /tester/model.git/info/lfs/objects/verify",
    "commit": "POST /api/models/tester/model/commit/main",
}


@pytest.fixture
def hub(monkeypatch):
    """A running HubServer that this process uses as its Hub."""
    with HubServer() as server:
        server.connect(monkeypatch)
        # transformers makes its client once, for the Hub of that time.
        monkeypatch.setattr("transformers.utils.hub._hf_api", None)
        yield server


@pytest.fixture
def api(hub):
    """The client of the token's owner."""
    return HfApi(endpoint=hub.url, token=hub.token)


@pytest.fixture
def impatient(monkeypatch):
    """A client that never retries and waits for an answer for a fifth of a second: its own timeout is none at all."""
    monkeypatch.setitem(http_backoff.__kwdefaults__, "max_retries", 0)
    make = _http.default_client_factory

    def make_impatient():
        client = make()
        client.timeout = 0.2
        return client

    monkeypatch.setattr(_http, "_GLOBAL_CLIENT_FACTORY", make_impatient)
    close_session()
    yield
    close_session()


@pytest.fixture
def slept(monkeypatch):
    """The seconds that the client would have waited before its retries."""
    seconds = []
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=seconds.append))
    return seconds


@pytest.fixture
def folder(tmp_path):
    """A folder that holds FILES."""
    return write(tmp_path / "folder", FILES)


def write(folder, files):
    """Write files, given as {path: bytes}, and return the folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def push(api, folder):
    """Make the repository unless it is there, and upload a folder to it."""
    api.create_repo(REPO, private=True, exist_ok=True)
    return api.upload_folder(repo_id=REPO, folder_path=folder)


def without_attributes(files):
    """Files without the one that every repository has from the start."""
    return {path: data for path, data in files.items() if path != ".gitattributes"}
