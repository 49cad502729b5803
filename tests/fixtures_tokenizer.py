"""Small tokenizers whose ids can be worked out by hand: a character a token, but for given merges. No models."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
PAD, BOS, EOS, IM_START, IM_END = range(5)

CHAT_TEMPLATE = (
    "{%- for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n'}}{%- endfor %}"
    "{%- if add_generation_prompt %}{{'<|im_start|>assistant\n'}}{%- endif %}"
)


def make_tokenizer(merges: tuple[tuple[str, str], ...] = ()) -> PreTrainedTokenizerFast:
    """A fast byte-level tokenizer without a chat template: `<s>` in front, one token a byte but for the merges.

    Args:
        merges: pairs in the byte-level alphabet, where "Ġ" stands for a space, e.g. ((":", "Ġ"), (":Ġ", "b")).
    """
    pieces = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(merge) for merge in merges)]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    # Without the usual splitting at spaces, so that a merge may span the end of a prompt.
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def make_chat_tokenizer() -> PreTrainedTokenizerFast:
    """The same with a chat template, `<|im_end|>` as its end of turn and of text, and that as padding too."""
    tokenizer = make_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"
    return tokenizer


class SlowTokenizer(PreTrainedTokenizer):
    """A tokenizer in Python alone, hence without character offsets: a token is a character or "ab", `<s>` in front."""

    def __init__(self) -> None:
        pieces = [*SPECIAL_TOKENS[:3], "ab", "\n", *map(chr, range(32, 127))]
        self._ids = {piece: place for place, piece in enumerate(pieces)}
        super().__init__(bos_token="<s>", eos_token="</s>", pad_token="<pad>")

    @property
    def vocab_size(self) -> int:
        return len(self._ids)

    def get_vocab(self) -> dict[str, int]:
        return dict(self._ids)

    def _tokenize(self, text: str) -> list[str]:
        tokens = []
        while text:
            tokens.append("ab" if text.startswith("ab") else text[0])
            text = text[len(tokens[-1]) :]
        return tokens

    def _convert_token_to_id(self, token: str) -> int:
        return self._ids[token]

    def _convert_id_to_token(self, index: int) -> str:
        return list(self._ids)[index]

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        return [BOS, *token_ids_0, *(token_ids_1 or [])]


def ids_of(text: str, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Ids of ASCII text, a token a character, looked up one by one."""
    vocabulary = tokenizer.get_vocab()
    return [vocabulary[{" ": "Ġ", "\n": "Ċ"}.get(character, character)] for character in text]
