"""Which models are split over ranks, and what is refused of them. Not runs under ZeRO-3 and FSDP2."""

import pytest
import torch
from accelerate import Accelerator
from torch.distributed.fsdp import FullyShardedDataParallel

from fixtures.examples import assert_four_parts
from fixtures.models import FORGET, HOLDOUT, RETAIN, make_trainer, tiny_model, tiny_tokenizer
from hf_unlearn.evaluation import custom, evaluate, lm_eval
from hf_unlearn.evaluation.checks import require_callable
from hf_unlearn.model.fingerprints import hash_weights
from hf_unlearn.model.score_rows import RowScorer
from hf_unlearn.model.sharding import full_state_dict, gathers_itself, is_sharded

SETS = {"forget": FORGET[:5], "retain": RETAIN[:4], "holdout": HOLDOUT[:3]}


def partitioned(*, prepared: bool):
    """A model that looks like one of ZeRO-3; `prepared`: like one that an engine was made for."""
    model = tiny_model()
    for number, parameter in enumerate(model.parameters()):
        parameter.ds_id = number
    if prepared:
        model.ds_inflight_param_registry = {}
    return model


def refused(run) -> str:
    with pytest.raises(ValueError) as error:
        run()
    assert_four_parts(str(error.value))
    return str(error.value)


def evaluated(model, **options):
    return evaluate(
        model, tiny_tokenizer(), custom(**SETS, max_new_tokens=4, **options), accelerator=Accelerator(cpu=True)
    )


def test_a_whole_model_is_not_split_and_gathers_itself():
    model = tiny_model("opt")
    assert not is_sharded(model) and gathers_itself(model)
    state = dict(full_state_dict(model))
    assert list(state) == sorted(model.state_dict()) and "lm_head.weight" in state  # tied, and under both names
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in state.items())


def test_every_weight_changes_the_hash():
    hashes = {hash_weights(tiny_model())}
    for name, parameter in (model := tiny_model()).named_parameters():
        parameter.data[..., 0] += 1
        hashes.add(hash_weights(model))
        assert len(hashes) > 1, name
    assert len(hashes) == 1 + len(list(model.parameters()))
    assert hash_weights(tiny_model()) in hashes


def test_a_partitioned_model_is_called_only_once_it_is_prepared():
    assert is_sharded(partitioned(prepared=True)) and gathers_itself(partitioned(prepared=True))
    assert not gathers_itself(partitioned(prepared=False))
    message = refused(lambda: evaluated(partitioned(prepared=False)))
    assert "split and not yet prepared" in message and "empty parameters" in message


def test_fsdp1_is_refused():
    model = tiny_model()
    wrapper = FullyShardedDataParallel.__new__(FullyShardedDataParallel)  # it wants a GPU to be made properly
    torch.nn.Module.__init__(wrapper)
    model.add_module("wrapped", wrapper)
    assert is_sharded(model)
    assert "fsdp_version: 2" in refused(lambda: require_callable(model))


def test_what_no_rank_can_do_on_its_own_is_refused():
    model = partitioned(prepared=True)
    assert "leave gradient_norm out" in refused(lambda: evaluated(model, attacks=("loss", "gradient_norm")))
    harness = lambda: evaluate(  # noqa: E731
        model, tiny_tokenizer(), lm_eval(["arc_easy"]), accelerator=Accelerator(cpu=True)
    )
    assert "the harness runs on the main process alone" in refused(harness)


def test_calls_in_step_find_what_calls_in_any_order_find():
    split, whole = evaluated(partitioned(prepared=True)), evaluated(tiny_model())
    assert split.values() == pytest.approx(whole.values(), rel=1e-6) and len(set(whole.values().values())) > 8


@pytest.mark.parametrize("rows", [17, 16, 1, 0])
def test_ranks_make_equally_many_forwards_of_a_model_that_is_split(tmp_path, monkeypatch, rows):
    trainer = make_trainer(tmp_path, tiny_model())
    tokens = trainer._prepared.options.tokenize([*RETAIN, *FORGET][:rows] or RETAIN[:1], "eval")
    made, yielded = [], []
    for rank in range(2):
        accelerator = Accelerator(cpu=True)
        monkeypatch.setattr(type(accelerator), "process_index", property(lambda self, rank=rank: rank))
        monkeypatch.setattr(type(accelerator), "num_processes", property(lambda self: 2))
        model = partitioned(prepared=True)
        forwards: list[int] = []
        model.register_forward_hook(lambda *_, forwards=forwards: forwards.append(1))
        scorer = RowScorer(trainer._prepared.collator, accelerator, 4)
        for indices, _ in scorer.batches(model, tokens, range(rows), "rows"):
            yielded += indices
        made.append(len(forwards))
    assert made[0] == made[1], "a rank would wait for the other for ever"
    assert sorted(yielded) == list(range(rows)), "what is computed for the others' sake is no result"
