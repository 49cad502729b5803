"""What a user can get wrong: each is one clear error before the first step, and none quotes a row."""

import json
import math

import datasets
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import TrainingArguments, default_data_collator

from fixtures.bad_input import CANARY, POSITIONS, TorchStream, build, config, holdout, rows, sets
from fixtures.examples import assert_user_error
from fixtures.models import tiny_model, tiny_tokenizer
from hf_unlearn import DataCollatorForUnlearning, UnlearningConfig, UnlearningTrainer
from hf_unlearn.data.roles import Role
from hf_unlearn.losses import DPO, NPO, Loss, Needs, RetainKL, RetainNLL
from hf_unlearn.losses.base import roles
from hf_unlearn.training.objective import Objective
from hf_unlearn.training.reference.plan import ReferenceContext, ReferenceMode, plan_reference
from hf_unlearn.training.reference.reference import build_reference

PARTS = ("Expected ", "\nGot: ", "\nWhy it matters: ", "\nWhat to do: ")


def refused(make, *words: str) -> str:
    """Call `make`; it must raise a whole user error with all the words and without a word of the rows."""
    with pytest.raises(ValueError) as caught:
        make()
    message = str(caught.value)
    assert_user_error(message)
    if message.startswith(PARTS[0]):
        places = [message.find(part) for part in PARTS]
        assert places == sorted(places), message
    assert [word for word in words if word not in message] == [], message
    # Errors it came from are printed with it.
    chain = [
        caught.value,
        caught.value.__cause__,
        None if caught.value.__suppress_context__ else caught.value.__context__,
    ]
    assert not any(CANARY in str(error) for error in chain)
    return message


def lora() -> LoraConfig:
    return LoraConfig(r=2, target_modules=["q_proj", "v_proj"])


def tokenizer_without(token: str):
    tokenizer = tiny_tokenizer()
    setattr(tokenizer, token, None)
    return tokenizer


def with_forget(*examples: dict) -> dict:
    return {**sets(), "forget": list(examples)}


ROW = rows("forget", 1)[0]
LONG = {"prompt": "who?", "completion": f" {CANARY}" * 60}

# What is passed as train_dataset -> what the error must say.
DATA = {
    "a plain dataset": (lambda: sets()["forget"], ["train_dataset={'forget': ..., 'retain': ...}", "a Dataset"]),
    "a misspelt set": (lambda: {"forgets": sets()["forget"]}, ["'forgets'", "did you mean 'forget'"]),
    "no forget set": (lambda: {"retain": sets()["retain"]}, ["train_dataset['forget']", "only retain"]),
    "an empty mapping": (dict, ["train_dataset['forget']", "an empty mapping"]),
    "no retain set": (lambda: {"forget": sets()["forget"]}, ["train_dataset['retain']", "retain_loss='none'"]),
    "an empty forget set": (lambda: {**sets(), "forget": []}, ["at least one row in the forget set"]),
    "an empty Dataset": (lambda: {**sets(), "forget": sets()["forget"].select([])}, ["one row in the forget set"]),
    "an empty retain set": (lambda: {**sets(), "retain": []}, ["at least one row in the retain set"]),
    "missing columns": (
        lambda: {**sets(), "forget": sets()["forget"].rename_column("completion", "answer")},
        ["the forget set", "`completion`", '"answer": "completion"'],
    ),
    "two formats": (lambda: with_forget({**ROW, "text": CANARY}), ["the columns of one row format", "['text']"]),
    "strings, then messages": (
        lambda: with_forget(
            ROW,
            {
                "prompt": [{"role": "user", "content": CANARY}],
                "completion": [{"role": "assistant", "content": CANARY}],
            },
        ),
        ["every row of the forget set", "row 1"],
    ),
    "rows that are not dicts": (lambda: with_forget(CANARY), ["a list of dicts"]),
    "a DatasetDict as a set": (lambda: with_forget() | {"forget": datasets.DatasetDict(sets())}, ["dataset['train']"]),
    "an empty answer": (lambda: with_forget(ROW, {**ROW, "completion": " "}), ["an answer in `completion`", "row 1"]),
    "preference rows to keep": (
        lambda: {**sets(), "retain": [{"prompt": CANARY, "chosen": CANARY, "rejected": CANARY}] * 4},
        ["one answer per row in the retain set", "remove_columns('rejected')"],
    ),
    "a forget row in the retain set": (
        lambda: {"forget": rows("forget", 8), "retain": [*rows("retain", 12), ROW, ROW]},
        ["both in the forget and in the retain set", "2 retain rows", "index 12"],
    ),
    "a retain set shorter than a batch": (lambda: sets(retain=3), ["at least 4 retain rows", "Got: 3"]),
    "rows beyond the positions": (
        lambda: {**sets(), "retain": [*rows("retain", 8), LONG]},
        [f"at most {POSITIONS} tokens", f"max_length={POSITIONS}"],
    ),
    "ids beyond the vocabulary": (
        lambda: with_forget({"input_ids": [1, 9999], "labels": [-100, 9999]}),
        ["9999", "row 0 of the forget set"],
    ),
    "shifted labels": (
        lambda: with_forget({"input_ids": [1, 5, 6], "labels": [5, 6, -100]}),
        ["row 0 of the forget set", "shifted"],
    ),
    "nothing to train": (
        lambda: with_forget({"input_ids": [1, 5, 6], "labels": [-100] * 3}),
        ["at least one answer token", "row 0"],
    ),
}


@pytest.mark.parametrize("case", DATA)
def test_data(tmp_path, case):
    make_sets, words = DATA[case]
    # max_length is out of the way, so that a long row meets the model's limit and not the cut.
    refused(lambda: build(tmp_path, train_dataset=make_sets(), max_length=1024), *words)


def test_an_answer_beyond_max_length(tmp_path):
    cut = [*rows("forget", 4), {"prompt": "who? " * 30, "completion": CANARY}]
    refused(
        lambda: build(tmp_path, train_dataset=with_forget(*cut), max_length=100),
        "keep some of its answer within max_length=100",
        "1 rows, the first of them row 4",
        "raise max_length",
    )


@pytest.mark.parametrize("loss", ["dpo", "idk", {"name": "dpo", "beta": 0.5}, DPO()])
def test_alternates_that_are_not_there(tmp_path, loss):
    refused(lambda: build(tmp_path, forget_loss=loss), "an alternate answer in every row", "`alternate` column")
    partly = with_forget({**ROW, "alternate": CANARY}, {**ROW, "alternate": None})
    refused(lambda: build(tmp_path, forget_loss=loss, train_dataset=partly), "row 1 of the forget set", "has none")


def test_alternates_mismatches_and_evaluation_rows_beyond_the_positions(tmp_path):
    words = [f"at most {POSITIONS} tokens"]
    long_alternate = sets(alternate=LONG["completion"])
    refused(lambda: build(tmp_path, train_dataset=long_alternate, forget_loss="idk", max_length=None), *words)
    refused(lambda: build(tmp_path, eval_dataset={"forget": [LONG]}, max_length=None), *words)
    refused(lambda: build(tmp_path, eval_dataset=[LONG], max_length=None), *words)
    # Neither row is too long; the one composed of both would be.
    prompt = [{"prompt": "who? " * 20, "completion": " me"}]
    answer = [{"prompt": "who?", "completion": f" {CANARY}" * 18}]
    halves = {"forget": [*rows("forget", 4), *prompt], "retain": [*rows("retain", 6), *answer]}
    assert build(tmp_path, train_dataset=halves, max_length=None)
    mismatch = {"name": "random_mismatch", "k": 1}
    refused(lambda: build(tmp_path, train_dataset=halves, forget_loss=mismatch, max_length=None), *words)
    assert build(tmp_path, train_dataset=halves, forget_loss=mismatch, max_length=POSITIONS)


@pytest.mark.parametrize(("token", "words"), [("pad_token", ["padding token"]), ("eos_token", ["end-of-text token"])])
def test_a_tokenizer_without_special_tokens(tmp_path, token, words):
    refused(lambda: build(tmp_path, processing_class=tokenizer_without(token)), *words, f"tokenizer.{token} =")


def test_a_tokenizer_that_is_not_there_or_not_the_models(tmp_path):
    arguments = dict(args=config(tmp_path), model=tiny_model(), train_dataset=sets())
    refused(lambda: UnlearningTrainer(**arguments), "processing_class=tokenizer", "NoneType")
    larger, size = tiny_tokenizer(), tiny_model().config.vocab_size
    larger.add_tokens([f"<extra {i}>" for i in range(size + 1 - len(larger))])
    words = [f"at most {size} tokens", f"Got: {size + 1} tokens", "resize_token_embeddings"]
    refused(lambda: build(tmp_path, processing_class=larger), *words)


LOSSES = {
    "an unknown forget loss": (dict(forget_loss="nppo"), ["'nppo'", "did you mean 'npo'"]),
    "an unknown retain loss": (dict(retain_loss="lk"), ["'lk'", "did you mean 'kl'"]),
    "a retain loss that forgets": (dict(retain_loss=NPO()), ["NPO", "the other side", "swap"]),
    "a forget loss that keeps": (dict(forget_loss=RetainKL()), ["RetainKL", "the other side", "swap"]),
    "an unknown argument": (dict(forget_loss={"name": "npo", "betta": 0.1}), ["'betta'", "did you mean 'beta'"]),
    "an argument of another loss": (dict(forget_loss={"name": "grad_ascent", "beta": 1}), ["'beta'", "weight"]),
    "an argument that is text": (dict(forget_loss={"name": "npo", "beta": "small"}), ["beta of npo", "'small'"]),
    "an argument out of range": (dict(forget_loss={"name": "npo", "beta": 0}), ["beta of npo must be above 0"]),
    "a share of an answer": (dict(forget_loss={"name": "random_mismatch", "k": 1.5}), ["k of random_mismatch"]),
    "a mapping without a name": (dict(forget_loss={"beta": 0.1}), ["a mapping with a `name`"]),
    "a number": (dict(forget_loss=3), ["a name, a mapping", "int 3"]),
    "no forget loss": (dict(forget_loss=[]), ["at least one forget loss", "npo"]),
    "a loss twice": (dict(forget_loss=["npo", NPO(beta=1.0)]), ["npo more than once"]),
    "JSON that is not": (dict(forget_loss='{"name": "npo"'), ["not JSON", "single quotes"]),
    "a negative weight": (dict(forget_loss={"name": "npo", "weight": -1}), ["weight of npo", "0 or above", "-1"]),
    "an endless weight": (dict(retain_loss={"name": "nll", "weight": math.inf}), ["weight of nll", "finite"]),
}


@pytest.mark.parametrize("case", LOSSES)
def test_losses(tmp_path, case):
    arguments, words = LOSSES[case]
    refused(lambda: config(tmp_path, **arguments), *words)


def test_a_negative_weight_of_an_object():
    refused(lambda: NPO(weight=-0.5), "weight of npo", "-0.5")


ARGUMENTS = {
    "no ratio": (dict(retain_ratio=0), ["retain_ratio", "retain_loss='none'"]),
    "a ratio below 0": (dict(retain_ratio=-1.0), ["retain_ratio", "-1.0"]),
    "a ratio that is not a number": (dict(retain_ratio=math.nan), ["retain_ratio", "nan"]),
    "a ratio that is a flag": (dict(retain_ratio=True), ["retain_ratio", "True"]),
    "a negative forget weight": (dict(forget_weight=-1.0), ["forget_weight", "forgetting into learning"]),
    "a negative retain weight": (dict(retain_weight=-0.1), ["retain_weight", "-0.1"]),
    "an endless weight": (dict(retain_weight=math.inf), ["retain_weight", "finite"]),
    "a weight that is not a number": (dict(forget_weight=math.nan), ["forget_weight", "nan"]),
    "a negative rise": (dict(stop_retain_nll_increase=-1.0), ["stop_retain_nll_increase"]),
    "an unknown bound": (dict(forget_nll_bound="hold_out"), ["forget_nll_bound", "did you mean 'holdout'"]),
    "a bound of 0": (dict(forget_nll_bound=0), ["forget_nll_bound", "above 0", "never below 0"]),
    "an unknown target": (dict(stop_forget_nll="holdouts"), ["stop_forget_nll", "'holdout'"]),
    "an unknown reference": (dict(reference="coppy"), ["reference", "did you mean 'copy'"]),
    "label smoothing": (dict(label_smoothing_factor=0.1), ["label_smoothing_factor=0.0", "not defined"]),
    "dropped columns": (dict(remove_unused_columns=True), ["remove_unused_columns=False", "retain rows"]),
    "dispatched batches": (
        dict(accelerator_config={"dispatch_batches": True}),
        ["dispatch_batches", "cuts one batch"],
    ),
    "counts of one device": (dict(average_tokens_across_devices=False), ["average_tokens_across_devices=True"]),
    "other labels": (dict(label_names=["targets"]), ["label_names=None", "`labels`"]),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments(tmp_path, case):
    arguments, words = ARGUMENTS[case]
    refused(lambda: config(tmp_path, **arguments), *words)


@pytest.mark.parametrize("arguments", [dict(max_length=1), dict(max_length=0), dict(template="{completion}")])
def test_arguments_that_tokenising_refuses(tmp_path, arguments):
    refused(lambda: build(tmp_path, **arguments), f"{next(iter(arguments))} must be")


def test_arguments_of_another_class(tmp_path):
    def trainer(args):
        return UnlearningTrainer(tiny_model(), args, train_dataset=sets(), processing_class=tiny_tokenizer())

    refused(lambda: trainer(TrainingArguments(str(tmp_path))), "args=UnlearningConfig", "Got: TrainingArguments")
    refused(lambda: trainer(None), "args=UnlearningConfig", "NoneType")


def test_a_loss_function(tmp_path):
    def summed(outputs, labels, num_items_in_batch=None):
        return outputs.loss

    refused(lambda: build(tmp_path, compute_loss_func=summed), "no compute_loss_func", "summed", "Loss", "forget_loss")


def test_several_gpus_in_one_process(tmp_path, monkeypatch):
    args = config(tmp_path)
    monkeypatch.setattr(UnlearningConfig, "n_gpu", property(lambda self: 2))
    refused(
        lambda: UnlearningTrainer(tiny_model(), args, train_dataset=sets(), processing_class=tiny_tokenizer()),
        "one process per GPU",
        "2 GPUs",
        "accelerate launch",
    )


def test_models(tmp_path):
    broken = tiny_model()
    with torch.no_grad():
        broken.model.norm.weight[3] = math.nan
    refused(lambda: build(tmp_path, model=broken), "weights are finite", "model.norm.weight")
    frozen = tiny_model().requires_grad_(False)
    refused(lambda: build(tmp_path, model=frozen), "trainable weights", "is_trainable=True")
    refused(lambda: build(tmp_path, model=torch.nn.Linear(2, 2)), "a causal language model", "Linear")
    headless = transformers.AutoModel.from_config(tiny_model().config)
    refused(lambda: build(tmp_path, model=headless), "a causal language model", "LlamaModel")
    adapted = get_peft_model(tiny_model(), lora())
    refused(lambda: build(tmp_path, model=adapted, peft_config=lora()), "a PeftModel and a peft_config", "drop")


def test_reference_models(tmp_path):
    model = tiny_model()
    refused(
        lambda: build(tmp_path, model=model, ref_model=model, forget_loss="npo"),
        "weights of its own",
        "leave ref_model",
    )
    refused(lambda: build(tmp_path, ref_model="org/name", forget_loss="npo"), "a loaded model", "str")
    refused(lambda: build(tmp_path, ref_model=tiny_model()), "nothing reads it", "drop ref_model")


def test_references_that_are_not_to_be_had(tmp_path):
    refused(lambda: build(tmp_path, forget_loss="npo", reference="adapter"), "a PEFT model", "reference='copy'")
    refused(lambda: build(tmp_path, retain_loss="kl", reference="precomputed"), "kl without", "log-probs are cached")
    streams = {**sets(), "forget": sets()["forget"].to_iterable_dataset()}
    refused(
        lambda: build(tmp_path, forget_loss="npo", reference="precomputed", train_dataset=streams),
        "sets with a length",
        "a stream",
    )


FULL = ReferenceContext(peft=False, trained_adapter=False, given=False, stream=False, sharded=False)
LOGPS = Needs(reference_logps=roles(Role.FORGET))
LOGPS_OF_BOTH = Needs(reference_logps=roles(Role.FORGET, Role.RETAIN))
LOGITS = Needs(reference_logits=roles(Role.RETAIN))


def setting(**facts: bool) -> ReferenceContext:
    return ReferenceContext(**{**vars(FULL), **facts})


PLANS = [
    # needs, requested, setting -> words of the error
    (Needs(), "auto", setting(given=True), ["nothing reads it"]),
    (LOGPS, "adapter", FULL, ["a PEFT model"]),
    (LOGPS, "adapter", setting(peft=True, given=True), ["one reference", "both"]),
    (LOGITS, "precomputed", FULL, ["log-probs only"]),
    (LOGPS, "precomputed", setting(stream=True), ["sets with a length"]),
    (LOGITS, "auto", setting(peft=True, trained_adapter=True, sharded=True), ["initial weights", "merge it first"]),
    (LOGITS, "adapter", setting(peft=True, trained_adapter=True, sharded=True), ["initial weights"]),
    (LOGPS, "adapter", setting(peft=True, trained_adapter=True, sharded=True), ["initial weights", "merge it first"]),
]


@pytest.mark.parametrize(("needs", "requested", "facts", "words"), PLANS)
def test_plans_that_are_refused(needs, requested, facts, words):
    refused(lambda: plan_reference(needs, requested, facts), *words)


def test_the_same_plans_with_what_was_missing():
    none, stored, off, copied, *_ = ReferenceMode
    assert vars(plan_reference(Needs(), "auto", FULL)) == {"logps": none, "live": none}
    assert plan_reference(LOGPS, "adapter", setting(peft=True)).logps is off
    assert plan_reference(LOGPS, "precomputed", FULL).logps is stored
    for facts in (setting(sharded=True), setting(peft=True, trained_adapter=True, sharded=True)):
        assert [plan_reference(LOGPS, each, facts).logps for each in ("auto", "precomputed")] == [stored] * 2
    assert plan_reference(LOGPS_OF_BOTH, "copy", setting(sharded=True)).logps is copied
    assert plan_reference(LOGPS, "auto", setting(stream=True)).logps is copied
    assert plan_reference(LOGPS | LOGITS, "auto", setting(peft=True)).modes == {stored, off}
    assert plan_reference(LOGITS, "auto", setting(peft=True, given=True)).live is copied
    assert plan_reference(LOGITS, "auto", setting(peft=True, trained_adapter=True)).live is off


def test_no_copy_of_split_parameters(tmp_path):
    # Under ZeRO-3 a loaded model cannot be copied, and there is no name to load it from again.
    given = {"args": config(tmp_path), "model": tiny_model(), "ref_model": None}
    assert build_reference(Objective([NPO()], []), **given, stream=False, sharded=True, reload=None), "it is looked up"
    run = {"objective": Objective([NPO()], [RetainKL()]), **given}
    refused(
        lambda: build_reference(**run, stream=False, sharded=True, reload=None),
        "a model given by name or path, or ref_model",
    )
    assert build_reference(**run, stream=False, sharded=True, reload=tiny_model)


@pytest.mark.parametrize("argument", ["forget_nll_bound", "stop_forget_nll"])
def test_a_holdout_that_is_not_there(tmp_path, argument):
    refused(lambda: build(tmp_path, **{argument: "holdout"}), "train_dataset['holdout']", f"{argument}='holdout'")
    assert build(tmp_path, train_dataset={**sets(), "holdout": holdout()}, **{argument: "holdout"})


def test_a_holdout_of_forget_rows(tmp_path):
    leaked = {**sets(), "holdout": [*holdout(3), ROW]}
    refused(lambda: build(tmp_path, train_dataset=leaked, forget_nll_bound="holdout"), "in the holdout set", "index 3")
    assert build(tmp_path, train_dataset=leaked), "a holdout that nothing reads is not read"


def test_a_retain_rule_without_retain_rows(tmp_path):
    def trainer(**arguments):
        forget = {"forget": sets()["forget"]}
        return build(tmp_path, train_dataset=forget, retain_loss="none", stop_retain_nll_increase=0.1, **arguments)

    refused(trainer, "retain rows whose NLL is logged or evaluated")
    assert trainer(eval_dataset={"retain": sets()["retain"]}, eval_strategy="epoch")


def test_more_mismatches_than_retain_rows(tmp_path):
    many = {"name": "random_mismatch", "k": 13}
    refused(lambda: build(tmp_path, forget_loss=many), "at least 13 rows", "12 retain rows", "a smaller k")
    refused(
        lambda: build(tmp_path, forget_loss=many, train_dataset={"forget": sets()["forget"]}, retain_loss="none"),
        "train_dataset['retain']",
    )


def test_mismatches_alone_take_no_retain_row_into_the_batch(tmp_path):
    lender = {"name": "random_mismatch", "k": 1}
    trainer = build(tmp_path, train_dataset=sets(retain=2), forget_loss=lender, retain_loss="none")
    assert trainer.train_dataset[0]["retain"] == []


STREAMS = {
    "several workers": (dict(dataloader_num_workers=2), {"forget"}, ["dataloader_num_workers", "each worker"]),
    "an order by length": (dict(train_sampling_strategy="group_by_length"), {"retain"}, ["'group_by_length'"]),
    "a balanced order": (dict(train_sampling_strategy="batch_rebalance"), {"forget"}, ["'batch_rebalance'"]),
    "no limit of length": (dict(max_length=None), {"forget"}, ["max_length", "no row of a stream"]),
    "a holdout without an end": (dict(forget_nll_bound="holdout"), {"holdout"}, ["the holdout set with a length"]),
    "quantiles of a stream": (
        dict(forget_nll_bound="holdout_quantiles"),
        {"forget"},
        ["the forget set with a length"],
    ),
    "a level of a stream": (dict(stop_retain_nll_increase=1.0), {"retain"}, ["the retain set with a length"]),
    "random answers of a stream": (dict(forget_loss="random_mismatch"), {"retain"}, ["a retain set with a length"]),
}


@pytest.mark.parametrize("case", STREAMS)
@pytest.mark.parametrize("kind", ["datasets", "torch"])
def test_streams(tmp_path, case, kind):
    arguments, names, words = STREAMS[case]
    data = {**sets(), "holdout": holdout()}
    for name in names:
        data[name] = data[name].to_iterable_dataset() if kind == "datasets" else TorchStream(data[name].to_list())
    refused(lambda: build(tmp_path, train_dataset=data, **arguments), *words)


def test_a_stream_that_is_empty(tmp_path):
    trainer = build(tmp_path, train_dataset={**sets(), "retain": TorchStream([])})
    refused(trainer.train, "at least one row in the retain set")


def no_mask(features: list[dict]) -> dict:
    return {"input_ids": torch.zeros((len(features), 4), dtype=torch.long)}


@pytest.mark.parametrize("collator", [no_mask, default_data_collator], ids=["no labels", "no padding"])
def test_a_collator_that_makes_no_batch_of_rows(tmp_path, collator):
    refused(lambda: build(tmp_path, data_collator=collator), "role", "DataCollatorForUnlearning")


@pytest.mark.parametrize("streams", [False, True])
def test_a_collator_that_changes_the_labels(tmp_path, streams):
    """It makes labels of all tokens but the padding, so that prompts would be trained."""
    data = {**sets(), "forget": TorchStream(rows("forget", 8))} if streams else sets()

    def train_everything(features: list[dict]) -> dict:
        batch = DataCollatorForUnlearning(pad_token_id=0)(features)
        batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        return {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}

    refused(
        lambda: build(tmp_path, train_dataset=data, data_collator=train_everything),
        "keeps the labels",
        "leave data_collator out",
    )


def test_a_collator_with_roles_in_disorder(tmp_path):
    def retain_first(items):
        batch = DataCollatorForUnlearning(pad_token_id=0)(items)
        return {name: values.flip(0) for name, values in batch.items()}

    trainer = build(tmp_path, data_collator=retain_first)
    refused(trainer.train, "in the order forget, retain, alternate, mismatch")


def test_rows_changed_after_the_reference_was_computed(tmp_path):
    trainer = build(tmp_path, forget_loss="npo", max_steps=1)
    trainer.train()
    rows_now = trainer.train_dataset.forget.map(lambda row: {name: row[name][:-1] for name in ("input_ids", "labels")})
    trainer.train_dataset.forget = rows_now
    refused(trainer.train, "computed before training", "reference='copy'")


def test_a_loss_without_its_tensors_is_named(tmp_path):
    class Halved(Loss):
        name, unit, on, formula = "nll_halved", "token", Role.FORGET, "mean_t lp_t / 2"

        def __call__(self, scores):
            return scores.forget.logps / 2

    trainer = build(tmp_path, forget_loss=Halved(), retain_loss=RetainNLL(), max_steps=1)
    trainer.train()
    assert "forget/nll_halved" in json.dumps(trainer.state.log_history)
