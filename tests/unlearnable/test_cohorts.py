"""A dropped cohort, or one trained again without rows, leaves what a training without the rows gives, bit for bit."""

import shutil
from pathlib import Path

import datasets
import pytest
import torch
from peft import LoraConfig, get_peft_model

from fixtures.logged import ROWS, make
from fixtures.models import tiny_model
from hf_unlearn.unlearnable import drop_cohort, load_cohorts, read_log, retrain_cohort, train_cohorts

PEOPLE = [{"prompt": r["prompt"], "completion": r["completion"], "who": "ABC"[i % 3]} for i, r in enumerate(ROWS)]
INPUTS = torch.arange(5, 25).reshape(2, 10)


class Cohorts:
    """Makes trainers of SFT with LoRA and dropout, and counts them."""

    def __init__(self, **lora):
        self.made, self.lora = [], lora

    def __call__(self, rows, name, output):
        self.made.append(name)
        config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], lora_dropout=0.2, **self.lora)
        model = get_peft_model(tiny_model("opt", dropout=0.1, seed=0), config)
        texts = [{"prompt": row["prompt"], "completion": row["completion"]} for row in rows]
        return make("sft", Path(output), model=model, rows=texts, num_train_epochs=1)


def logits(folder, **options):
    with torch.no_grad():
        return load_cohorts(folder, tiny_model("opt", dropout=0.1), **options)(INPUTS).logits


def never_had(tmp_path, folder, rows, by="who"):
    """Logits of a training that never had other rows, in a folder of its own with the same salt."""
    other = tmp_path / "never"
    shutil.rmtree(other, ignore_errors=True)
    other.mkdir()
    shutil.copy(folder / "salt", other)
    train_cohorts(Cohorts(), rows, by, other)
    return logits(other)


def without(letter):
    return [row for row in PEOPLE if row["who"] != letter]


def test_a_dropped_cohort_was_never_there(tmp_path):
    folder, make_trainer = tmp_path / "cohorts", Cohorts()
    cohorts = train_cohorts(make_trainer, datasets.Dataset.from_list(PEOPLE), "who", folder)
    log = read_log(folder)
    assert {*cohorts} == {*log.cohorts} == {*make_trainer.made} and len(cohorts) == 3
    assert [len(cohort.rows) for cohort in log.cohorts.values()].count(4) == 2 and "A" not in "".join(cohorts)
    (name,) = log.cohorts_of([PEOPLE[1], PEOPLE[4]])
    assert log.never_trained([PEOPLE[0], {"prompt": "x", "completion": "y"}]) and not log.never_trained(PEOPLE)
    before = logits(folder)
    train_cohorts(make_trainer, PEOPLE, "who", folder)
    assert len(make_trainer.made) == 3  # none was trained again
    files = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and name not in p.parts}
    drop_cohort(folder, name)
    after = logits(folder)
    assert not torch.equal(after, before) and torch.equal(after, never_had(tmp_path, folder, without("B")))
    assert not torch.equal(after, never_had(tmp_path, folder, without("A")))  # the failing direction
    assert all(path.read_bytes() == content for path, content in files.items())
    assert not [path for path in folder.rglob("*") if name in path.parts]
    with pytest.raises(ValueError, match=f"4 rows of {name}"):
        train_cohorts(make_trainer, PEOPLE, "who", folder)
    with pytest.raises(ValueError, match="name must be a known name"):
        drop_cohort(folder, "B")


def test_the_sum_is_of_the_adapters_with_their_weights(tmp_path):
    """W x + sum of w B A x, against weights that were added up by hand."""
    folder = tmp_path / "cohorts"
    names = [*train_cohorts(Cohorts(), PEOPLE, "who", folder)]
    weights = dict(zip(names, (1.0, 0.5, -2.0), strict=True))
    joined = load_cohorts(folder, tiny_model("opt"), weights=weights)
    by_hand = tiny_model("opt")
    modules = dict(joined.base_model.model.named_modules())
    for name, weight in by_hand.named_parameters():
        layer = modules[name.removesuffix(".weight").removesuffix(".bias")]
        if name.endswith(("q_proj.weight", "v_proj.weight")):
            for cohort in names:
                scale = weights[cohort] * 8 / 2  # PEFT's default alpha is 8
                weight.data += scale * layer.lora_B[cohort].weight @ layer.lora_A[cohort].weight
    with torch.no_grad():
        torch.testing.assert_close(joined(INPUTS).logits, by_hand.eval()(INPUTS).logits, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(joined(INPUTS).logits, logits(folder), atol=1e-3)
    with pytest.raises(ValueError, match="weights"):
        load_cohorts(folder, tiny_model("opt"), weights={names[0]: 1.0})


def test_a_cohort_by_hash_is_trained_again_without_rows(tmp_path):
    folder, make_trainer = tmp_path / "cohorts", Cohorts()
    cohorts = train_cohorts(make_trainer, PEOPLE, 2, folder)
    assert [*cohorts] == ["0-of-2", "1-of-2"] and sum(len(cohort.rows) for cohort in cohorts.values()) == 11
    gone = [PEOPLE[7]]
    (name,) = read_log(folder).cohorts_of(gone)
    new = retrain_cohort(make_trainer, folder, name, rows=PEOPLE, without=gone)
    assert make_trainer.made == [*cohorts, name] and read_log(folder).cohorts_of(gone) == []
    assert len(new.rows) == len(cohorts[name].rows) - 1 and not cohorts[name].folder.exists()
    left = [row for row in PEOPLE if row not in gone]
    assert torch.equal(logits(folder), never_had(tmp_path, folder, left, by=2))
    with pytest.raises(ValueError, match=f"rows of {name} that its adapter was trained on"):
        train_cohorts(make_trainer, PEOPLE, 2, folder)
    with pytest.raises(ValueError, match="none to delete"):
        retrain_cohort(make_trainer, folder, name, rows=PEOPLE, without=gone)
    with pytest.raises(ValueError, match="1 fewer"):
        (first,) = read_log(folder).cohorts_of(left[:1])
        retrain_cohort(make_trainer, folder, first, rows=left[1:], without=left[1:])


def test_other_weights_bases_and_adapters_are_refused(tmp_path):
    folder = tmp_path / "cohorts"
    with pytest.raises(ValueError, match=r"0 adapters"):
        train_cohorts(lambda rows, name, output: make("sft", Path(output)), PEOPLE, "who", folder)
    with pytest.raises(ValueError, match="one of another kind"):
        train_cohorts(Cohorts(use_dora=True), PEOPLE, "who", folder)
    with pytest.raises(ValueError, match="a value of 'author' in every row"):
        train_cohorts(Cohorts(), PEOPLE, "author", folder)
    with pytest.raises(ValueError, match="by must be"):
        train_cohorts(Cohorts(), PEOPLE, 1, folder)
    train_cohorts(Cohorts(), without("A"), "who", folder)
    with pytest.raises(ValueError, match="the base that the cohorts were trained on"):
        load_cohorts(folder, tiny_model("opt", seed=1))
    first = next(iter(read_log(folder).cohorts.values()))
    manifest = first.manifest.read_text()
    first.manifest.write_text(manifest.replace(first.rows[0], "0" * 64))
    with pytest.raises(ValueError, match=r"cohort\.json as it was written"):
        read_log(folder)
    first.manifest.write_text(manifest)
    (file,) = first.folder.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match=r"another adapter_model\.safetensors"):
        load_cohorts(folder, tiny_model("opt"))
