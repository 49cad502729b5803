"""Serves the page on one machine: loopback unless told otherwise, no link to share, no figures of use, no fonts."""

import errno
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils import logging

from ..errors import input_error

if TYPE_CHECKING:  # only where the extra is installed
    from gradio import Blocks

logger = logging.get_logger(__name__)

# Enforced by the browser: the page loads from where it came from and from nowhere else, and sends to nowhere else.
_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'self'"
)
_FIRST_PORT, _PORTS = 7860, 100
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class ContentPolicy:
    """ASGI middleware that sends the policy with every answer.

    Args:
        app: that answers.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: _Send) -> None:
        """Answer a request."""

        async def with_policy(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                named = [(b"content-security-policy", _POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message = {**message, "headers": [*message.get("headers", []), *named]}
            await send(message)

        await self._app(scope, receive, with_policy)


def require_gradio() -> None:
    """Raise where the extra is missing, before anything is loaded; else import it with its figures of use off.

    Raises:
        ValueError: gradio is not installed.
    """
    # Read when gradio is imported.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        if (error.name or "").split(".")[0] != "gradio":
            raise
        raise input_error(
            expected="gradio, which makes the page",
            got="none that is installed",
            why="it comes with an extra of the package, as only this command needs it",
            fix="pip install 'hf-unlearn[demo]'",
        ) from None


def choose_port(host: str, port: int | None) -> int:
    """A port that is free on a host: the one that was asked for, or the first from 7860 on.

    Raises:
        ValueError: it is taken or may not be used, or the host is not this machine.
    """
    tried = range(_FIRST_PORT, _FIRST_PORT + _PORTS) if port is None else [port]
    if port is not None and not 1 <= port <= 65535:
        raise input_error(
            expected="--port from 1 to 65535", got=str(port), why="there are no others", fix="leave --port out"
        )
    for candidate in tried:
        problem = _bound(host, candidate)
        if problem is None:
            return candidate
        if problem.errno not in (errno.EADDRINUSE, errno.EACCES) or isinstance(problem, socket.gaierror):
            raise input_error(
                expected="--host with a name or an address of this machine",
                got=f"{host} ({problem.strerror or problem})",
                why="the page is served from here",
                fix="leave --host out to serve it to this machine alone",
            )
    raise input_error(
        expected="a port that is free",
        got=f"--port {port}, which is taken or may not be used" if port else "none from 7860 to 7959",
        why="two programs cannot listen on one port; another demo may still be running",
        fix="end the other program, or name another one: --port 7999",
    )


def warn_of_host(host: str) -> bool:
    """Warn where others can reach the page; whether they can."""
    if is_loopback(host):
        return False
    logger.warning(
        f"The page is served on {host}: whoever can reach this machine can ask the models, and no password is asked "
        "for. The models before unlearning still know what was to be forgotten."
    )
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def launch(page: "Blocks", host: str, port: int, *, open_browser: bool = False, wait: bool = True) -> str:
    """Serve the page.

    Args:
        page: of `build_page`.
        host: to listen on.
        port: that is free.
        open_browser: open it in the browser of this machine.
        wait: until it is interrupted.

    Returns:
        its address.
    """
    import gradio as gr

    fonts = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
    theme = gr.themes.Default(font=fonts, font_mono=("ui-monospace", "Consolas", "monospace"), primary_hue="blue")
    # Its own are too light to read on white.
    theme.set(
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_title_text_color="*neutral_700",
        input_placeholder_color="*neutral_500",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
    )
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        inbrowser=open_browser,
        inline=False,
        prevent_thread_lock=True,
        quiet=True,
        theme=theme,
        css=(Path(__file__).parent / "demo.css").read_text(encoding="utf-8"),
        # The browser would keep prompts and answers.
        run_history=False,
        footer_links=[],
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        app_kwargs={"middleware": [(ContentPolicy, (), {})]},
    )
    if wait:
        page.block_thread()
    return address


def _bound(host: str, port: int) -> OSError | None:
    """Why a port cannot be listened on; None where it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host.strip("[]"), port))
        except OSError as error:
            return error
    return None
