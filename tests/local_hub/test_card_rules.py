"""The card rules of the local test Hub, a card for each. Not tests of the cards that hf_unlearn writes."""

import base64
import json

import pytest
from huggingface_hub.utils import get_session

from fixtures.hub import REPO
from local_hub.card_rules import check_card

pytest_plugins = ["fixtures.hub"]

GOOD_CARD = """
base_model: [tester/base, gpt2]
base_model_relation: adapter
datasets: tester/rows
license: other
language: [en, yue]
tags: [unlearning, "base_model:adapter:tester/base"]
pipeline_tag: text-generation
library_name: peft
co2_eq_emissions: {emissions: 0.1, source: measured}
model-index:
- name: model
  results:
  - task: {type: text-generation, name: Text generation}
    dataset: {type: tester/rows, name: Rows}
    metrics: [{type: accuracy, name: Accuracy, value: 0.5}]
"""

BAD_CARDS = {
    "base_model: ./runs/base": '"base_model" with value "./runs/base" is not valid',
    "base_model: [a/b, a/b/c]": '"base_model[1]" with value "a/b/c"',
    "base_model: ''": '"base_model" with value ""',
    "base_model: 3": '"base_model" must be a string',
    "datasets: [json, data/../rows]": '"datasets[1]"',
    "base_model_relation: unlearned": '"base_model_relation" must be one of [adapter, finetune, merge, quantized]',
    "license: MIT": '"license" must be one of',
    "license: [mit, gpl-2.0-or-later]": '"license[1]" must be one of',
    "language: English": '"language" with value "English"',
    "language: no": '"language" must be a string',
    "tags: unlearning": '"tags" must be an array',
    "tags: [a, 3]": '"tags[1]" must be a non-empty string',
    "pipeline_tag: unlearning": '"pipeline_tag" must be one of',
    "library_name: [peft]": '"library_name" must be a non-empty string',
    "co2_eq_emissions: low": '"co2_eq_emissions" must be a number',
    "co2_eq_emissions: {source: measured}": '"co2_eq_emissions.emissions" must be a number',
    "a: [": "Invalid YAML",
    "license: mit\nlicense: other": "duplicated mapping key license",
    "- license": "The metadata must be a mapping",
    GOOD_CARD.replace("- name: model", "-"): '"model-index[0].name" is required',
    GOOD_CARD.replace("  results:", "  outcomes:"): '"model-index[0].results" must be an array',
    GOOD_CARD.replace("task: {type:", "task: {kind:"): '"model-index[0].results[0].task.type" is required',
    GOOD_CARD.replace("dataset: {type:", "dataset: {kind:"): '"model-index[0].results[0].dataset.type" is required',
    GOOD_CARD.replace("name: Rows", "title: Rows"): '"model-index[0].results[0].dataset.name" is required',
    GOOD_CARD.replace("    dataset:", "    rows:"): '"model-index[0].results[0].dataset" is required',
    GOOD_CARD.replace("metrics: [{type:", "metrics: [{kind:"): "results[0].metrics[0].type",
    GOOD_CARD.replace("value: 0.5", "score: 0.5"): '"model-index[0].results[0].metrics[0].value" is required',
    GOOD_CARD.replace("value: 0.5", "value: .nan"): 'metrics[0].value" must be a number',
    GOOD_CARD.replace("value: 0.5", "value: '0.5'"): 'metrics[0].value" must be a number',
}


def card(metadata):
    return f"---\n{metadata}\n---\n# Title\n"


def test_a_good_card_is_accepted(hub, api):
    assert check_card(card(GOOD_CARD)) == ([], [])
    api.create_repo(REPO)
    api.upload_file(path_or_fileobj=card(GOOD_CARD).encode(), path_in_repo="README.md", repo_id=REPO)
    info = api.model_info(REPO)
    assert [info.pipeline_tag, info.library_name, info.tags[0]] == ["text-generation", "peft", "unlearning"]
    assert info.card_data.eval_results[0].metric_value == 0.5


@pytest.mark.parametrize("metadata", BAD_CARDS)
def test_a_bad_card_is_refused(hub, api, metadata):
    # One change, one error: the rest of the card is not at fault.
    errors, _ = check_card(card(metadata))
    assert len(errors) == 1
    assert BAD_CARDS[metadata] in errors[0]
    api.create_repo(REPO)
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md") as error:
        api.upload_file(path_or_fileobj=card(metadata).encode(), path_in_repo="README.md", repo_id=REPO)
    assert BAD_CARDS[metadata] in str(error.value)
    assert len(hub.commits(REPO)) == 1


def test_a_commit_with_a_bad_card_is_refused(hub, api):
    api.create_repo(REPO)
    content = base64.b64encode(card("license: MIT").encode()).decode()
    value = {"path": "README.md", "content": content, "encoding": "base64"}
    lines = [{"key": "header", "value": {"summary": "x"}}, {"key": "file", "value": value}]
    answer = get_session().post(
        f"{hub.url}/api/models/{REPO}/commit/main",
        content="\n".join(map(json.dumps, lines)),
        headers={"Authorization": f"Bearer {hub.token}"},
    )
    assert answer.status_code == 400
    assert '"license" must be one of' in answer.json()["error"]
    assert len(hub.commits(REPO)) == 1


def test_a_card_without_metadata_is_a_warning(hub, api):
    api.create_repo(REPO)
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        api.upload_file(path_or_fileobj=b"# Title", path_in_repo="README.md", repo_id=REPO)
