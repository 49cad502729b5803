"""What ends the answers of a set: read off the rendering of its first row, or off its tokens."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from .formats import RowFormat, to_row
from .tokenization import row_encoder
from .turns import AnswerEnds


def rendered_ends(
    first: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    template: str | None,
    chat_template_kwargs: Mapping[str, Any] | None,
) -> AnswerEnds:
    """What ends the answers of a set whose first row this is; nothing for tokenised rows, which are not rendered."""
    options = dict(tokenizer=tokenizer, set_name="eval", template=template, chat_template_kwargs=chat_template_kwargs)
    encoder = row_encoder(first, options | {"max_length": None, "alternates": False, "labels_from": None})
    if encoder.row_format is RowFormat.TOKENIZED:
        return AnswerEnds()
    given = {name: value for name, value in first.items() if name != "alternate"}
    return encoder.ends(to_row(given, encoder.row_format, "eval", index=0))


def template_ends(tokenizer: PreTrainedTokenizerBase) -> AnswerEnds:
    """What ends the assistant's turn in a tokenizer's chat template, by a row of its own; nothing without one."""
    if tokenizer.chat_template is None:
        return AnswerEnds()
    return rendered_ends({"prompt": "Who?", "completion": "I"}, tokenizer, None, None)
