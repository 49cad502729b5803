"""PushError: whatever goes wrong between here and the Hub, with how to go on."""

from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from typing import Any

from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.utils import get_session

from ...errors import input_error


class PushError(RuntimeError):
    """The Hub or the way to it failed. Nothing local was changed, and the same push goes on where it was."""


@contextmanager
def hub_errors(what: str, timeout: float = 300.0) -> Iterator[None]:
    """Whatever goes wrong between here and the Hub, silence included, as a PushError that says what to do."""

    def limit(request: Any) -> None:
        # The client's own limit is none, also where it has an argument for it.
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), timeout)

    hooks = get_session().event_hooks["request"]
    hooks.append(limit)
    try:
        yield
    except (HTTPError, ConnectionError, TimeoutError, JSONDecodeError) as error:
        raise _push_error(what, error) from error  # JSONDecodeError: a gateway's error page
    except ValueError as error:
        if "Invalid metadata in README.md" not in str(error):
            raise
        raise _refused_card(error) from error
    except RuntimeError as error:  # an upload of a large file: the client wraps what went wrong, Xet has no other word
        cause: BaseException = error
        while cause.__cause__ is not None and not isinstance(cause, HTTPError):
            cause = cause.__cause__
        raise _push_error(what, cause) from error
    except OSError as error:  # a local file that cannot be read is no fault of the Hub's
        if type(error).__module__ != "hf_xet":
            raise
        raise _push_error(what, error) from error
    finally:
        hooks.remove(limit)


def _push_error(what: str, error: BaseException) -> PushError:
    """The four parts of an error that is not the user's, but that the user has to know of."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    got, fix = f"the Hub answered with status {status}", "wait a little"
    if status in (401, 403):
        fix = "log in with `hf auth login`, or set HF_TOKEN to a token that may write to the repository"
    elif status == 404:
        fix = "check the name of the repository, and that the token may write to it"
    elif status in (409, 412):
        fix = "somebody else is pushing there; wait until that is through"
    elif status == 400:
        fix = "update huggingface_hub, and see what the Hub says of the repository's name and of README.md"
    elif status == 429:
        fix = "wait a few minutes: the Hub counts requests"
    elif status is None:
        got, fix = f"the connection failed ({type(error).__name__})", "check the network"
    why = "the repository has all of the new files or none of them; the local folder is unchanged"
    again = "then run the same command again: files that have arrived are not sent twice"
    text = input_error(expected=f"the {what} to go through", got=got, why=why, fix=f"{fix}; {again}")
    return PushError(str(text))


def _refused_card(error: ValueError) -> ValueError:
    said = "; ".join(line.strip("- .") for line in str(error).splitlines()[1:] if line.strip())
    return input_error(
        expected="a README.md whose metadata the Hub accepts",
        got=said or "metadata that it refuses",
        why="the Hub files the model under it, and takes nothing of the push without it",
        fix="correct the block between the lines of --- in README.md, or render it again: hf-unlearn card RUN_DIR",
    )
