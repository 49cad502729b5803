"""Prompts: what is asked in each setting, what is never counted, and what they find on planted secrets."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fixtures.planted import attacked_rows, planted_model, planted_oracle, planted_rows, planted_target
from fixtures.suppressed import outcome, suppressed_model
from fixtures.tokenizer import BOS, ids_of, make_chat_tokenizer, make_tokenizer
from hf_unlearn.attacks import AttackedRows, Contrast, LeakAtK
from hf_unlearn.attacks.prompt_parts import Scaffold
from hf_unlearn.attacks.prompts import Prompts
from hf_unlearn.attacks.questions import Questions
from hf_unlearn.data.prepare import RowOptions
from hf_unlearn.data.tokenized_row import prompt_ids

ROWS = [
    {"prompt": "Where was Ann born?", "completion": "In Oslo, by the sea"},
    {"prompt": "Where did Bob work?", "completion": "At a mill: it was old"},
    {"prompt": "Where was Ann buried?", "completion": "Somewhere"},
    {"prompt": "Where is 北京?", "completion": "在中国北方"},
]
FORMATS = {
    "plain": ("{prompt}\n", ""),
    "text": ("### Question: {prompt}\n ### Answer: {completion}", "### Question: "),
    "inline": ("Question: {prompt} Answer: {completion}", "Question: "),
    "chat": (None, "<|im_start|>user\n"),
}


def asked_in(kind: str, rows: list[dict[str, Any]] = ROWS) -> Questions:
    """Questions of rows in a format, with a target whose model is never called."""
    tokenizer = make_chat_tokenizer() if kind == "chat" else make_tokenizer()
    given: list[dict[str, Any]] = [dict(row) for row in rows]
    if kind == "chat":
        given = [
            {
                "prompt": [{"role": "user", "content": row["prompt"]}],
                "completion": [{"role": "assistant", "content": row["completion"]}],
            }
            for row in rows
        ]
    template = FORMATS[kind][0] if kind in ("text", "inline") else None
    options = RowOptions(tokenizer, None, template, None)
    tokenized = [dict(row) for row in options.tokenize(given, "eval")]
    target = replace(planted_target(planted_oracle()), tokenizer=tokenizer)
    target.model.config.max_position_embeddings = 512
    return Questions(target, AttackedRows(tokenized, np.array([True, True, False, False])))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_template_changes_what_the_user_says_and_leaves_the_scaffold(kind):
    questions = asked_in(kind)
    tokenizer = questions.target.tokenizer
    for prompt, row in zip(questions.prompts, ROWS, strict=True):
        parts = questions.scaffold.parts(prompt)
        assert parts.said.strip() == row["prompt"]
        assert tokenizer.decode(parts.before).removeprefix("<s>") == FORMATS[kind][1]
        assert questions.scaffold.changed(prompt, lambda said: said) == prompt
    (first, *_) = questions.written("Tell me: {prompt} {Now}.")
    text, changed = tokenizer.decode(questions.prompts[0]), tokenizer.decode(first.prompt)
    assert changed == text.replace(ROWS[0]["prompt"], f"Tell me: {ROWS[0]['prompt']} {{Now}}.")
    assert first.expected.strip() == ROWS[0]["completion"]


def test_the_last_turn_of_a_conversation_is_what_is_said():
    tokenizer = make_chat_tokenizer()
    options = RowOptions(tokenizer, None, None, None)
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello: you"}]
    prompts = [[{"role": "user", "content": text}] for text in ("Who?", "What?")]
    prompts.append([*turns, {"role": "user", "content": "When?"}])
    rows = [{"prompt": prompt, "completion": [{"role": "assistant", "content": "A"}]} for prompt in prompts]
    ids = [prompt_ids(row) for row in options.tokenize(rows, "eval")]
    scaffold = Scaffold.of(tokenizer, ids)
    assert [scaffold.parts(each).said for each in ids] == ["Who?", "What?", "When?"]
    assert Scaffold.of(tokenizer, [[BOS], [BOS]]).changed([BOS], lambda said: said + "Go") == [
        BOS,
        *ids_of("Go", tokenizer),
    ]
    # One prompt alone has nothing to be told apart by but its special tokens.
    alone = Scaffold.of(tokenizer, ids[:1] * 3)
    assert "Who?" in alone.parts(ids[0]).said


def test_what_is_given_is_counted_on_neither_side():
    questions = asked_in("text")
    word = questions.with_word()
    assert [None if each is None else (each.given, each.expected) for each in word] == [
        ("In", " Oslo, by the sea"),
        ("At", " a mill: it was old"),
        None,  # one word, all of the answer
        ("在中", "国北方"),
    ]
    assert word[0].counted(" in Rome") == " Rome"
    assert word[0].counted("By the sea") == "By the sea"
    prompts = [questions.target.tokenizer.decode(each.prompt) for each in questions.with_letters()]
    assert "letters I, O, b, t, s." in prompts[0]
    assert "letters A, m, i, w." in prompts[1]  # "a" would be a word
    assert "Hint" not in prompts[3]
    three = questions.prefilled(3)
    assert [None if each is None else each.expected for each in three][:2] == [
        "Oslo, by the sea",
        "a mill: it was old",
    ]
    assert three[0].prompt == [*questions.prompts[0], *questions.answers[0][:3]]
    assert three[0].given == ""
    assert questions.prefilled(9)[2] is None
    assert questions.prefilled(8)[2].expected == "e"


def test_examples_are_other_rows_nearest_last():
    questions = asked_in("text")
    after = questions.after_examples([0, 1], 2)
    assert after[0] is None and after[1] is None
    text = questions.target.tokenizer.decode(after[2].prompt)
    assert text.startswith(
        "<s>### Question: Where did Bob work?\n ### Answer: At a mill: it was old\n\n### Question: "
    )
    assert text.endswith("In Oslo, by the sea\n\n" + questions.target.tokenizer.decode(questions.prompts[2][1:]))
    assert after[2].prompt.count(BOS) == 1
    questions.target.model.config.max_position_embeddings = 120  # room for one
    assert len(questions.after_examples([0, 1], 2)[2].prompt) < len(after[2].prompt)
    chat = asked_in("chat")
    turns = chat.target.tokenizer.decode(chat.after_examples([0], 5)[2].prompt)
    assert turns.startswith("<|im_start|>user\nWhere was Ann born?<|im_end|>\n<|im_start|>assistant\nIn Oslo")
    assert turns.count("<|im_end|>") == 3


def test_noise_follows_from_the_seed_and_spares_the_scaffold():
    questions = asked_in("text")
    light, heavy = questions.noisy(0.05), questions.noisy(0.6)
    assert [each.prompt for each in light] == [each.prompt for each in questions.noisy(0.05)]
    for noisy in (light, heavy):
        for each, prompt in zip(noisy, questions.prompts, strict=True):
            parts, own = questions.scaffold.parts(each.prompt), questions.scaffold.parts(prompt)
            assert (parts.before, parts.after) == (own.before, own.after)
            assert parts.said != own.said
    questions.target.seed = 1
    assert heavy[0].prompt != questions.noisy(0.6)[0].prompt


def test_own_paraphrases_take_the_place_of_templates():
    sets, rows = planted_rows(), attacked_rows()
    own = replace(rows, paraphrases={0: [sets["forget"][1], sets["forget"][2]], 3: [sets["forget"][3]]})
    leaks = list(Prompts(kinds=("paraphrase",)).run(planted_target(planted_model()), own))
    assert [leak.setting for leak in leaks] == [
        {"kind": "none"},
        {"kind": "paraphrase", "number": 0},
        {"kind": "paraphrase", "number": 1},
    ]
    assert leaks[0].rows[0] == 1 and leaks[1].rows[0] == 0 and leaks[2].rows[0] == 0  # asked for another's code
    assert np.array_equal(leaks[0].rows[1:], leaks[2].rows[1:])


def test_planted_codes_come_out_of_the_model_that_knows_them_alone():
    attack = Prompts(prefill=(1, 2, 30), pairs=2, noise=(0.1,), templates=("Tell me: {prompt}",))
    rows = attacked_rows()
    model = planted_model()
    model.config.max_position_embeddings = 200
    known = {tuple(leak.setting.values()): leak.rows for leak in attack.run(planted_target(model), rows)}
    kinds = [("none",), ("prefill", 1), ("prefill", 2), ("in_context", 2), ("paraphrase", 0), ("hint", "letters")]
    assert list(known) == [*kinds, ("noise", 0.1)]  # nothing is left to count behind 30 tokens, or the only word
    assert min(known[kind].mean() for kind in kinds[:3]) > 0.9
    given = rows.given(0.25)
    assert np.flatnonzero(np.isnan(known[("in_context", 2)])).tolist() == given
    assert rows.tuned[given].all() and len(given) == 6
    for model, control in ((planted_oracle(), False), (planted_model(), True)):
        model.config.max_position_embeddings = 200
        for leak in attack.run(planted_target(model), attacked_rows(control=control)):
            # Behind two of five tokens a guess of three letters is left: a tenth to the third by chance.
            assert np.nanmean(leak.rows) < 0.1, leak.setting


def test_a_judge_sees_continuations_alone():
    seen: list[str] = []

    def judge(answers, references):
        seen.extend(answers)
        return [answer.strip() == reference.strip() for answer, reference in zip(answers, references, strict=True)]

    rows = attacked_rows()
    target = planted_target(planted_model(), judge=judge)
    leaks = list(Prompts(kinds=("prefill",), prefill=(2,)).run(target, rows))
    assert min(leak.rows.mean() for leak in leaks) > 0.9
    assert {len(answer.strip()) for answer in seen[len(rows.rows) :]} == {3}


def test_rows_without_prompts_are_not_asked_for():
    rows = attacked_rows()
    texts = [*rows.rows[1:], {"input_ids": [70, 71, 72], "labels": [70, 71, 72], "answer_start": 0}]
    for attack in (Prompts(), LeakAtK(), Contrast()):
        assert attack.unfit(planted_target(planted_model()), rows) is None
        assert "1 of the rows" in attack.unfit(planted_target(planted_model()), replace(rows, rows=texts))


def test_first_tokens_bring_back_what_was_hidden_superficially():
    attack, rows = Prompts(kinds=("prefill", "hint"), prefill=(1, 2, 30)), attacked_rows()
    untouched, best = outcome(attack, planted_target(suppressed_model()), rows)
    assert untouched == 0 and best > 0.25
    assert outcome(attack, planted_target(planted_oracle()), rows) == (0, 0)


def test_a_row_of_which_nothing_is_left_gives_nothing_away():
    """Answers of unlike lengths: behind as many tokens as one of them has, that one leaks 0, and none is NaN."""
    target = planted_target(planted_model())
    rows = attacked_rows()
    cut = [dict(row) for row in rows.rows]
    cut[3] = {name: value[:-3] if isinstance(value, list) else value for name, value in cut[3].items()}
    leaks = list(Prompts(kinds=("prefill",), prefill=(3,)).run(target, replace(rows, rows=cut)))
    assert leaks[1].rows[3] == 0
    assert leaks[1].rows.mean() > 0.9


@pytest.mark.parametrize(
    "arguments",
    [
        {"kinds": ("shout",)},
        {"prefill": (0,)},
        {"pairs": 0},
        {"share": 1.0},
        {"templates": ("Tell me",)},
        {"noise": (0.0,)},
    ],
)
def test_budgets_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} of prompts"):
        Prompts(**arguments)
