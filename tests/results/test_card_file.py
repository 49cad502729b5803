"""The card of a run as a file: how often it is rendered, and how one that was edited by hand is told from ours."""

import json

import pytest

from hf_unlearn.results import card_file
from hf_unlearn.results.card_file import CARD_FILE, CardWriter, has_own_card, write_own_card
from hf_unlearn.results.evaluation_result import EvaluationResult
from hf_unlearn.results.hub import push
from hf_unlearn.results.record import PLOTS, PLOTS_OF, RECORD_FILE, RunRecord, load_record
from results.hub.runs import REPO, trainer_of

pytest_plugins = ["fixtures.hub"]


@pytest.fixture
def renderings(monkeypatch) -> list[str]:
    """The cards that were rendered since."""
    rendered: list[str] = []
    render = card_file.render_card

    def counted(*args, **kwargs):
        rendered.append(render(*args, **kwargs))
        return rendered[-1]

    for module in (card_file, push):
        monkeypatch.setattr(module, "render_card", counted)
    return rendered


def test_a_card_is_rendered_again_only_for_what_has_changed(tmp_path, renderings):
    record, writer = RunRecord(name="a run"), CardWriter()
    for folder in ("one", "two", "one"):
        writer.write(tmp_path / folder, record)
    assert len(renderings) == 1
    cards = [(tmp_path / folder / CARD_FILE).read_text(encoding="utf-8") for folder in ("one", "two")]
    assert cards == renderings * 2
    record.recipe = "harmful_lab"
    writer.write(tmp_path / "one", record)
    assert len(renderings) == 2 and renderings[1] != renderings[0]
    # Plots that have come to lie there are shown, though the record is the same.
    (tmp_path / "one" / PLOTS).mkdir()
    (tmp_path / "one" / PLOTS / "losses.png").write_bytes(b"")
    (tmp_path / "one" / PLOTS / PLOTS_OF).write_text(load_record(tmp_path / "one").figures_hash())
    writer.write(tmp_path / "one", record)
    assert len(renderings) == 3 and "plots/losses.png" in renderings[2]


def test_a_card_that_is_not_there_is_written_again_without_rendering(tmp_path, renderings):
    record, writer = RunRecord(), CardWriter()
    writer.write(tmp_path, record)
    (tmp_path / CARD_FILE).write_text("what PEFT writes")
    writer.write(tmp_path, record)
    assert len(renderings) == 1 and has_own_card(tmp_path)


def test_an_edited_card_is_told_by_its_hash(tmp_path, renderings):
    assert has_own_card(tmp_path)  # none at all is none by hand
    write_own_card(tmp_path, RunRecord(log=[{"loss": float("nan"), "step": 1}]))
    card = tmp_path / CARD_FILE
    assert has_own_card(tmp_path)
    # The record may have gone on since: the card is still as it was rendered.
    record = load_record(tmp_path)
    record.evaluations["after"] = EvaluationResult("suite", {})
    record.save(tmp_path)
    assert has_own_card(tmp_path)
    card.write_text(card.read_text(encoding="utf-8") + "By hand.\n", encoding="utf-8")
    assert not has_own_card(tmp_path)
    assert len(renderings) == 1


def test_a_record_from_before_the_hash_can_be_read_and_its_card_is_told(tmp_path, renderings):
    write_own_card(tmp_path, RunRecord(name="an old run"))
    stored = json.loads((tmp_path / RECORD_FILE).read_text(encoding="utf-8"))
    assert len(stored.pop("card_sha256")) == 64
    (tmp_path / RECORD_FILE).write_text(json.dumps(stored), encoding="utf-8")
    assert load_record(tmp_path) == RunRecord(name="an old run")
    assert has_own_card(tmp_path) and len(renderings) == 2
    (tmp_path / CARD_FILE).write_text("By hand.\n", encoding="utf-8")
    assert not has_own_card(tmp_path)


def test_a_run_renders_once_for_its_folder_and_once_for_a_push(hub, tmp_path, renderings):
    trainer = trainer_of(tmp_path, hub_model_id=REPO)
    trainer.train()
    assert renderings == []
    trainer.save_model()
    assert len(renderings) == 1
    trainer.push_to_hub()
    assert len(renderings) == 2 and REPO in renderings[1] and REPO not in renderings[0]
    assert (tmp_path / "out" / CARD_FILE).read_text(encoding="utf-8") == renderings[0]
    trainer.push_to_hub()
    assert len(renderings) == 3
    trainer.push_to_hub(license="mit")  # which changes the folder's card too
    assert len(renderings) == 5 and "license: mit" in renderings[3]


def test_a_save_that_pushes_renders_once_more(hub, tmp_path, renderings):
    trainer = trainer_of(tmp_path, hub_model_id=REPO, push_to_hub=True)
    trainer.train()
    trainer.save_model()
    assert len(renderings) == 2 and REPO in renderings[1]
    assert hub.commits(REPO)[-1].title == "Model save"


def test_every_checkpoint_has_its_card_and_none_is_rendered_twice(hub, tmp_path, renderings):
    options = dict(save_strategy="steps", save_steps=1, push_to_hub=True, hub_strategy="every_save")
    trainer = trainer_of(tmp_path, hub_model_id=REPO, hub_always_push=True, **options)
    trainer.train()
    folders = [tmp_path / "out" / f"checkpoint-{step}" for step in (1, 2)]
    local = [(folder / CARD_FILE).read_text(encoding="utf-8") for folder in folders]
    assert local == [card for card in renderings if REPO not in card]
    assert len([card for card in renderings if REPO in card]) == 2  # one a push
    trainer.push_to_hub()
    assert len(renderings) <= 6


def test_a_save_without_a_card_leaves_none_behind(tmp_path, renderings):
    """PEFT writes one of its own, which nobody has edited and nobody is to push."""
    trainer = trainer_of(tmp_path)
    trainer.train()
    trainer.save_model(card=False)
    out = tmp_path / "out"
    assert not (out / CARD_FILE).exists() and load_record(out).steps == 2 and load_record(out).card_sha256 is None
    assert (out / "adapter_model.safetensors").is_file() and has_own_card(out) and renderings == []
    trainer.write_card()
    assert (out / CARD_FILE).read_text(encoding="utf-8") == renderings[0] and len(renderings) == 1
