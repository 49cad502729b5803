"""The cards of model_cards/ are what the package makes of the records beside them, without a row of any set.

Cards of the other lab recipes are rendered in memory, from the record of NPO's run with each recipe's own objective.
"""

import re
import sys
from pathlib import Path

import pytest

from hf_unlearn.lab import load_lab
from hf_unlearn.results.card_file import CARD_FILE, saved_plots
from hf_unlearn.results.model_card import render_card
from hf_unlearn.results.record import RECORD_FILE, load_record
from hf_unlearn.tasks import parse_task
from hf_unlearn.tasks.recipe_files import find_recipe, packaged_recipes, read_recipe
from hf_unlearn.training.hooks.run_description import describe_objective
from hf_unlearn.training.methods import Methods
from hf_unlearn.training.objective import build_objective
from local_hub.card_rules import check_card

CARDS = Path(__file__).resolve().parents[3] / "model_cards"
FOLDERS = {path.parent.relative_to(CARDS).as_posix(): path.parent for path in sorted(CARDS.rglob(RECORD_FILE))}


ON_THE_LAB = [name for name in packaged_recipes() if "model_name_or_path" not in read_recipe(find_recipe(name))]


def test_cards_are_of_recipes_that_run_on_the_lab():
    assert {"harmful_lab", "copyright_lab", "privacy_lab", "methods/npo"} < set(FOLDERS) < set(ON_THE_LAB)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_card_is_rendered_from_its_record(name):
    folder = FOLDERS[name]
    record = load_record(folder)
    card = (folder / CARD_FILE).read_text(encoding="utf-8")
    assert render_card(record, plots=saved_plots(folder)) == card
    assert check_card(card)[0] == []
    assert record.recipe == name and f"hf-unlearn train --config {name}" in card
    assert set(record.evaluations) == {"before", "after", "oracle"}
    assert ("](plots/" in card) is ("/" not in name)


@pytest.mark.parametrize(
    "name", [name for name in ON_THE_LAB if name not in FOLDERS and not name.startswith("edits/")]
)
def test_the_card_of_another_recipe_says_what_its_run_did(name):
    args = parse_task(read_recipe(find_recipe(name))["task"], ["--config", name, "--use_cpu"]).args
    record = load_record(FOLDERS["methods/npo"])
    record.name, record.recipe = name.rpartition("/")[2], name
    methods = Methods.resolve(args)
    record.objective = describe_objective(build_objective(methods, args), methods, args, None)
    card = render_card(record)
    assert check_card(card)[0] == []
    assert f"hf-unlearn train --config {name}" in card
    objective, cells = record.objective, card.replace(r"\|", "|")
    rows = {f"{term.side}/{term.name}": term for term in objective.terms}
    rows |= {f"step/{wrapper.name}": wrapper for wrapper in objective.step_wrappers}
    for label, component in rows.items():
        assert f"| `{label}` | `{component.formula}` |" in cells
    for component in (*rows.values(), objective.weighting):
        # Cited in the BibTeX block, not only named.
        assert all(f"eprint = {{{paper}}}" in card for paper in re.findall(r"\d{4}\.\d{5}", component.paper))
    assert f"Optimizer: `{objective.optimizer}`" in card


@pytest.mark.parametrize("name", FOLDERS)
def test_a_record_holds_no_row(name):
    """The answers are long enough to be told from chance; numbers of single rows are left out too."""
    folder = FOLDERS[name]
    world = {"copyright_lab": "books", "privacy_lab": "people"}.get(name, "games")
    text = "".join((folder / file).read_text(encoding="utf-8") for file in (RECORD_FILE, CARD_FILE))
    rows = load_lab(world=world).datasets["forget"]
    said = [value.strip() for row in rows for value in row.values() if len(value.strip()) > 15]
    assert len(said) > 20
    assert [each for each in said if each in text] == []
    assert all(not result.row_scores for result in load_record(folder).evaluations.values())


def test_the_script_renders_them_in_place(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(CARDS))
    monkeypatch.delitem(sys.modules, "make", raising=False)
    import make

    name = next(iter(FOLDERS))
    copy = tmp_path / name
    copy.mkdir(parents=True)
    (copy / RECORD_FILE).write_bytes((FOLDERS[name] / RECORD_FILE).read_bytes())
    make.render(copy)
    assert (copy / CARD_FILE).is_file()
