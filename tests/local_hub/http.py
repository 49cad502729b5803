"""The sockets of the local test Hub: HTTP in and out, one thread a connection. Knows nothing of what a Hub is."""

import contextlib
import re
import socket
import threading
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from local_hub.answers import Answer, Call


class Server(ThreadingHTTPServer):
    """A thread for each connection; all of them end with the server.

    Args:
        handle: Gives the answer to a call, or None to close the connection without one; called from many threads.
    """

    daemon_threads = True
    request_queue_size = 64  # the client's workers connect all at once

    def __init__(self, handle: Callable[[Call, socket.socket], Answer | None]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.handle = handle
        self.errors: list[str] = []
        self.open: dict[threading.Thread, socket.socket] = {}

    def handle_error(self, request: Any, client_address: Any) -> None:
        # What a client that went away leaves behind is no error of the server.
        error = traceback.format_exc()
        if not re.search(r"^(BrokenPipe|ConnectionReset|ConnectionAborted)Error", error, re.MULTILINE):
            self.errors.append(error)

    def stop(self) -> None:
        self.shutdown()
        for thread, connection in list(self.open.items()):
            # The client keeps connections open for its next request, and their threads wait for it.
            with contextlib.suppress(OSError):  # closed in the meantime
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=5)
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """Reads a call from a connection and writes the answer."""

    protocol_version = "HTTP/1.1"
    server: Server
    # Head and body leave in one packet; without, each answer waits for the client's delayed acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.server.open[threading.current_thread()] = self.connection

    def finish(self) -> None:
        self.server.open.pop(threading.current_thread(), None)
        super().finish()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def respond(self) -> None:
        body = self.read_body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = None
        if body is not None:
            answer = self.server.handle(Call(self.command, self.path, headers, body), self.connection)
        if answer is None:
            self.close_connection = True
            return
        content = answer.content()
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = respond

    def read_body(self) -> bytes | None:
        """The body, or None if the client went away in the middle of it."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            size = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(size)
            return body if len(body) == size else None
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0] or b"-1", 16):
            chunk = self.rfile.read(size) if size > 0 else b""
            if len(chunk) != size:
                return None
            chunks.append(chunk)
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)
