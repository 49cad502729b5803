"""The repositories of the local test Hub: branches, commits and files, in memory. No HTTP, no tokens."""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from local_hub.card_rules import check_card

# What the .gitattributes of a new repository sends to large file storage.
LFS_ENDINGS = tuple(
    f".{ending}"
    for ending in (
        *("7z", "arrow", "bin", "bz2", "ckpt", "ftz", "gguf", "gz", "h5", "jpg", "joblib", "model", "msgpack", "npy"),
        *("npz", "onnx", "ot", "parquet", "pb", "pickle", "pkl", "png", "pt", "pth", "rar", "safetensors", "tar"),
        *("tflite", "tgz", "wasm", "xz", "zip", "zst"),
    )
)
LARGEST_REGULAR_FILE = 10 * 2**20


class Refusal(Exception):
    """A request that the Hub refuses.

    Args:
        status: HTTP status.
        message: For people; goes into the body and into `X-Error-Message`.
        code: `X-Error-Code`, from which the client chooses its exception.
        headers: Further headers of the answer.
    """

    def __init__(self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, dict(headers or {})


@dataclass(frozen=True)
class File:
    """One version of a file; `lfs` when it is in large file storage and git holds only a pointer."""

    data: bytes
    lfs: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def pointer(self) -> bytes:
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n"
        return text.encode()

    @property
    def blob_id(self) -> str:
        """The git id of what git holds."""
        return _git_id(self.pointer if self.lfs else self.data)

    @property
    def etag(self) -> str:
        """What the client caches the file under, and compares with its own hash to find out whether it changed."""
        return self.sha256 if self.lfs else self.blob_id


@dataclass(frozen=True)
class Commit:
    """A commit with all the files of the repository after it."""

    oid: str
    title: str
    description: str
    date: str
    files: Mapping[str, File]


@dataclass
class Repo:
    """A repository of the Hub.

    Args:
        id: `namespace/name`.
        type: "model", "dataset" or "space".
        private: Whether it is hidden from whoever has no token.
        lfs: Whether binary and large files go to large file storage; False keeps every file in git.
    """

    id: str
    type: str
    private: bool
    lfs: bool = True
    branches: dict[str, list[Commit]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)  # large file storage, by sha256

    def __post_init__(self) -> None:
        endings = LFS_ENDINGS if self.lfs else ()
        attributes = "".join(f"*{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in endings)
        self.branches["main"] = []
        self._append("main", "initial commit", "", {".gitattributes": File(attributes.encode())})

    def commit_at(self, revision: str) -> Commit:
        """The commit of a branch, or of a commit id or its first characters. Raises Refusal if there is none."""
        if revision in self.branches:
            return self.branches[revision][-1]
        if len(revision) >= 7:
            for commit in (commit for branch in self.branches.values() for commit in branch):
                if commit.oid.startswith(revision):
                    return commit
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def is_stored_as_lfs(self, path: str, size: int) -> bool:
        return self.lfs and (path.endswith(LFS_ENDINGS) or size > LARGEST_REGULAR_FILE)

    def create_branch(self, name: str, revision: str) -> None:
        if name in self.branches:
            raise Refusal(409, f'Reference "refs/heads/{name}" already exists')
        start = self.commit_at(revision)
        history = next(branch for branch in self.branches.values() if start in branch)
        self.branches[name] = history[: history.index(start) + 1]

    def delete_branch(self, name: str) -> None:
        if name == "main":
            raise Refusal(403, "Cannot delete the default branch")
        if name not in self.branches:
            raise Refusal(404, f"Invalid rev id: {name}", "RevisionNotFound")
        del self.branches[name]

    def commit(self, branch: str, lines: Iterable[bytes]) -> Commit:
        """Apply the ndjson body of a commit request: all of it, or nothing when any part is refused.

        Args:
            branch: Where to commit.
            lines: One JSON object a line: `header`, then `file`, `lfsFile`, `deletedFile` and `deletedFolder`.

        Raises:
            Refusal: no such branch, another parent than expected, a bad card, a missing blob or a missing file.
        """
        if branch not in self.branches:
            raise Refusal(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        header: dict[str, Any] = {}
        files = dict(self.commit_at(branch).files)
        for item in map(json.loads, lines):
            if item["key"] == "header":
                header = item["value"]
            else:
                self._apply(item["key"], item["value"], files)
        parent = header.get("parentCommit")
        if parent is not None and not self.commit_at(branch).oid.startswith(parent):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        if "README.md" in files and files["README.md"] != self.commit_at(branch).files.get("README.md"):
            errors, _ = check_card(files["README.md"].data.decode(errors="replace"), self.type)
            if errors:
                raise Refusal(400, "Invalid metadata in README.md: " + "; ".join(errors))
        return self._append(branch, header.get("summary", ""), header.get("description", ""), files)

    def _apply(self, key: str, value: dict[str, Any], files: dict[str, File]) -> None:
        path = value["path"]
        if key == "file":
            content = value["content"]
            is_text = value.get("encoding", "utf-8") == "utf-8"
            files[path] = File(content.encode() if is_text else base64.b64decode(content, validate=True))
        elif key == "lfsFile":
            if value["oid"] not in self.blobs:
                raise Refusal(400, f"LFS pointer pointed to a file that does not exist: {value['oid']}")
            files[path] = File(self.blobs[value["oid"]], lfs=True)
        elif key in ("deletedFile", "deletedFolder"):
            folder = path.rstrip("/") + "/"
            gone = [name for name in files if (name == path if key == "deletedFile" else name.startswith(folder))]
            if not gone:
                raise Refusal(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
            for name in gone:
                del files[name]
        else:
            raise Refusal(400, f"Unknown operation {key}")

    def _append(self, branch: str, title: str, description: str, files: Mapping[str, File]) -> Commit:
        history = self.branches[branch]
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        parent = history[-1].oid if history else f"{self.type} {self.id}"
        content = [
            parent,
            title,
            description,
            date,
            *(f"{path} {file.blob_id}" for path, file in sorted(files.items())),
        ]
        commit = Commit(hashlib.sha1("\n".join(content).encode()).hexdigest(), title, description, date, dict(files))
        history.append(commit)
        return commit


def describe(path: str, file: File) -> dict[str, Any]:
    """A file as the tree and paths-info endpoints list it."""
    entry = {"type": "file", "path": path, "size": len(file.data), "oid": file.blob_id}
    if file.lfs:
        entry["lfs"] = {"oid": file.sha256, "size": len(file.data), "pointerSize": len(file.pointer)}
    return entry


def describe_folder(path: str) -> dict[str, Any]:
    """A folder as the same endpoints list it; its git id is made up from its name."""
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}


def tree(commit: Commit, folder: str, recursive: bool) -> list[dict[str, Any]]:
    """What a folder of a commit holds, folders first. Raises Refusal if there is no such folder."""
    prefix = f"{folder}/" if folder else ""
    below = {path: file for path, file in sorted(commit.files.items()) if path.startswith(prefix)}
    if folder and not below:
        raise Refusal(404, f"{folder} does not exist on {commit.oid}", "EntryNotFound", {"X-Repo-Commit": commit.oid})
    folders = {parent for path in below for parent in _parents(path) if parent.startswith(prefix)}
    entries = [describe_folder(path) for path in sorted(folders)] + [describe(*item) for item in below.items()]
    return [entry for entry in entries if recursive or "/" not in entry["path"].removeprefix(prefix)]


def paths_info(commit: Commit, paths: Iterable[str]) -> list[dict[str, Any]]:
    """The entries of the named files and folders; names that do not exist are left out, as the Hub does."""
    folders = {parent for path in commit.files for parent in _parents(path)}
    names = [path.rstrip("/") for path in paths]
    return [
        describe(name, commit.files[name]) if name in commit.files else describe_folder(name)
        for name in names
        if name in commit.files or name in folders
    ]


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def _git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
