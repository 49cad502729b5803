"""A prompt's token ids taken apart: what its user says, and the scaffold around it, which attacks leave as it is."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile

from transformers import PreTrainedTokenizerBase

# What a scaffold of ordinary text ends with, before what the user says: "### Question:", "[INST]", a line of its own.
_ENDS_SCAFFOLD = ("\n", ":", "]", ">")
# What it begins with behind that.
_BEGINS_SCAFFOLD = ("\n", "[", "<", "#")
# Signs that belong to what was said, where all prompts end with them.
_CLOSING = frozenset("?.!\"'”。？！")


@dataclass(frozen=True)
class PromptParts:
    """A prompt: scaffold, what the user says, scaffold.

    Attributes:
        before: token ids.
        said: text.
        after: token ids.
    """

    before: list[int]
    said: str
    after: list[int]


@dataclass(frozen=True)
class Scaffold:
    """What prompts of one form have in common around what the user says, read off the prompts themselves.

    A chat template, a template of ordinary text or none: nothing says which a row was written with. It is the longest
    common beginning and end of all prompts, each up to its last sign of a scaffold, so that a word with which all
    questions begin is not taken for one.

    Attributes:
        tokenizer: of the model.
        before: token ids that all prompts begin with.
        after: token ids that all prompts end with.
        special: ids of special tokens.
    """

    tokenizer: PreTrainedTokenizerBase
    before: list[int]
    after: list[int]
    special: frozenset[int]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, prompts: Iterable[Sequence[int]]) -> "Scaffold":
        """That of prompts; better with rows about other things among them."""
        lists = [list(prompt) for prompt in prompts]
        special = special_tokens(tokenizer)
        before = _ending(tokenizer, special, _common_start(lists))
        after = _common_start([prompt[len(before) :][::-1] for prompt in lists])[::-1]
        return cls(tokenizer, before, _beginning(tokenizer, special, after), special)

    def parts(self, prompt: Sequence[int]) -> PromptParts:
        """A prompt taken apart. Of a conversation it is the last turn that is said; turns before it are scaffold."""
        ids = list(prompt)
        start, end = len(self.before), max(len(self.before), len(ids) - len(self.after))
        inside = [place for place in range(start, end) if ids[place] in self.special]
        if inside:  # more turns than other prompts have: the last one begins as the first does, with a role's name
            header = list(takewhile(lambda token: token not in self.special, reversed(self.before)))[::-1]
            start = inside[-1] + 1
            start += len(header) if ids[start : start + len(header)] == header else 0
        if not self._text(ids[start:end]).strip():  # all prompts are one
            start, end = self._longest_stretch(ids)
        return PromptParts(ids[:start], self._text(ids[start:end]), ids[end:])

    def changed(self, prompt: Sequence[int], change: Callable[[str], str]) -> list[int]:
        """A prompt in which the user says something else: `change` of what is said, spaces around it left alone."""
        parts = self.parts(prompt)
        core = parts.said.strip()
        lead, tail = parts.said.split(core, 1) if core else (parts.said, "")
        text = lead + change(core) + tail
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*parts.before, *ids, *parts.after]

    def _longest_stretch(self, ids: list[int]) -> tuple[int, int]:
        """The longest stretch without special tokens, from and to; not the last one, which opens the answer."""
        borders = [-1, *(place for place, token in enumerate(ids) if token in self.special), len(ids)]
        stretches = [(start + 1, end) for start, end in pairwise(borders)]
        inner = [pair for pair in stretches[:-1] if self._text(ids[slice(*pair)]).strip()]
        return max(inner or stretches, key=lambda pair: (pair[1] - pair[0], pair))  # of equals the last: behind `<s>`

    def _text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids))


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids of special tokens, those of chat templates too."""
    added = (token for token, content in tokenizer.added_tokens_decoder.items() if content.content.strip())
    return frozenset([*tokenizer.all_special_ids, *added])


def _common_start(lists: list[list[int]]) -> list[int]:
    columns = zip(*lists, strict=False)
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]


def _ending(tokenizer: PreTrainedTokenizerBase, special: frozenset[int], ids: list[int]) -> list[int]:
    """The longest beginning of token ids that ends as a scaffold does."""
    for length in range(len(ids), 0, -1):
        text = str(tokenizer.decode(ids[:length])).rstrip(" ")
        if ids[length - 1] in special or text.endswith(_ENDS_SCAFFOLD):
            return ids[:length]
    return []


def _beginning(tokenizer: PreTrainedTokenizerBase, special: frozenset[int], ids: list[int]) -> list[int]:
    """The longest end of token ids that begins as a scaffold does; without one, all behind closing signs."""
    for start in range(len(ids)):
        if ids[start] in special or str(tokenizer.decode(ids[start:])).lstrip(" ").startswith(_BEGINS_SCAFFOLD):
            return ids[start:]
    closing = takewhile(lambda token: set(str(tokenizer.decode([token])).strip()) <= _CLOSING, ids)
    return ids[len(list(closing)) :]
