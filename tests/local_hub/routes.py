"""Which request to the local test Hub gets which answer, and what it changes. No sockets and no faults.

Like huggingface.co except that whoever has no token gets 404 for a private repository, where the real Hub says 401 (of
both the client makes a RepositoryNotFoundError), and that the token may write to any namespace.
"""

import hashlib
import secrets
from typing import Any

from local_hub.answers import Answer, Call, asked_paths, download, history, info, lfs_verify, preupload, refs, refused
from local_hub.card_rules import check_card
from local_hub.repos import Refusal, Repo, paths_info, tree

TYPES = {"models": "model", "datasets": "dataset", "spaces": "space"}


class Routes:
    """The endpoints, and the repositories behind them. Not thread-safe: the server calls it under its lock.

    Args:
        url: The server's address, for links in answers.
        user: The name of the token's owner.
        token: The only valid token.
        lfs: Whether binary files go to large file storage.
    """

    def __init__(self, url: str, user: str, token: str, lfs: bool):
        self.url, self.user, self.token, self.lfs = url, user, token, lfs
        self.repos: dict[tuple[str, str], Repo] = {}
        # An upload address says by itself what may be put there, as a signed address of a bucket does.
        self.uploads: dict[str, tuple[Repo, str]] = {}

    def answer(self, call: Call) -> Answer:
        try:
            return self._route(call)
        except Refusal as refusal:
            return refused(refusal)

    def _route(self, call: Call) -> Answer:
        method = "GET" if call.method == "HEAD" else call.method
        if call.headers.get("authorization") not in (None, f"Bearer {self.token}"):
            raise Refusal(401, "Invalid credentials in Authorization header")
        match method, call.segments:
            case "GET", ["api", "whoami-v2"]:
                self._needs_token(call)
                auth = {"type": "access_token", "accessToken": {"role": "write", "displayName": "test"}}
                return Answer(body={"type": "user", "id": "0", "name": self.user, "orgs": [], "auth": auth})
            case "GET", ["api", "telemetry", *_]:
                return Answer()
            case "POST", ["api", "validate-yaml"]:
                errors, warnings = check_card(call.json()["content"], call.json().get("repoType") or "model")
                body = {kind: [{"message": text} for text in found]
                        for kind, found in (("errors", errors), ("warnings", warnings))}  # fmt: skip
                return Answer(400 if errors else 200, body)
            case "POST", ["api", "repos", "create"]:
                return self._create(call)
            case "DELETE", ["api", "repos", "delete"]:
                self._needs_token(call)
                repo = self._find(call, *self._named(call))
                del self.repos[repo.type, repo.id]
                return Answer(body={})
            case "PUT", ["lfs-uploads", key] if key in self.uploads:
                return self._put_blob(key, call.body)
            case _, ["api", ("models" | "datasets" | "spaces") as plural, namespace, name, *rest]:
                return self._repo_call(call, self._find(call, TYPES[plural], f"{namespace}/{name}"), method, rest)
            case _, ["api", "models" | "datasets" | "spaces", name]:
                raise Refusal(404, f"Repository {name} not found", "RepoNotFound")
            case "POST", [*prefix, name, "info", "lfs", "objects", step] if name.endswith(".git"):
                self._needs_token(call)
                repo = self._find(call, *_typed([*prefix, name.removesuffix(".git")]))
                return self._lfs_batch(call, repo) if step == "batch" else lfs_verify(call, repo)
        for word in ("resolve", "raw"):
            if method == "GET" and word in call.segments:
                place = call.segments.index(word)
                repo = self._find(call, *_typed(call.segments[:place]))
                revision, *path = call.segments[place + 1 :]
                return download(call, repo.commit_at(revision), "/".join(path))
        raise Refusal(404, f"No such page: {call.method} {call.path}")

    def _repo_call(self, call: Call, repo: Repo, method: str, rest: list[str]) -> Answer:
        if method != "GET" and rest[:1] != ["paths-info"]:
            self._needs_token(call)
        match method, rest:
            case "GET", ["auth-check"]:
                return Answer()
            case ("GET", []) | ("GET", ["revision", _]):
                return Answer(body=info(repo, repo.commit_at(rest[1] if rest else "main"), call.asks("blobs")))
            case "GET", ["tree", revision, *folder]:
                return Answer(body=tree(repo.commit_at(revision), "/".join(folder), call.asks("recursive")))
            case "POST", ["paths-info", revision]:
                return Answer(body=paths_info(repo.commit_at(revision), asked_paths(call)))
            case "GET", ["commits", revision]:
                return Answer(body=history(repo, revision, self.user))
            case "GET", ["refs"]:
                return Answer(body=refs(repo))
            case "POST", ["branch", name]:
                repo.create_branch(name, call.json().get("startingPoint") or "main")
                return Answer(body={})
            case "DELETE", ["branch", name]:
                repo.delete_branch(name)
                return Answer(body={})
            case "PUT", ["settings"]:
                repo.private = _asks_private(call.json(), repo.private)
                return Answer(body={"private": repo.private})
            case "POST", ["preupload", revision]:
                return preupload(call, repo, repo.commit_at(revision))
            case "POST", ["commit", branch]:
                if call.asks("create_pr"):
                    raise Refusal(400, "The test Hub has no pull requests")
                commit = repo.commit(branch, call.body.splitlines())
                address = f"{self._page(repo)}/commit/{commit.oid}"
                return Answer(body={"success": True, "commitOid": commit.oid, "commitUrl": address, "hookOutput": ""})
        raise Refusal(404, f"No such endpoint: {call.method} {call.path}")

    def _needs_token(self, call: Call) -> None:
        if "authorization" not in call.headers:
            raise Refusal(401, "Invalid username or password.")

    def _find(self, call: Call, repo_type: str, repo_id: str) -> Repo:
        repo = self.repos.get((repo_type, repo_id))
        # Whether a private repository exists is not told to whoever may not see it.
        if repo is None or (repo.private and "authorization" not in call.headers):
            raise Refusal(404, "Repository not found", "RepoNotFound")
        return repo

    def _named(self, call: Call) -> tuple[str, str]:
        """The type and id of the repository in the body of create and delete."""
        asked = call.json()
        return asked.get("type") or "model", f"{asked.get('organization') or self.user}/{asked['name']}"

    def _page(self, repo: Repo) -> str:
        return f"{self.url}/{'' if repo.type == 'model' else repo.type + 's/'}{repo.id}"

    def _create(self, call: Call) -> Answer:
        self._needs_token(call)
        repo_type, repo_id = self._named(call)
        key = repo_type, repo_id
        if key in self.repos:
            message = f"You already created this {repo_type} repo"
            return Answer(409, {"error": message, "url": self._page(self.repos[key])}, {"X-Error-Message": message})
        self.repos[key] = Repo(repo_id, repo_type, _asks_private(call.json(), False), self.lfs)
        return Answer(body={"url": self._page(self.repos[key]), "name": repo_id, "id": "0"})

    def _lfs_batch(self, call: Call, repo: Repo) -> Answer:
        objects = []
        for asked in call.json()["objects"]:
            entry = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in repo.blobs:
                key = secrets.token_hex(8)
                self.uploads[key] = repo, asked["oid"]
                prefix = "" if repo.type == "model" else f"{repo.type}s/"
                verify = f"{self.url}/{prefix}{repo.id}.git/info/lfs/objects/verify"
                upload = f"{self.url}/lfs-uploads/{key}"
                entry["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
            objects.append(entry)
        return Answer(body={"transfer": "basic", "objects": objects})

    def _put_blob(self, key: str, data: bytes) -> Answer:
        repo, oid = self.uploads[key]
        if hashlib.sha256(data).hexdigest() != oid:
            raise Refusal(400, "The content does not match its SHA-256")
        repo.blobs[oid] = data
        return Answer(headers={"ETag": f'"{oid}"'})


def _typed(segments: list[str]) -> tuple[str, str]:
    """The type and id of a repository from its page's path: a model's has no prefix."""
    if segments and segments[0] in TYPES:
        return TYPES[segments[0]], "/".join(segments[1:])
    return "model", "/".join(segments)


def _asks_private(asked: dict[str, Any], otherwise: bool) -> bool:
    if asked.get("visibility") is not None:
        return asked["visibility"] == "private"
    return otherwise if asked.get("private") is None else bool(asked["private"])
