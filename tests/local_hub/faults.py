"""Requests of the local test Hub that fail on purpose. It decides which and how; that the store is left alone is up to
the server, which asks here first.
"""

import re
import select
import socket
import threading
from dataclasses import dataclass, field
from typing import Literal

from local_hub.answers import Answer, refused
from local_hub.repos import Refusal

FaultKind = Literal[401, 403, 429, 500, 503, "cut", "hang"]

MESSAGES = {
    401: "Invalid credentials in Authorization header",
    403: "You do not have the required permissions",
    429: "We had to rate limit you",
    500: "Internal Error - We're working hard to fix this as soon as possible!",
    503: "Service Unavailable",
}

# How often a hanging request looks whether its client is still there.
POLL_SECONDS = 0.02


@dataclass
class Fault:
    """Which requests fail, and how. Not thread-safe: the server asks under its lock.

    Args:
        kind: An HTTP status, "cut" (the connection closes without an answer) or "hang" (no answer, until the client
            gives up or the fault is healed).
        at: Of the requests that match, counted from 0 since the fault was made, the first that fails.
        match: Searched in "METHOD path?query"; None matches every request.
        times: How many fail; None is all from there on.
        retry_after: With 429, the seconds that the client is told to wait, in both headers that it knows.
    """

    kind: FaultKind
    at: int = 0
    match: re.Pattern[str] | None = None
    times: int | None = None
    retry_after: int | None = None
    seen: int = 0
    failed: int = 0
    healed: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        if self.kind not in (*MESSAGES, "cut", "hang"):
            raise ValueError(f"kind must be one of {[*MESSAGES, 'cut', 'hang']}, got {self.kind!r}")

    def takes(self, line: str) -> bool:
        """Whether the request with this "METHOD path?query" fails; counts it."""
        if self.match is not None and not self.match.search(line):
            return False
        position = self.seen
        self.seen += 1
        if position < self.at or (self.times is not None and self.failed >= self.times):
            return False
        self.failed += 1
        return True

    def answer(self, connection: socket.socket) -> Answer | None:
        """The answer to a request that fails, or None to close its connection; a request that hangs waits here."""
        if self.kind == "cut":
            return None
        if self.kind == "hang":
            while not self.healed.wait(POLL_SECONDS) and not _has_closed(connection):
                pass
            return None
        headers = {}
        if self.kind == 429 and self.retry_after is not None:
            headers = {"Retry-After": str(self.retry_after), "ratelimit": f'"api";r=0;t={self.retry_after}'}
        return refused(Refusal(self.kind, MESSAGES[self.kind], headers=headers))


def _has_closed(connection: socket.socket) -> bool:
    """Whether the other side has closed a connection from which a whole request was read."""
    try:
        readable, _, _ = select.select([connection], [], [], 0)
        return bool(readable) and connection.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        return True
