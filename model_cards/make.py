"""Makes the cards of this folder: runs lab recipes, keeps each run's record and card; `--render` renders alone.

    python model_cards/make.py                          # every recipe that runs on the lab, half an hour on one core
    python model_cards/make.py methods/npo              # one of them
    python model_cards/make.py --render                 # the cards again, from the records that lie here

A test renders the cards again and compares.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from hf_unlearn.cli import main as hf_unlearn
from hf_unlearn.results.card_file import write_own_card
from hf_unlearn.results.record import PLOTS, PLOTS_OF, RECORD_FILE, load_record
from hf_unlearn.tasks.recipe_files import find_recipe, packaged_recipes, read_recipe

HERE = Path(__file__).resolve().parent


def on_the_lab(recipe: str) -> bool:
    """Whether a recipe runs without a model of the Hub."""
    return "model_name_or_path" not in read_recipe(find_recipe(recipe))


def make(recipe: str) -> None:
    """Run a recipe and keep what its card is made from; plots of the three examples alone, for their size."""
    folder = HERE / recipe
    with tempfile.TemporaryDirectory() as root:
        run = Path(root) / Path(read_recipe(find_recipe(recipe))["output_dir"]).name
        status = hf_unlearn(["train", "--config", recipe, "--use_cpu", "--output_dir", str(run)])
        if status:
            raise SystemExit(status)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(run / RECORD_FILE, folder)
        if "/" not in recipe:
            (folder / PLOTS).mkdir()
            for file in ("*.png", PLOTS_OF):
                for plot in (run / PLOTS).glob(file):
                    shutil.copy(plot, folder / PLOTS)
    render(folder)


def render(folder: Path) -> None:
    """Write the card of a record that lies here."""
    write_own_card(folder, load_record(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", help="packaged recipes; none: all that run on the lab")
    parser.add_argument("--render", action="store_true", help="render the cards again, and run nothing")
    args = parser.parse_args()
    if args.render:
        for record in sorted(HERE.rglob(RECORD_FILE)):
            render(record.parent)
        return
    for recipe in args.recipes or filter(on_the_lab, packaged_recipes()):
        make(recipe)


if __name__ == "__main__":
    main()
