"""What the Hub refuses in a card's YAML block, as far as it is known. Not the Hub's own code, nor complete.

Stricter than the Hub where its rule is not published: an unknown `pipeline_tag` and a metric that is no finite number
are errors here. Laxer in one place: any three lower-case letters pass as an ISO 639-3 language code.
"""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

# "other" needs nothing more than itself.
_LICENSES = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown
other
"""
LICENSES = frozenset(_LICENSES.split())

_PIPELINE_TAGS = """
text-classification token-classification table-question-answering question-answering zero-shot-classification
translation summarization feature-extraction text-generation fill-mask sentence-similarity text-ranking
text-to-speech text-to-audio automatic-speech-recognition audio-to-audio audio-classification audio-text-to-text
voice-activity-detection depth-estimation image-classification object-detection image-segmentation text-to-image
image-to-text image-to-image image-to-video unconditional-image-generation video-classification
reinforcement-learning robotics tabular-classification tabular-regression tabular-to-text table-to-text
multiple-choice text-to-video image-text-to-text image-text-to-image image-text-to-video visual-question-answering
document-question-answering zero-shot-image-classification graph-ml mask-generation zero-shot-object-detection
text-to-3d image-to-3d image-feature-extraction video-text-to-text video-to-video keypoint-detection
visual-document-retrieval any-to-any time-series-forecasting other
"""
PIPELINE_TAGS = frozenset(_PIPELINE_TAGS.split())

_LANGUAGES = """
aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en
eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv
ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne
ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st
su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu code multilingual
"""
LANGUAGES = frozenset(_LANGUAGES.split())

RELATIONS = ("adapter", "merge", "quantized", "finetune")

_FRONT_MATTER = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_ID_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,94}(?<![.-])")

Errors = Iterator[str]


class _StrictLoader(yaml.SafeLoader):
    """A YAML loader that refuses a key given twice, which the Hub's parser does and PyYAML's own does not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicated mapping key {key}", key_node.start_mark
                )
            seen.add(key if isinstance(key, str) else id(key_node))
        return super().construct_mapping(node, deep)


def check_card(content: str, repo_type: str = "model") -> tuple[list[str], list[str]]:
    """What is wrong with a card.

    Args:
        content: The whole README.md.
        repo_type: "model" or "dataset"; a model's keys (base model, model index, ...) are not looked at in a dataset.

    Returns:
        Errors, for which the Hub refuses the card, and warnings, for which it does not.
    """
    try:
        metadata = parse_card(content)
    except yaml.YAMLError as error:
        return [f"Invalid YAML: {error}"], []
    if metadata is None or metadata == {}:
        return [], ["empty or missing yaml metadata in repo card"]
    if not isinstance(metadata, dict):
        return ["The metadata must be a mapping"], []
    rules = _COMMON_RULES | (_MODEL_RULES if repo_type == "model" else _DATASET_RULES)
    # A key without a value is as good as absent.
    present = {key: metadata[key] for key in rules if metadata.get(key) is not None}
    return [error for key, value in present.items() for error in rules[key](key, value)], []


def parse_card(content: str) -> Any:
    """The YAML block of a card, or None where there is none. Raises yaml.YAMLError."""
    block = _FRONT_MATTER.match(content)
    # _StrictLoader is a SafeLoader, so no object is built from a tag.
    return yaml.load(block[1], Loader=_StrictLoader) if block else None


def is_repo_id(value: object) -> bool:
    """Whether a value is `name` or `namespace/name` by the Hub's rules; a path of a machine is not."""
    if not isinstance(value, str) or "--" in value or ".." in value or value.endswith(".git"):
        return False
    parts = value.split("/")
    return len(parts) <= 2 and all(_ID_PART.fullmatch(part) for part in parts)


def _each(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The items of a value that may be one or a list, each with the name that an error gives it."""
    if isinstance(value, list):
        yield from ((f"{key}[{i}]", item) for i, item in enumerate(value))
    else:
        yield key, value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _repo_ids(kind: str) -> Callable[[str, Any], Errors]:
    def check(key: str, value: Any) -> Errors:
        for name, item in _each(key, value):
            if not isinstance(item, str):
                yield f'"{name}" must be a string'
            elif not is_repo_id(item):
                yield f'"{name}" with value "{item}" is not valid. Use a {kind} id from https://hf.co/{kind}s.'

    return check


def _one_of(choices: frozenset[str] | tuple[str, ...], many: bool = False) -> Callable[[str, Any], Errors]:
    def check(key: str, value: Any) -> Errors:
        for name, item in _each(key, value) if many else [(key, value)]:
            if not isinstance(item, str) or item not in choices:
                yield f'"{name}" must be one of [{", ".join(sorted(choices))}]'

    return check


def _language(key: str, value: Any) -> Errors:
    for name, item in _each(key, value):
        if not isinstance(item, str):  # `language: no` is YAML for False
            yield f'"{name}" must be a string'
        elif item not in LANGUAGES and not re.fullmatch("[a-z]{3}", item):
            yield (
                f'"{name}" with value "{item}" is not valid. It must be an ISO 639-1, 639-2 or 639-3 code '
                '(two/three letters), or a special value like "code", "multilingual".'
            )


def _string(key: str, value: Any) -> Errors:
    if not isinstance(value, str) or not value:
        yield f'"{key}" must be a non-empty string'


def _strings(key: str, value: Any) -> Errors:
    if not isinstance(value, list):
        yield f'"{key}" must be an array'
        return
    for name, item in _each(key, value):
        yield from _string(name, item)


def _emissions(key: str, value: Any) -> Errors:
    if isinstance(value, dict):
        key, value = f"{key}.emissions", value.get("emissions")
    if not _is_number(value):
        yield f'"{key}" must be a number'


def _model_index(key: str, value: Any) -> Errors:
    if not isinstance(value, list):
        yield f'"{key}" must be an array'
        return
    for name, model in _each(key, value):
        yield from _required(model, name, "name")
        results = model.get("results") if isinstance(model, dict) else None
        if not isinstance(results, list):
            yield f'"{name}.results" must be an array'
            continue
        for place, result in _each(f"{name}.results", results):
            yield from _result(place, result)


def _result(place: str, result: Any) -> Errors:
    if not isinstance(result, dict):
        yield f'"{place}" must be an object'
        return
    yield from _required(result.get("task"), f"{place}.task", "type")
    yield from _required(result.get("dataset"), f"{place}.dataset", "type", "name")
    metrics = result.get("metrics")
    if not isinstance(metrics, list) or not metrics:
        yield f'"{place}.metrics" must be a non-empty array'
        return
    for name, metric in _each(f"{place}.metrics", metrics):
        yield from _required(metric, name, "type")
        if isinstance(metric, dict) and not _is_number(metric.get("value")):
            yield f'"{name}.value" must be a number' if "value" in metric else f'"{name}.value" is required'


def _required(value: Any, place: str, *keys: str) -> Errors:
    """Errors where a value is not a mapping with non-empty strings under all the keys."""
    if not isinstance(value, dict):
        yield f'"{place}" must be an object' if value is not None else f'"{place}" is required'
        return
    for key in keys:
        if value.get(key) is None:
            yield f'"{place}.{key}" is required'
        else:
            yield from _string(f"{place}.{key}", value[key])


_COMMON_RULES: dict[str, Callable[[str, Any], Errors]] = {
    "license": _one_of(LICENSES, many=True),
    "language": _language,
    "tags": _strings,
}
_MODEL_RULES: dict[str, Callable[[str, Any], Errors]] = {
    "base_model": _repo_ids("model"),
    "base_model_relation": _one_of(RELATIONS),
    "datasets": _repo_ids("dataset"),
    "library_name": _string,
    "pipeline_tag": _one_of(PIPELINE_TAGS),
    "model-index": _model_index,
    "co2_eq_emissions": _emissions,
}
_DATASET_RULES: dict[str, Callable[[str, Any], Errors]] = {
    "pretty_name": _string,
    "task_categories": _strings,
    "size_categories": lambda key, value: (error for name, item in _each(key, value) for error in _string(name, item)),
}
