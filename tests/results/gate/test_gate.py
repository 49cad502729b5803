"""The gate: policies as they are written, and what each way of release is refused for."""

import dataclasses
import json
import math

import pytest
import yaml

from fixtures.attack_reports import finding, held, relearning, report, without_control, worst_of
from fixtures.examples import assert_four_parts
from fixtures.report import figure, record, save_run
from hf_unlearn.cli.gate import _WAYS
from hf_unlearn.results.attack_report import AttackReport, Excess
from hf_unlearn.results.gate import WAYS, gate, gate_table, packaged_policies, read_policy
from hf_unlearn.results.gate.policy import policy_of
from hf_unlearn.results.record import ModelRecord

LIMITS = {"excess": 0.1, "membership": 0.2, "recovered": 0.05, "rows": 40, "utility": 0.9, "classes": ["queries"]}
NOTHING = Excess(0.0, -0.05, 0.1, "oracle")  # its upper end is the limit
LEAKS = {"model": 0.1, "oracle": 0.1}
WHOLE, ADAPTED = (ModelRecord("a/b", "hub", adapter=adapter) for adapter in (None, {"kind": "LORA"}))


def decided(folder, made, model=WHOLE, with_rows=True, **limits):
    """The gate of a run that kept 97% of its utility, by these limits."""
    save_run(folder, record(attack_report=made, model=model, log=[]), full=False)
    if made is not None and with_rows:
        made.save(folder)
    return gate(folder, policy_of(LIMITS | limits, "mine"))


def reasons(*args, way="api_text", **kwargs):
    """Why a way is refused."""
    return next(each.reasons for each in decided(*args, **kwargs).ways if each.way == way)


def tried(*findings, **changes):
    return report(list(findings), skipped={}, warnings=[], **changes)


def test_every_way_counts_the_attacks_of_those_that_it_lets_in(tmp_path):
    contrast = finding("contrast", "weights_and_before", LEAKS, Excess(0.5, 0.4, 0.6, "oracle"), 0.6)
    found = decided(tmp_path, tried(*report().findings, contrast), model=ADAPTED)
    ways = {each.way: each for each in found.ways}
    assert list(ways) == list(WAYS) == list(_WAYS)
    assert {name: (each.released, each.attack, each.excess, each.recovered) for name, each in ways.items()} == {
        "adapter": (False, "remove_adapter", 1.0, 1.0),
        "merged": (False, "relearn", 0.75, pytest.approx(0.9)),  # 80% and 10% of rows that may be others
        "quantized": (False, "relearn", 0.75, pytest.approx(0.9)),
        "api_logprobs": (True, "prompts", 0.08, 0.0),
        "api_text": (True, "prompts", 0.08, 0.0),
    }
    assert ways["merged"].attacks == ["prompts", "sampling", "relearn", "quantize"]
    assert ways["adapter"].attacks[-2:] == ["remove_adapter", "contrast"] and ways["api_text"].attacks == ["prompts"]
    assert not found.released and found.rows == 60 and found.utility == pytest.approx(0.965 / 0.995)
    assert any("The model before unlearning is on the Hub" in note for note in found.notes)


def test_a_run_that_gives_nothing_away_is_released(tmp_path):
    found = decided(tmp_path, held())
    assert found.released and [each.way for each in found.ways] == [name for name in WAYS if name != "adapter"]
    assert all(each.reasons == [] for each in found.ways)
    assert gate_table(found).startswith("Released by the policy mine: merged, quantized, api_logprobs, api_text.")
    whole = gate(tmp_path, read_policy("standard"))
    assert whole.released and [each.excess for each in whole.ways] == [0.09] * 4
    json.dumps(dataclasses.asdict(whole), allow_nan=False)


def test_a_run_that_was_never_attacked_is_refused_with_what_to_run(tmp_path):
    words = ["the model was not attacked: run hf-unlearn attack on the run's folder"]
    assert reasons(tmp_path, None) == words == reasons(tmp_path, AttackReport())
    (tmp_path / "attacks.json").unlink()
    held().save(tmp_path)  # of a state before the weights were trained again
    assert "attacks.json is of another state of it" in reasons(tmp_path, None)[0]


QUERIES = finding("prompts", "queries", LEAKS, NOTHING)
CASES = {
    "at the limit": (QUERIES, {}, None),
    "above it": (
        dataclasses.replace(QUERIES, excess=Excess(0.0, -0.1, 0.101, "oracle")),
        {},
        "prompts: its excess may be 0.101, more than 0.1",
    ),
    "no figure": (
        dataclasses.replace(QUERIES, excess=Excess(0.0, -0.1, math.nan, "oracle")),
        {},
        "prompts: its excess is not known, as it has no control or no figure",
    ),
    "no control": (without_control().findings[0], {"recovered": 1}, "prompts: its excess is not known"),
    "membership": (
        dataclasses.replace(QUERIES, content=False, excess=Excess(0.1, 0.0, 0.21, "oracle")),
        {},
        "prompts: its excess may be 0.210, more than 0.2",
    ),
    "no limit to membership": (
        dataclasses.replace(QUERIES, content=False, excess=None),
        {"membership": None},
        None,
    ),
    "rows recovered": (
        dataclasses.replace(QUERIES, recovered=0.051),
        {},
        "attacks recover 5.1% of the rows, more than 5.0%",
    ),
    "few rows": (QUERIES, {"rows": 61}, "the figures are of 60 rows, fewer than 61"),
    "utility": (QUERIES, {"utility": 0.98}, "97.0% of the utility was kept, less than 98.0%"),
    "class": (dataclasses.replace(QUERIES, threat="logits"), {}, "no attack of the class queries was tried: run"),
    "attack": (QUERIES, {"attacks": {"queries": ["leak_at_k"]}}, "leak_at_k was not tried: run hf-unlearn attack"),
    "not exposed": (QUERIES, {"attacks": {"weights": ["relearn"]}, "classes": ["weights"]}, None),
}


@pytest.mark.parametrize("case", CASES)
def test_a_way_is_refused_for_each_limit_alone(tmp_path, case):
    made, limits, words = CASES[case]
    found = reasons(tmp_path, tried(made), **limits)
    assert len(found) == (words is not None) and all(each.startswith(words) for each in found)


def test_quantized_needs_the_attack_of_that_name_and_skipped_ones_say_why(tmp_path):
    made = tried(QUERIES, relearning((0.1, 0.0, 0.2), excess=NOTHING, recovered=0.0))
    made = dataclasses.replace(made, skipped={"quantize": "there is no kernel"})
    assert reasons(tmp_path, made, way="quantized") == ["quantize was not tried, as there is no kernel"]
    assert reasons(tmp_path, made, way="merged") == []


def test_utility_that_is_not_known_is_no_utility(tmp_path):
    kept = record(attack_report=held(), model=WHOLE, log=[])
    kept.evaluations["before"].metrics["retain_accuracy"] = figure(math.nan)
    save_run(tmp_path, kept, full=False)
    asks, none = (policy_of(LIMITS | {"utility": share}, "mine") for share in (0.1, None))
    assert "how much utility was kept is not known: run hf-unlearn evaluate" in gate(tmp_path, asks).ways[0].reasons[0]
    assert gate(tmp_path, none).released


def test_rows_that_several_attacks_recover_are_counted_once(tmp_path):
    def got(name, rows, **more):
        made = finding(name, "weights", {"model": 0.5, "oracle": 0.0}, NOTHING, sum(rows) / 4, **more)
        model = dataclasses.replace(made.subjects["model"], rows=[0.9 * each for each in rows])
        return dataclasses.replace(made, subjects=made.subjects | {"model": model})

    both = [got("relearn", [1, 1, 0, 0]), got("quantize", [0, 1, 0, 0]), got("remove_adapter", [1, 1, 1, 1])]
    made = tried(*both, worst=worst_of(both))
    by_way = {each.way: each.recovered for each in decided(tmp_path, made, model=ADAPTED).ways}
    assert (by_way["adapter"], by_way["merged"]) == (1.0, 0.5)
    (tmp_path / "attacks.json").unlink()  # without the rows, the most that it can be
    by_way = {each.way: each.recovered for each in decided(tmp_path, made, model=ADAPTED, with_rows=False).ways}
    assert (by_way["adapter"], by_way["merged"]) == (1.0, 0.75)


def test_reports_that_contradict_each_other_are_refused(tmp_path):
    save_run(tmp_path, record(attack_report=held(), log=[]), full=False)
    report().save(tmp_path)
    with pytest.raises(ValueError) as error:
        gate(tmp_path, read_policy("standard"))
    assert_four_parts(str(error.value), "attacks.json and results.json", "hf-unlearn attack")


def test_ways_are_those_of_the_policy_and_of_the_run(tmp_path):
    found = decided(tmp_path, held(), ways={"api_text": {"excess": 0.01}, "merged": None, "adapter": {}})
    assert {each.way: each.released for each in found.ways} == {"api_text": False, "merged": True}
    own = policy_of(LIMITS | {"ways": {"api_text": {}, "adapter": {}}}, "mine")
    for way, words in {"adapter": "no adapter to release", "merged": "a way that the policy mine decides on"}.items():
        with pytest.raises(ValueError, match=words):
            gate(tmp_path, own, [way])


def test_the_table_has_every_way_and_its_reasons(tmp_path):
    table = gate_table(decided(tmp_path, report(), model=ADAPTED))
    assert table.startswith("Refused by the policy mine: adapter, merged, quantized.\n")
    for words in (
        "0.750 (relearn)",
        "merged (whole weights, without an adapter to take off):\n- relearn: its excess may be 0.750, more than 0.1",
        "On 60 rows. 97.0% of the utility was kept.",
        "Note: The control of quantize has few rows.",
    ):
        assert words in table, words


# Policies


def test_packaged_policies_are_whole():
    assert packaged_policies() == ["standard", "text_api"]
    for name in packaged_policies():
        assert read_policy(name).name == name
    assert set(read_policy("standard").ways) == set(WAYS) and list(read_policy("text_api").ways) == ["api_text"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"exces": 0.1}, "did you mean 'excess'"),
        ({"ways": {"api_txt": {}}}, "did you mean 'api_text'"),
        ({"ways": {"merged": {"recoverd": 0.1}}}, "did you mean 'recovered'"),
        ({"attacks": {"weight": []}}, "did you mean 'weights'"),
        ({"classes": ["query"]}, "did you mean 'queries'"),
        ({"excess": 1.5}, "excess must be a finite number of at least 0 and at most 1"),
        ({"ways": {"merged": {"excess": "low"}}}, "ways.merged.excess must be a finite number"),
        ({"rows": 0}, "rows must be a whole number of at least 1"),
        ({"membership": -1}, "membership must be a finite number"),
        ({"utility": True}, "utility must be"),
        ({"classes": "queries"}, "classes must be a list of names"),
        ({"attacks": {"weights": [1]}}, "attacks.weights must be a list of names"),
        ({"attacks": ["relearn"]}, "attacks must be names of attacks by class"),
        ({"ways": ["merged"]}, "ways must be ways of release by name"),
        ({"ways": {"merged": 3}}, "ways.merged must be limits by name"),
        ({"rows": None}, "rows must be"),
    ],
)
def test_a_policy_with_a_slip_is_refused(tmp_path, change, words):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(LIMITS | change))
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        read_policy(str(file))


@pytest.mark.parametrize("key", LIMITS)
def test_a_limit_that_is_left_out_is_told(key):
    with pytest.raises(ValueError) as error:
        policy_of({name: value for name, value in LIMITS.items() if name != key}, "mine")
    assert_four_parts(str(error.value), f"Expected {key} in the policy mine")


@pytest.mark.parametrize("text", ["- excess", "excess: [", "1: 2", "", "excess: 0.1\nexcess: 0.9", b"\xff\xfe"])
def test_other_files_are_no_policies(tmp_path, text):
    file = tmp_path / "mine.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError) as error:
        read_policy(str(file))
    assert_four_parts(str(error.value), "mine.yaml")
