"""Which exceptions are the world's and not a bug of ours, so that their text is enough for a user."""

from huggingface_hub.errors import HfHubHTTPError

from ..results.hub.errors import PushError


def is_outside(error: BaseException) -> bool:
    """Whether a push, a download or a file failed; transformers raises OSError for a model that it cannot find."""
    return isinstance(error, PushError | HfHubHTTPError | OSError)
