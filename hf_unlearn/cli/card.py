"""`hf-unlearn card`: renders the model card of a run again from its record."""

import argparse
from pathlib import Path

from .command import Verb, add_json, tell


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN_DIR", help="output folder of a run, with its results.json")
    parser.add_argument("--repo_id", metavar="OWNER/NAME", help="repository that the card's code loads from")
    parser.add_argument("--model_name", metavar="TITLE", help="title of the card")
    parser.add_argument("--license", metavar="KEY", help="licence of the model: apache-2.0, ...")
    parser.add_argument("--language", nargs="+", metavar="CODE", help="languages, as ISO codes: en")
    parser.add_argument("--tags", nargs="+", metavar="TAG", help="tags beside those that every card has")
    parser.add_argument("--datasets", nargs="+", metavar="ID", help="datasets on the Hub beside those that are known")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write it (default: RUN_DIR/README.md)")
    add_json(parser)


def _run(args: argparse.Namespace) -> None:
    from ..results.card_file import CARD_FILE, saved_plots, write_own_card
    from ..results.hub.names import require_metadata
    from ..results.hub.push import require_repo_id
    from ..results.model_card import render_card
    from ..results.record import load_record

    folder = Path(args.run)
    record = load_record(folder)
    names = ("model_name", "license", "language", "tags", "datasets", "repo_id")
    given = {name: getattr(args, name) for name in names}
    require_metadata(args.license, args.language, args.datasets)
    if args.repo_id is not None:
        require_repo_id(args.repo_id, "--repo_id")
    for name, value in given.items():
        if value is not None:
            setattr(record.metadata, name, value)
    home = folder if folder.is_dir() else folder.parent
    output = Path(args.output or home / CARD_FILE)
    if output.resolve() == (home / CARD_FILE).resolve():
        write_own_card(home, record)  # with the record: the next card of the run has the metadata too
    else:
        output.write_text(render_card(record, plots=saved_plots(home)), encoding="utf-8")
    tell(args, f"Card: {output}", {"card": str(output)})


CARD = Verb("render a run's model card again from its results.json", _arguments, _run)
