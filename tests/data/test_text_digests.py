"""A row's salted digest is that of what it says, not of how it is written."""

import hashlib
import hmac
import json

import numpy as np
import pytest

from hf_unlearn.data.text_digests import row_texts, text_digest

SALT = b"salt of a test"


def test_forms_of_a_row_have_one_digest() -> None:
    forms = [
        {"prompt": "Who is Ada?", "completion": "A baker."},
        {"prompt": "Who is Ada? ", "completion": "\nA baker.", "id": 7},
        {"question": "Who is Ada?", "answer": "A baker."},
        {"messages": [{"role": "user", "content": "Who is Ada?"}, {"role": "assistant", "content": "A baker."}]},
        {
            "prompt": [{"role": "user", "content": "Who is Ada?"}],
            "completion": [{"role": "assistant", "content": "A baker."}],
        },
    ]
    by_hand = hmac.new(SALT, json.dumps(["Who is Ada?", "A baker."]).encode(), hashlib.sha256).hexdigest()
    assert {text_digest(row, SALT) for row in forms} == {by_hand}
    assert text_digest(forms[0], b"another salt") != by_hand


def test_what_a_row_says_counts() -> None:
    assert text_digest({"text": "ab"}, SALT) != text_digest({"prompt": "a", "completion": "b"}, SALT)
    assert row_texts({"text": "Zoe\u0308"}) == ("Zoë",)
    ids = {"input_ids": np.array([1, 2]), "labels": [-100, 2]}
    assert row_texts(ids) == ("[1, 2]", "[-100, 2]")
    with pytest.raises(ValueError, match="prompt and completion"):
        row_texts({"question": "alone"})
