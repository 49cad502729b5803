"""The model that a judge is trained from: an encoder of the Hub, or a tiny BERT with its own tokenizer."""

from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from .judge import MULTI_LABEL, not_loadable, require_padding, source_name

_VOCABULARY_SIZE = 4096  # at most, of a tokenizer trained here
_LEAST_FREQUENCY = 4  # of a merge: rare words must look in training as unknown ones will look later
_SPECIAL_TOKENS = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


def new_model(
    texts: list[str], labels: tuple[str, ...], max_length: int
) -> tuple[BertForSequenceClassification, PreTrainedTokenizerFast]:
    """An untrained BERT of hidden size 64 and two layers, and a tokenizer trained on the texts.

    Args:
        texts: to train on, and none that are held out.
        labels: a sigmoid for each.
        max_length: positions of the model.
    """
    tokenizer = _new_tokenizer(texts, max_length)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=max_length,
        pad_token_id=tokenizer.pad_token_id,
        **_head(labels),
    )
    return BertForSequenceClassification(config), tokenizer


def base_model(base: str, labels: tuple[str, ...], max_length: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """An encoder under a new head, and its tokenizer, which reads at most `max_length` tokens.

    Args:
        base: name on the Hub or path; safetensors weights.
        labels: a sigmoid for each.
        max_length: fewer where model or tokenizer have no room for more.

    Raises:
        ValueError: it cannot be loaded, or its tokenizer has no padding token.
    """
    try:
        # A base may come with a head of its own, of other labels: it is replaced.
        model = AutoModelForSequenceClassification.from_pretrained(
            base, dtype="float32", use_safetensors=True, ignore_mismatched_sizes=True, **_head(labels)
        )
        tokenizer = AutoTokenizer.from_pretrained(base, padding_side="right")
    except OSError as error:
        raise not_loadable(source_name(base), error, "base to be an encoder") from error
    require_padding(tokenizer, source_name(base))
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", max_length)
    # Comments are cut to it in training, and the judge is told to read as much of an answer.
    tokenizer.model_max_length = min(max_length, positions, tokenizer.model_max_length)
    return model, tokenizer


def _head(labels: tuple[str, ...]) -> dict[str, Any]:
    """A head with a sigmoid for each label, one label included: a row may have several or none."""
    return {
        "problem_type": MULTI_LABEL,
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: i for i, label in enumerate(labels)},
    }


def _new_tokenizer(texts: list[str], max_length: int) -> PreTrainedTokenizerFast:
    """Lower-case byte-level BPE of at most 4096 pieces, framed as BERT's: `[CLS]` in front, `[SEP]` behind."""
    # Not WordPiece: its trainer breaks ties by chance, and the same seed would give another judge.
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY_SIZE,
        min_frequency=_LEAST_FREQUENCY,
        show_progress=False,
        special_tokens=list(_SPECIAL_TOKENS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    frame = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=frame)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_length, **_SPECIAL_TOKENS)
