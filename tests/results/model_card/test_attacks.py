"""The attacks section of a card that has a report of attacks: tables, sentences, and what was not tried."""

import dataclasses

from fixtures.attack_reports import finding, held, relearning, report, without_control
from fixtures.report import record
from hf_unlearn.results.attack_report import Excess
from hf_unlearn.results.model_card import render_card
from hf_unlearn.results.record import ModelRecord
from local_hub.card_rules import check_card
from results.model_card.test_model_card import metadata, section, tables


def attacks(made, **more):
    """The section of a card."""
    return section(render_card(record(attack_report=made, log=[], **more)), "Attacks")


def test_what_attacks_got_stands_beside_what_they_got_from_controls():
    text = attacks(report())
    header, _, *rows = tables(text)[0]
    assert header == [
        *("attack", "attacker has", "best setting", "leak", "oracle", "never-seen rows", "excess", "rows recovered"),
    ]
    assert rows[2] == [
        *("`relearn`", "its weights; the prompts and 10% of the rows", "rate 0.0001, step 100"),
        *("0.700 [0.600, 0.800]", "0.100 [0.050, 0.150]", "0.080 [0.040, 0.120]", "0.600 [0.450, 0.750]", "80.0%"),
    ]
    assert rows[4][5] == "-"  # remove_adapter was not run on never-seen rows
    worst = {row[0]: row[2:] for row in tables(text)[1][2:]}
    assert worst["`queries`"] == ["`prompts`", "0.010 [-0.050, 0.080]", "0.0%"]
    assert worst["`weights`"] == ["`remove_adapter`", "0.950 [0.900, 1.000]", "100.0%"]
    assert worst["`weights_and_before`"] == ["not attacked", "-", "-"]


def test_sentences_say_how_it_was_measured_and_what_is_missing():
    text = attacks(report())
    for words in (
        "Suite standard. Means over 60 of the 120 forget rows attacked", "seed 7.",
        "beyond the oracle and 100 never-seen rows, whichever is higher",
        "- relearn: half of what the model before unlearning gives away was back after 10 steps; of the oracle not "
        "within 100 steps.",
        "Classes of which no attack was tried: weights_and_before (who has its weights and those before unlearning).",
        "- Not tried: merge, as there is no sibling to merge with; probe, as it failed on &lt;this> model.",
        "- The control of quantize has few rows.",
    ):  # fmt: skip
        assert words in text, words
    assert "relearning, quantisation" not in text and "Not tried: other wordings" not in text


def test_what_is_not_known_is_not_claimed():
    text = attacks(without_control())
    rows = tables(text)[0][2:]
    assert [row[3:] for row in rows] == [["0.500 [0.500, 0.500]", "-", "40.0%"], ["undefined", "-", "0.0%"]]
    assert "There was no control at all, so nothing tells what was got from chance." in text
    assert "logits (who has its answers and the probabilities of tokens), weights_and_before" in text
    assert "Not tried: relearning, which may bring back" in text  # quantisation and other wordings were
    model_alone = finding("relearn", "weights", {"model": 0.5}, None)
    assert "the model before unlearning was not attacked, so when half is back is not known" in attacks(
        report([model_alone], oracles=0, unseen_rows=0)
    )


def test_relearning_in_words():
    def words(**steps):
        return attacks(report([relearning(steps=steps)])).partition("- relearn: ")[2].partition(".")[0]

    told = "half of what the model before unlearning gives away"
    assert words(model=1, oracle=25) == f"{told} was back after 1 step; of the oracle after 25 steps"
    never = f"{told} was not back within 100 steps; of the oracle not within 100 steps"
    assert words(model=None, oracle=None) == never
    assert words(model=0) == f"{told} is there before any step; of the oracle not within 100 steps"


def test_a_setting_in_which_nothing_was_done_is_said_to_be_that():
    idle = finding("prompts", "queries", {"model": 0.5}, None, chosen={"step": 0})
    assert tables(attacks(report([idle])))[0][2][2] == "nothing done (step 0)"


def test_an_adapter_that_was_merged_since_cannot_be_taken_off():
    words = "remove_adapter was tried before the adapter was merged"
    adapter = ModelRecord("a/b", "hub", adapter={"kind": "LORA"})
    assert words not in attacks(report(), model=adapter)
    assert words in attacks(report(), model=dataclasses.replace(adapter, merged=True))
    assert words in section(render_card(record(attack_report=report(), model=adapter), merged=True), "Attacks")
    assert words not in attacks(held(), model=dataclasses.replace(adapter, merged=True))


def test_the_index_has_the_worst_excess_of_each_class_that_was_tried():
    card = render_card(record(attack_report=report(), log=[]))
    assert check_card(card)[0] == []
    figures = {
        each["type"]: each
        for entry in metadata(card)["model-index"]
        for r in entry["results"]
        for each in r["metrics"]
    }
    shown = {name: each["value"] for name, each in figures.items() if name.startswith("attack")}
    assert shown == {"attack_excess_queries": 0.01, "attack_excess_logits": 0.01, "attack_excess_weights": 0.95}
    assert figures["attack_excess_weights"]["name"] == "excess of the worst attack (weights)"
    other = render_card(record(attack_report=without_control(), log=[]))
    assert "attack_excess" not in other and "attack_excess" not in render_card(record(log=[]))


def test_the_claim_says_that_attacks_get_it_back():
    words = "Suppression measured by the `harmful` suite on 120 forget rows, but it comes back under attack, as far as"
    assert words in render_card(record(attack_report=report(), log=[]))
    assert "it comes back" not in render_card(record(attack_report=held(), log=[]))


def test_plots_of_attacks_stand_in_their_section():
    plots = {"Attacks excess": "plots/attacks_excess.png", "Losses": "plots/losses.png"}
    card = render_card(record(attack_report=report()), plots=plots)
    assert section(card, "Attacks").endswith("](plots/attacks_excess.png)")
    assert "](plots/losses.png)" in section(card, "Training") and card.count("](plots/") == 2


def test_the_papers_of_the_attacks_are_cited():
    made = report([finding("relearn", "weights", {"model": 0.5}, None, paper="Hu et al. 2024, arXiv:2406.13356")])
    assert "eprint = {2406.13356}" in section(render_card(record(attack_report=made)), "Citation")
    assert "2406.13356" not in render_card(record())


def test_a_leak_of_two_kinds_is_said_by_attack():
    made = report([finding("prompts", "queries", {"model": 0.5}, None, score="ROUGE-L"), relearning()])
    assert "A leak is, from 0 to 1: ROUGE-L (prompts); probability of the answer, exp(-nll per token) (relearn)." in (
        attacks(made)
    )
    several = report([relearning(excess=Excess(0.1, -0.1, 0.3, "unseen"))], oracles=3, unseen_rows=0)
    assert "beyond the most that 3 oracles give away. Intervals" in attacks(several)
