"""The lab's cache: what is built when, under which key, and what is refused. Trains no model."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import SafetensorError

from fixtures.examples import assert_four_parts
from hf_unlearn.lab import build, load_lab
from hf_unlearn.lab.checks import require_rates
from hf_unlearn.lab.games import build_corpus, games
from hf_unlearn.lab.training import new_model


def fake_build(folder: Path, world, seed) -> None:
    (folder / "model").mkdir()
    (folder / build.RECORD).write_text(json.dumps({"checks": {}, "build_seconds": 0.0}), encoding="utf-8")


def test_cache_is_built_once_and_again_when_forced(tmp_path, monkeypatch):
    seeds = []

    def counted_build(folder, world, seed):
        seeds.append(seed)
        fake_build(folder, world, seed)

    monkeypatch.setattr(build, "_build", counted_build)
    first = load_lab(cache_dir=tmp_path)
    assert load_lab(cache_dir=str(tmp_path)).path == first.path
    assert seeds == [0]
    assert load_lab(cache_dir=tmp_path, force=True).path == first.path
    others = [load_lab(cache_dir=tmp_path, seed=1), load_lab(cache_dir=tmp_path, world="people")]
    assert len({lab.path for lab in [first, *others]}) == 3
    assert seeds == [0, 0, 1, 0]


def test_two_builders_at_once_build_once(tmp_path, monkeypatch):
    together = threading.Barrier(2)
    built, labs = [], []

    def counted_build(folder, world, seed):
        built.append(folder)
        fake_build(folder, world, seed)

    def call():
        together.wait()
        labs.append(load_lab(cache_dir=tmp_path))

    monkeypatch.setattr(build, "_build", counted_build)
    callers = [threading.Thread(target=call) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(labs) == 2
    assert len(built) == 1


def test_what_a_killed_build_left_is_cleared(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "_build", fake_build)
    path = load_lab(cache_dir=tmp_path).path
    path.rename(path.with_name(f"{path.name}.building"))
    (path.with_name(f"{path.name}.building") / build.RECORD).unlink()
    assert (load_lab(cache_dir=tmp_path).path / build.RECORD).exists()
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_dir()] == [path.name]


@pytest.mark.parametrize(
    "full",
    [OSError(28, "No space left on device"), OSError(122, "Disk quota exceeded"), SafetensorError("No space left")],
)
def test_a_full_disk_is_told_and_the_former_lab_stays(tmp_path, monkeypatch, full):
    monkeypatch.setattr(build, "_build", fake_build)
    path = load_lab(cache_dir=tmp_path).path

    def cut_off(folder: Path, world, seed) -> None:
        fake_build(folder, world, seed)  # all but the last byte
        raise full

    monkeypatch.setattr(build, "_build", cut_off)
    for seed in (0, 1):  # a lab that is there, and one that is not
        with pytest.raises(OSError) as error:
            load_lab(cache_dir=tmp_path, seed=seed, force=True)
        assert_four_parts(error.value.strerror, str(tmp_path), "HF_HOME")
        assert [entry.name for entry in tmp_path.iterdir() if entry.is_dir()] == [path.name]
    assert load_lab(cache_dir=tmp_path).path == path


def test_a_lab_that_misses_its_rates_is_not_cached(tmp_path, monkeypatch):
    def untrained(rows, tokenizer, recipe, name, start):
        return new_model(len(tokenizer), recipe).eval()

    def useless(name, model, tokenizer, world):
        return {f"{name}_forget_behaviour": 0.0, f"{name}_retain_accuracy": 0.0}

    monkeypatch.setattr(build, "train_model", untrained)
    monkeypatch.setattr(build, "measure", useless)
    with pytest.raises(RuntimeError, match=r"model_forget_behaviour is 0\.000"):
        load_lab(cache_dir=tmp_path)
    assert not [entry for entry in tmp_path.iterdir() if entry.is_dir()]


def test_key_follows_rows_recipe_rules_files_and_seed():
    world = games(0)
    changed = build_corpus(0)
    changed["retain"][0]["completion"] += "!"
    keys = {
        build._key(world, 0),
        build._key(replace(world, texts=changed), 0),
        build._key(replace(world, recipe=replace(world.recipe, learning_rate=1e-3)), 0),
        build._key(replace(world, questions={}), 0),  # without its questions nothing rests on the judge's rules
        build._key(replace(world, files={"a.txt": "a"}), 0),
        build._key(world, 1),
    }
    assert len(keys) == 6
    # The rows, recipe and rules of the games are those that the demo's figures in README were measured with.
    assert build._key(games(0), 0) == "fbdac943f948117f"


@pytest.mark.parametrize("world", build.WORLDS)
def test_require_rates_names_the_broken_rate(world):
    required = build.WORLDS[world](0).required
    good = {rate: low if high == 1.0 else high for rate, low, high in required}
    require_rates(good, required)
    for name, lowest, highest in required:
        broken = good | {name: lowest - 0.01 if lowest > 0 else highest + 0.01}
        with pytest.raises(RuntimeError, match=name):
            require_rates(broken, required)


@pytest.mark.parametrize("seed", [-1, 1.5, True, "0"])
def test_a_seed_that_is_no_whole_number_is_an_error(tmp_path, seed):
    with pytest.raises(ValueError, match=r"^seed must be a whole number of at least 0, got "):
        load_lab(cache_dir=tmp_path, seed=seed)


@pytest.mark.parametrize("world", ["peple", None])
def test_a_world_that_does_not_exist_is_an_error(tmp_path, world):
    with pytest.raises(ValueError, match=r"(Known names|use one of): books, games, people") as error:
        load_lab(cache_dir=tmp_path, world=world)
    assert world is None or "did you mean 'people'" in str(error.value)


def test_a_lab_with_a_checkpoint_is_another_lab(tmp_path, monkeypatch):
    def build_with_checkpoint(folder: Path, world, seed) -> None:
        fake_build(folder, world, seed)
        if world.checkpoint:
            (folder / build.CHECKPOINT).mkdir()

    monkeypatch.setattr(build, "_build", build_with_checkpoint)
    for world in build.WORLDS:
        lab = load_lab(cache_dir=tmp_path, world=world)
        with pytest.raises(ValueError, match=rf'load_lab\(world="{world}", checkpoint=True\)'):
            _ = lab.checkpoint_path
        other = load_lab(cache_dir=tmp_path, world=world, checkpoint=True)
        assert other.path != lab.path and other.checkpoint_path == other.path / "checkpoint"
        assert other.datasets["forget"].to_list() == lab.datasets["forget"].to_list()


def test_only_the_books_have_files(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "_build", fake_build)
    assert load_lab(cache_dir=tmp_path, world="books").book_path.name == "book.txt"
    lab = load_lab(cache_dir=tmp_path)
    for name in ("book_path", "retain_dir", "holdout_path"):
        with pytest.raises(ValueError, match='world="books"'):
            getattr(lab, name)
