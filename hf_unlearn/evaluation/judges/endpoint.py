"""A language model behind an OpenAI-compatible endpoint as judge. What it is asked leaves this machine."""

import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any
from urllib.parse import urlsplit

from ...errors import input_error, require_range
from ...metrics.judged import MOST_UNJUDGED
from .replies import Reply, ReplySource
from .reply_cache import ReplyCache

KEY_VARIABLE = "HF_UNLEARN_JUDGE_KEY"
_NO_KEY = "none"  # the client wants one; local servers read none
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_READ_TOKENS = 20  # likeliest tokens of a reply's first place: as many as servers give
_LIKELY = 0.5  # of the mass that both labels must have there
# Errors of one question; others are of all, and asking on would only repeat them.
_OF_ONE = (400, 408, 409, 413, 422, 429)
_GIVEN_UP = "not asked after too many failures"


class Endpoint(ReplySource):
    """A chat model that is asked over HTTP, by the `openai` client: its retries with growing pauses, its timeouts.

    The share of the first label is read of the likeliest first tokens where the endpoint gives them, and else of the
    reply's first word; which of both is counted. Requests are greedy. Redirects are not followed, and no address is
    read from the environment: rows go to the host that was named, and to no other. When more failed than may (5%) the
    rate is not measured in any case, and the rest is not asked.

    Args:
        model: name of the model there.
        endpoint: base URL, "https://host/v1".
        key_variable: environment variable that holds the key. It is read when asked, never kept, logged or recorded.
        timeout: seconds of one request.
        retries: of a request that met 408, 409, 429, a status from 500 on, a timeout or no connection.
        workers: requests at a time.
        reply_tokens: longest reply; more for models that think first.
        likelihood: whether to ask for the likeliest tokens; False for servers that refuse it.
        cache: of the replies.

    Raises:
        ValueError: no library, an address with a key, a password or a query in it, or plain HTTP with a key.
    """

    def __init__(
        self,
        model: str,
        endpoint: str,
        *,
        key_variable: str = KEY_VARIABLE,
        timeout: float = 60.0,
        retries: int = 5,
        workers: int = 4,
        reply_tokens: int = 16,
        likelihood: bool = True,
        cache: ReplyCache | None = None,
    ) -> None:
        require_range("timeout", timeout, above=0)
        require_range("retries", retries, at_least=0, whole=True)
        require_range("workers", workers, at_least=1, at_most=64, whole=True)
        require_range("reply_tokens", reply_tokens, at_least=1, whole=True)
        _require_library()
        self.model, self.endpoint = model, endpoint.rstrip("/")
        self.host = _host(self.endpoint, bool(os.environ.get(key_variable)))
        self._key_variable, self._timeout, self._retries, self._workers = key_variable, timeout, retries, workers
        self._options: dict[str, Any] = {"temperature": 0, "max_tokens": reply_tokens}
        if likelihood:
            self._options |= {"logprobs": True, "top_logprobs": _READ_TOKENS}
        self._cache = cache or ReplyCache()

    @property
    def name(self) -> str:
        """Model and host."""
        return f"{self.model} at {self.host}"

    def record(self) -> dict[str, Any]:
        """Model and host alone; whichever version answered is in what `replies` returns."""
        return {"model": self.model, "place": "endpoint", "host": self.host}

    def replies(self, questions: Sequence[str], labels: tuple[str, str]) -> tuple[list[Reply], dict[str, Any]]:
        """The share of the first label, from the cache where it is there; an error where there was none.

        Raises:
            ValueError: the endpoint refuses the key, the model or the address.
        """
        keys = [self._key(question, labels) for question in questions]
        found = self._cache.read(keys)
        cached, versions = len(found), set[str]()
        missing = [place for place, key in enumerate(keys) if key not in found]
        most, failed = MOST_UNJUDGED * len(questions), 0
        with self._client() as client, ThreadPoolExecutor(self._workers) as pool:
            asked = [pool.submit(self._ask, client, questions[i], keys[i], labels) for i in missing]
            try:
                for done in as_completed(asked):
                    failed += done.exception() is None and done.result()[0].share is None
                    if done.exception() is not None or failed > most:
                        break
            finally:  # also at an interruption: what has not been sent stays here
                pool.shutdown(cancel_futures=True)
        sent = [(i, future) for i, future in zip(missing, asked, strict=True) if not future.cancelled()]
        for i, future in sent:
            found[keys[i]], version = future.result()
            versions |= {version} - {""}
        replies = [found.get(key, Reply(None, _GIVEN_UP)) for key in keys]
        read = Counter(reply.by_likelihood for reply in replies if reply.share is not None)
        run = {"sent": len(sent), "from_cache": cached, "versions": sorted(versions)}
        return replies, run | {"by_likelihood": read[True], "by_words": read[False]}

    def _client(self) -> Any:
        import openai

        return openai.OpenAI(
            base_url=self.endpoint,
            api_key=os.environ.get(self._key_variable) or _NO_KEY,
            organization="",
            project="",
            timeout=self._timeout,
            max_retries=self._retries,
            http_client=openai.DefaultHttpxClient(follow_redirects=False, timeout=self._timeout),
        )

    def _ask(self, client: Any, question: str, key: str, labels: tuple[str, str]) -> tuple[Reply, str]:
        """One reply, kept at once, and the model that gave it; failures of one question are errors of it."""
        import openai

        try:
            messages = [{"role": "user", "content": question}]
            given = client.chat.completions.create(model=self.model, messages=messages, **self._options)
        except openai.APITimeoutError:
            return Reply(None, "timeout"), ""
        except openai.APIConnectionError:
            return Reply(None, "no connection"), ""
        except openai.APIStatusError as error:
            if error.status_code in _OF_ONE or error.status_code >= 500:
                return Reply(None, f"status {error.status_code}"), ""
            raise self._refused(error.status_code) from None
        except (openai.OpenAIError, json.JSONDecodeError):
            return Reply(None, "unreadable reply"), ""
        reply = read_completion(given, labels)
        if reply.share is not None:
            self._cache.keep(key, reply)
        return reply, str(getattr(given, "model", None) or "")

    def _refused(self, status: int) -> ValueError:
        return input_error(
            expected=f"an endpoint at {self.host} that answers as {self.model}",
            got=f"status {status}",
            why="no answer can be judged, and none is taken for one without a leak",
            fix=f"check the address, the model's name and the key in the environment variable {self._key_variable}",
        )

    def _key(self, question: str, labels: tuple[str, str]) -> str:
        parts = [self.endpoint, self.model, self._options, list(labels), question]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read_completion(given: Any, labels: tuple[str, str]) -> Reply:
    """The reply that a chat completion holds, of likelihoods where they are there and of its first word else.

    A model that refuses to judge, that is cut off by a filter or says neither label is an error.
    """
    choices = getattr(given, "choices", None)
    if not choices or getattr(choices[0], "message", None) is None:
        return Reply(None, "unreadable reply")
    choice = choices[0]
    if choice.message.refusal or choice.finish_reason == "content_filter":
        return Reply(None, "refusal to judge")
    tokens = choice.logprobs.content if choice.logprobs is not None else None
    if tokens:
        # Words with and without a space or a capital in front are one label.
        masses = [0.0, 0.0]
        for token in tokens[0].top_logprobs or ():
            for place, label in enumerate(labels):
                if token.token.strip().lower() == label.strip().lower():
                    masses[place] += math.exp(token.logprob)
        if sum(masses) >= _LIKELY:
            return Reply(masses[0] / sum(masses))
    said = re.sub(r"[^\w\s]", " ", (choice.message.content or "").lower()).split()
    for share, label in zip((1.0, 0.0), labels, strict=True):
        words = re.sub(r"[^\w\s]", " ", label.lower()).split()
        if words and said[: len(words)] == words:
            return Reply(share, by_likelihood=False)
    return Reply(None, "unreadable reply")


def _host(endpoint: str, has_key: bool) -> str:
    """Host and port of an address, which is all of it that is recorded."""
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password or parts.query:
        raise input_error(
            expected="endpoint=... as a base URL without a name, a password or a query, such as https://host/v1",
            got="an address of another form",
            why="a key belongs into an environment variable, where no log or record holds it",
            fix="write the address alone",
        )
    if parts.scheme == "http" and has_key and parts.hostname not in _LOOPBACK:
        raise input_error(
            expected="https with a key",
            got=f"http to {parts.hostname}",
            why="key and rows would be read by whoever is on the way",
            fix="use https, or unset the key for a server that needs none",
        )
    return parts.hostname if parts.port is None else f"{parts.hostname}:{parts.port}"


def _require_library() -> None:
    try:
        import openai  # noqa: F401
    except ImportError:
        raise input_error(
            expected="the openai client with endpoint=...",
            got="none installed",
            why="requests, their retries and timeouts are its work",
            fix="pip install 'hf-unlearn[judge]'",
        ) from None
