"""Tells failures of network, disk and libraries, whose text is enough for a user, from bugs of this package."""

from huggingface_hub.errors import HfHubHTTPError

from ..results.hub.errors import PushError


def is_outside(error: BaseException) -> bool:
    """Whether a push, a download or a file failed; transformers raises OSError for a model that it cannot find."""
    return isinstance(error, PushError | HfHubHTTPError | OSError)
