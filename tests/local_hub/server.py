"""A Hub on this machine that the real `huggingface_hub` client pushes to and reads from. In memory, for tests alone.

    with HubServer() as hub:
        HfApi(endpoint=hub.url, token=hub.token).create_repo("me/model")                      # in this process
        subprocess.run(command, env={**os.environ, **hub.environment(tmp_path)}, check=True)  # in another one

What is not here: Xet storage (a client with hf-xet needs HF_HUB_DISABLE_XET=1, or `HubServer(lfs=False)`), multipart
uploads, pull requests, tags, and the dataset viewer.
"""

import base64
import binascii
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from local_hub.answers import Answer, Call
from local_hub.faults import Fault, FaultKind
from local_hub.http import Server
from local_hub.repos import Commit, Repo
from local_hub.routes import Routes

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True)
class Request:
    """A request that arrived, in the order of arrival.

    Args:
        method: HTTP method.
        path: The path with its query, quoted as it was sent.
        size: Bytes of the body.
        fault: The kind of the fault that it met, or None.
    """

    method: str
    path: str
    size: int
    fault: FaultKind | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class HubServer:
    """The server, running while the `with` block does.

    Args:
        lfs: Whether binary and large files go to large file storage, as on the real Hub; False puts all in the commit.
        user: The name of the token's owner.

    Attributes:
        url: Its address, which is the `HF_ENDPOINT`.
        token: The only valid token.
        requests: What arrived since the start or since `clear_requests`.
    """

    def __init__(self, lfs: bool = True, user: str = "tester"):
        self.user = user
        self.token = "hf_test_token_0123456789"
        self.requests: list[Request] = []
        self._received: list[bytes] = []
        self._faults: list[Fault] = []
        self._lock = threading.RLock()
        self._server = Server(self._handle)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._routes = Routes(self.url, user, self.token, lfs)

    def __enter__(self) -> "HubServer":
        # The default poll of half a second would make every shutdown wait for it.
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.heal()
        self._server.stop()
        # A failing test says more than what made it fail here.
        assert kind is not None or not self._server.errors, "\n".join(self._server.errors)

    def environment(self, folder: str | os.PathLike[str]) -> dict[str, str]:
        """The variables with which another process uses this Hub and keeps its caches in a folder."""
        home = os.fspath(folder)
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": self.token,
            "HF_HOME": home,
            # Each of these would win over HF_HOME.
            "HF_HUB_CACHE": os.path.join(home, "hub"),
            "HF_DATASETS_CACHE": os.path.join(home, "datasets"),
            "HF_HUB_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0",
            "TRANSFORMERS_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def connect(self, monkeypatch: "pytest.MonkeyPatch") -> None:
        """Make this process use this Hub for the length of a test, also where no endpoint can be passed.

        `HF_ENDPOINT` and `HF_HUB_OFFLINE` are read when huggingface_hub is imported, hence the patches. `datasets` has
        its own copies and is not covered: load_dataset belongs in another process. Nor are caches: pass a `cache_dir`.
        """
        for name, value in {
            "ENDPOINT": self.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": self.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_URL_HOSTS": frozenset({"127.0.0.1"}),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DISABLE_TELEMETRY": True,
        }.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        # The module's functions (create_repo, upload_folder, ...) are methods of this one object.
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", self.url)
        monkeypatch.setenv("HF_TOKEN", self.token)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")

    @property
    def repos(self) -> dict[tuple[str, str], Repo]:
        """Every repository by its (type, id)."""
        return self._routes.repos

    def files(self, repo_id: str, repo_type: str = "model", revision: str = "main") -> dict[str, bytes]:
        """The files of a repository, with the `.gitattributes` that every repository of the Hub starts with."""
        with self._lock:
            commit = self.repos[repo_type, repo_id].commit_at(revision)
            return {path: file.data for path, file in commit.files.items()}

    def private(self, repo_id: str, repo_type: str = "model") -> bool:
        return self.repos[repo_type, repo_id].private

    def commits(self, repo_id: str, repo_type: str = "model", branch: str = "main") -> list[Commit]:
        """The commits of a branch, the oldest first: that is the one with which the repository was made."""
        with self._lock:
            return list(self.repos[repo_type, repo_id].branches[branch])

    def blobs(self, repo_id: str, repo_type: str = "model") -> dict[str, bytes]:
        """What a repository has in large file storage by its SHA-256, committed or not."""
        with self._lock:
            return dict(self.repos[repo_type, repo_id].blobs)

    def stored_bytes(self) -> bytes:
        """Everything that ever arrived, for a search of what must not: request lines, headers (the token's aside) and
        bodies, those of requests that failed too, and what bodies hold in base64 or in JSON's escapes, decoded.

        Files that the client compressed, as parquet is, are not unpacked.
        """
        with self._lock:
            received = list(self._received)
        return b"\0".join(part for body in received for part in (body, *_decoded(body)))

    def clear_requests(self) -> None:
        """Forget `requests`; `stored_bytes` forgets nothing."""
        with self._lock:
            self.requests = []

    def fail(
        self,
        kind: FaultKind,
        at: int | None = None,
        match: str | None = None,
        times: int | None = None,
        retry_after: int | None = None,
    ) -> None:
        """Make requests fail from now on, without any effect on the store; the arguments are those of `Fault`.

        Of several faults the one made first decides; each counts every request that reaches it.
        """
        pattern = None if match is None else re.compile(match)
        with self._lock:
            self._faults.append(Fault(kind, at or 0, pattern, times, retry_after))

    def heal(self) -> None:
        """Let every request succeed again, and let go of those that hang: their connections close."""
        with self._lock:
            faults, self._faults = self._faults, []
        for fault in faults:
            fault.healed.set()

    def _handle(self, call: Call, connection: socket.socket) -> Answer | None:
        """The answer to a call, or None to close its connection without one."""
        line = f"{call.method} {call.path}"
        with self._lock:
            fault = next((fault for fault in self._faults if fault.takes(line)), None)
            self.requests.append(Request(call.method, call.path, len(call.body), fault.kind if fault else None))
            headers = [f"{name}: {value}" for name, value in call.headers.items() if name != "authorization"]
            self._received += ["\n".join([line, *headers]).encode(), call.body]
            if fault is None:
                return self._routes.answer(call)
        # Outside of the lock: a request that hangs must not stop the others.
        return fault.answer(connection)


def _decoded(body: bytes) -> Iterator[bytes]:
    """The strings in a body of JSON lines, and what those that may be base64 stand for."""
    for line in body.splitlines():
        try:
            yield from _strings(json.loads(line))
        except ValueError:
            continue  # a file's content, or form data


def _strings(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict | list):
        for item in value if isinstance(value, list) else [*value, *value.values()]:
            yield from _strings(item)
    elif isinstance(value, str):
        yield value.encode(errors="replace")
        try:
            yield base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return
