"""Calls and answers of the local test Hub, and the answers that only read a repository. Not which call gets which."""

import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from yaml import YAMLError

from local_hub.card_rules import parse_card
from local_hub.repos import Commit, File, Refusal, Repo, describe


@dataclass(frozen=True)
class Call:
    """A request as read from the socket; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def segments(self) -> list[str]:
        """The parts of the path, each unquoted on its own: a quoted slash is part of a revision's name."""
        return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

    def asks(self, name: str) -> bool:
        """Whether a parameter of the query says yes."""
        return parse_qs(urlsplit(self.path).query).get(name, ["false"])[0].lower() in ("true", "1")

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """A response. A body that is not bytes is sent as JSON."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)

    def content(self) -> bytes:
        # A card's dates are in `cardData`, and JSON has none.
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body, default=str).encode()


def refused(refusal: Refusal) -> Answer:
    """The answer to a refused request, in the form that the client reads its exceptions from."""
    headers = {"X-Error-Message": refusal.message.replace("\n", " ").encode("ascii", "replace").decode()}
    if refusal.code:
        headers["X-Error-Code"] = refusal.code
    return Answer(refusal.status, {"error": refusal.message}, headers | refusal.headers)


def asked_paths(call: Call) -> list[str]:
    if "json" in call.headers.get("content-type", ""):
        return call.json()["paths"]
    return parse_qs(call.body.decode()).get("paths", [])


def preupload(call: Call, repo: Repo, commit: Commit) -> Answer:
    asked = call.json()["files"]
    files = [
        {
            "path": item["path"],
            "uploadMode": "lfs" if repo.is_stored_as_lfs(item["path"], item["size"]) else "regular",
            "shouldIgnore": False,
            # The client leaves out of the commit what has this hash already.
            "oid": commit.files[item["path"]].etag if item["path"] in commit.files else None,
        }
        for item in asked
    ]
    return Answer(body={"files": files})


def lfs_verify(call: Call, repo: Repo) -> Answer:
    blob = repo.blobs.get(call.json()["oid"])
    if blob is None or len(blob) != call.json()["size"]:
        raise Refusal(404, "Object does not exist")
    return Answer(body={})


def info(repo: Repo, commit: Commit, with_sizes: bool) -> dict[str, Any]:
    card = _card_data(commit)
    tags = card.get("tags")
    return {
        "_id": "0",
        "id": repo.id,
        "author": repo.id.split("/")[0],
        "sha": commit.oid,
        "private": repo.private,
        "disabled": False,
        "gated": False,
        "downloads": 0,
        "likes": 0,
        "tags": tags if isinstance(tags, list) else [],
        "createdAt": repo.branches["main"][0].date,
        "lastModified": commit.date,
        "cardData": card,
        "siblings": [_sibling(path, file, with_sizes) for path, file in sorted(commit.files.items())],
        **({"modelId": repo.id} if repo.type == "model" else {}),
        **{key: card[key] for key in ("library_name", "pipeline_tag") if key in card and repo.type == "model"},
    }


def _card_data(commit: Commit) -> dict[str, Any]:
    readme = commit.files.get("README.md")
    try:
        metadata = parse_card(readme.data.decode(errors="replace")) if readme else None
    except YAMLError:
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _sibling(path: str, file: File, with_sizes: bool) -> dict[str, Any]:
    if not with_sizes:
        return {"rfilename": path}
    entry = describe(path, file)
    lfs = {"lfs": {**entry["lfs"], "sha256": entry["lfs"]["oid"]}} if file.lfs else {}
    return {"rfilename": path, "size": entry["size"], "blobId": entry["oid"], **lfs}


def refs(repo: Repo) -> dict[str, Any]:
    branches = [
        {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commits[-1].oid}
        for name, commits in repo.branches.items()
    ]
    return {"branches": branches, "tags": [], "converts": [], "pullRequests": []}


def download(call: Call, commit: Commit, path: str) -> Answer:
    """A file or the part of it that a Range header asks for."""
    commit_header = {"X-Repo-Commit": commit.oid}
    if path not in commit.files:
        raise Refusal(404, "Entry not found", "EntryNotFound", commit_header)
    file = commit.files[path]
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", "ETag": f'"{file.etag}"'}
    headers |= commit_header
    if file.lfs:
        headers |= {"X-Linked-Size": str(len(file.data)), "X-Linked-Etag": f'"{file.etag}"'}
    asked = call.headers.get("range")
    if asked is None:
        return Answer(200, file.data, headers)
    start, stop = _byte_range(asked, len(file.data))
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(file.data)}"
    return Answer(206, file.data[start:stop], headers)


def _byte_range(asked: str, size: int) -> tuple[int, int]:
    """The half-open range that a Range header asks for. Raises Refusal if nothing of it is in the file."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", asked.strip())
    if found and found[1]:
        start, stop = int(found[1]), min(int(found[2]) + 1, size) if found[2] else size
    elif found and found[2]:
        start, stop = max(size - int(found[2]), 0), size
    else:
        start, stop = size, size
    if start >= stop:
        raise Refusal(416, "Range Not Satisfiable", headers={"Content-Range": f"bytes */{size}"})
    return start, stop


def history(repo: Repo, revision: str, user: str) -> list[dict[str, Any]]:
    """The commits up to a revision, the newest first; every one has the same author."""
    newest = repo.commit_at(revision)
    branch = next(commits for commits in repo.branches.values() if newest in commits)
    author = {"user": user}
    return [
        {"id": commit.oid, "title": commit.title, "message": commit.description, "date": commit.date,
         "authors": [author]}
        for commit in reversed(branch[: branch.index(newest) + 1])
    ]  # fmt: skip
