"""Cohorts: groups of rows, each with an adapter trained on it alone, so that a group is deleted by dropping it."""

import hashlib
import hmac
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel, Trainer, set_seed

from ..data.text_digests import text_digest
from ..errors import input_error, require_choice, require_range
from ..model.fingerprints import tensor_bytes
from ..model.sharding import full_state_dict
from ..model.weight_files import weight_file_hashes
from .cohort_files import (
    Cohort,
    cohort_folder,
    dropped_cohorts,
    read_cohorts,
    require_unchanged,
    write_manifest,
)
from .places import make_salt
from .trained_sets import digests_of

RowSet = Sequence[Mapping[str, Any]]  # or a datasets.Dataset, which stays one
MakeTrainer = Callable[[RowSet, str, str], Trainer]


def train_cohorts(
    make_trainer: MakeTrainer, rows: RowSet, by: str | int, folder: str | os.PathLike[str]
) -> dict[str, Cohort]:
    """Deal rows into cohorts and train a LoRA adapter on each of them alone, all from the same base.

    A cohort's adapter is a function of the base, its own rows in their order, `make_trainer` and the folder's
    salt: the random numbers of `make_trainer` (the adapter's first values) begin at a seed made of the cohort's
    own digests. Nothing of another cohort goes into it. Cohorts that are finished are not trained again.

    Args:
        make_trainer: called with the cohort's rows, its name and an output folder of its own. Returns a trainer whose
            model is the base, loaded or copied anew, with one LoRA adapter.
        rows: all rows, in any accepted format.
        by: a column, whose every value is a cohort (an author, a customer); or into how many cohorts to deal the rows
            by a salted hash of their text.
        folder: of the cohorts; that of an UnlearnableCallback's log may be the same.

    Returns:
        The cohorts by name. A column's values are in their names as salted hashes only; `read_log(folder).cohorts_of`
        finds the cohort of rows.

    Raises:
        ValueError: rows without the column; rows of a cohort that was dropped or trained on other rows; a trainer
            without one plain LoRA adapter, or with another base than that of the other cohorts.
    """
    place = Path(folder)
    salt = make_salt(place)
    done, dropped = read_cohorts(place, salt), dropped_cohorts(place, salt)
    dealt = _deal(rows, by, salt)
    if gone := sorted(set(dealt).intersection(dropped)):
        raise _refused(
            "rows of cohorts that were not dropped",
            f"{sum(len(dealt[name]) for name in gone)} rows of {', '.join(gone)}",
            "leave these rows out: they were to be deleted",
        )
    for name, places in dealt.items():
        digests = digests_of(_pick(rows, places), salt)
        if name not in done:
            continue
        if done[name].rows != digests.rows:
            raise _refused(
                f"the {len(done[name].rows)} rows of {name} that its adapter was trained on, in their order",
                f"{len(digests.rows)} others",
                "leave out what retrain_cohort deleted; for new rows, use a column or folder of their own",
            )
        require_unchanged(done[name])
    for name in sorted(set(dealt).difference(done)):
        others = {cohort.base for cohort in done.values()}
        done[name] = _train(make_trainer, _pick(rows, dealt[name]), name, place, salt, others)
    return {name: done[name] for name in sorted(dealt)}


def retrain_cohort(
    make_trainer: MakeTrainer,
    folder: str | os.PathLike[str],
    name: str,
    *,
    rows: RowSet,
    without: Iterable[Mapping[str, Any]],
) -> Cohort:
    """Delete some rows of a cohort exactly: its adapter is trained anew, from the base, on the rows that are left.

    The other cohorts stay as they are. The former adapter serves until the new one is finished, and is removed then.

    Args:
        make_trainer: as for `train_cohorts`.
        folder: of the cohorts.
        name: of the cohort.
        rows: the rows of the cohort, or more: those of other cohorts are passed over.
        without: rows to delete.

    Raises:
        ValueError: rows of the cohort are missing; none of those to delete is in it, or all are.
    """
    place = Path(folder)
    salt = make_salt(place)
    cohorts = read_cohorts(place, salt)
    require_choice("name", name, cohorts)
    had, digests = set(cohorts[name].rows), digests_of(rows, salt).rows
    gone = had.intersection(digests_of(without, salt).rows)
    if missing := had.difference(digests, gone):
        raise _refused(
            f"all rows of {name} that stay",
            f"{len(missing)} fewer",
            "pass the rows that train_cohorts was given: what is missing would be deleted too",
        )
    left = [at for at, digest in enumerate(digests) if digest in had and digest not in gone]
    if not gone or not left:
        raise _refused(
            f"some rows of {name} to delete, and some to keep",
            "none to delete" if not gone else "none to keep",
            "ask read_log(folder).cohorts_of(rows) for their cohort" if not gone else f"drop_cohort(folder, {name!r})",
        )
    others = {cohort.base for cohort in cohorts.values()}
    return _train(make_trainer, _pick(rows, left), name, place, salt, others)


def load_cohorts(
    folder: str | os.PathLike[str],
    base: str | PreTrainedModel,
    *,
    weights: float | Mapping[str, float] = 1.0,
) -> PeftModel:
    """The base with the adapters of all cohorts that are left, every one of them active.

    PEFT adds what several active adapters put out, layer by layer: W x + sum_c w_c (alpha_c / r_c) B_c A_c x, in
    the order of the names. Every cohort is told of by its own term, so that a cohort that is dropped leaves the
    other terms as they were, bit for bit. Where one adapter is wanted, to publish or to merge,
    `model.add_weighted_adapter(names, weights, "all", combination_type="cat")` makes it with the same sum (of the
    ranks' sum; other last bits); "linear" adds the factors instead, which is no sum of the adapters.

    Args:
        folder: of the cohorts.
        base: the model without adapters, or its name or path. Its layers are wrapped in place.
        weights: w_c of every cohort, or of each by name. Adapters that are trained apart and added up move the model
            further than one that is trained on all rows; weights below 1 take some of it back. They should not depend
            on how many cohorts there are, or a dropped one would change the others'.

    Raises:
        ValueError: no cohort is left; an adapter or the base is another than was trained; a weight is missing.
    """
    place = Path(folder)
    cohorts = read_cohorts(place, make_salt(place))
    if not cohorts:
        raise _refused("cohorts in the folder", "none", "the base is the model that was trained on none of the rows")
    given = weights if isinstance(weights, Mapping) else dict.fromkeys(cohorts, weights)
    for name in cohorts:
        require_range(f"weights[{name!r}]", given.get(name))
    model = AutoModelForCausalLM.from_pretrained(base) if isinstance(base, str) else base
    own = base_hash(model)
    for cohort in cohorts.values():
        require_unchanged(cohort)
        if cohort.base != own:
            raise _another_base(cohort.name)
    first, *rest = cohorts.values()
    joined = PeftModel.from_pretrained(model, first.folder, adapter_name=first.name)
    for cohort in rest:
        joined.load_adapter(cohort.folder, adapter_name=cohort.name)
    joined.base_model.set_adapter([*cohorts], inference_mode=True)
    for module in joined.modules():
        if isinstance(module, LoraLayer):
            for name in cohorts:
                module.set_scale(name, given[name])
    joined.eval()
    return joined


def base_hash(model: nn.Module) -> str:
    """SHA-256 of a model's weights without its LoRA adapters: the same with and without them."""
    tensors = {}
    for name, tensor in full_state_dict(model):
        if ".lora_" not in name:
            plain = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
            tensors[plain] = hashlib.sha256(b"".join(tensor_bytes(plain, tensor))).hexdigest()
    return hashlib.sha256("".join(f"{name} {tensors[name]}\n" for name in sorted(tensors)).encode()).hexdigest()


def _deal(rows: RowSet, by: str | int, salt: bytes) -> dict[str, list[int]]:
    """Places of the rows of each cohort, in order."""
    if not isinstance(by, str):
        require_range("by", by, at_least=2, whole=True, hint="or the name of a column")
    dealt: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        if isinstance(by, str):
            if row.get(by) is None:
                raise _refused(f"a value of {by!r} in every row", f"none in row {place}", "name another column")
            value = _salted(salt, f"{by}={row[by]!r}")
            name = f"{re.sub(r'[^A-Za-z0-9_]', '_', by)}-{value[:12]}"
        else:
            number = int(_salted(salt, f"cohort={text_digest(row, salt)}"), 16) % by
            name = f"{number:0{len(str(by - 1))}d}-of-{by}"
        dealt.setdefault(name, []).append(place)
    return dict(sorted(dealt.items()))


def _train(make_trainer: MakeTrainer, rows: RowSet, name: str, folder: Path, salt: bytes, bases: set[str]) -> Cohort:
    digests = digests_of(rows, salt)
    seed = int(_salted(salt, "".join(digests.rows))[:8], 16)
    adapter = cohort_folder(folder, name) / f"{seed:08x}"
    set_seed(seed)
    trainer = make_trainer(rows, name, str(adapter / "training"))
    model = trainer.accelerator.unwrap_model(trainer.model)
    own = _require_one_adapter(model)
    base = base_hash(model)
    if bases and base not in bases:
        raise _another_base(name)
    trainer.train()
    if base_hash(model) != base:
        raise _refused("a base that stays as it is", f"other weights after {name}", "train nothing but the adapter")
    weights = {}
    if trainer.accelerator.is_main_process:
        model.save_pretrained(str(adapter))
        if own != "default":  # PEFT puts the others in a folder of their name
            shutil.copytree(adapter / own, adapter, dirs_exist_ok=True)
        weights = weight_file_hashes(adapter)
    cohort = Cohort(name, digests.rows, digests.forms, seed, base, weights, adapter)
    if trainer.accelerator.is_main_process:
        write_manifest(cohort, salt)
    trainer.accelerator.wait_for_everyone()
    return cohort


def _require_one_adapter(model: Any) -> str:
    """The name of a model's adapter, of which there is one and which is a sum's term and nothing else."""
    configs = dict(model.peft_config) if isinstance(model, PeftModel) else {}
    name, config = next(iter(configs.items()), ("", None))
    plain = isinstance(config, LoraConfig) and not (
        config.modules_to_save or config.bias != "none" or config.use_dora or config.trainable_token_indices
    )
    if len(configs) != 1 or not plain:
        raise _refused(
            "a trainer whose model has one LoRA adapter, without modules_to_save, bias, DoRA or trained tokens",
            f"{len(configs)} adapters" if len(configs) != 1 else f"one of another kind ({type(config).__name__})",
            "load the base anew in make_trainer and give it peft_config=LoraConfig(...): adapters are added up",
        )
    return name


def _pick(rows: RowSet, places: list[int]) -> RowSet:
    return rows.select(places) if isinstance(rows, datasets.Dataset) else [rows[place] for place in places]


def _salted(salt: bytes, text: str) -> str:
    return hmac.new(salt, text.encode(), hashlib.sha256).hexdigest()


def _another_base(name: str) -> ValueError:
    return _refused(
        "the base that the cohorts were trained on",
        f"another for {name}",
        "load the same model anew for each cohort: a model that was wrapped or trained before is another",
    )


def _refused(expected: str, got: str, fix: str) -> ValueError:
    return input_error(
        expected=expected,
        got=got,
        why="rows are deleted by dropping their cohort's adapter only where nothing else has learnt them",
        fix=fix,
    )
