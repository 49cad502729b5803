"""The card of a run as a file beside results.json: rendered once for what it shows, hand edits told by its hash."""

import hashlib
from pathlib import Path

from .files import atomic_write_text
from .model_card import render_card
from .record import PLOTS, PLOTS_OF, RunRecord, load_record

CARD_FILE = "README.md"


class CardWriter:
    """Writes the record and the card of a run, and renders a card again only when what it shows has changed.

    A trainer keeps one: a checkpoint, the final save and a push of the same state then share one rendering.
    """

    def __init__(self) -> None:
        self._shown: tuple[str, dict[str, str]] | None = None  # record and plots that `_card` was rendered from
        self._card = ""

    def write(self, folder: str | Path, record: RunRecord) -> None:
        """Write results.json and README.md into a folder, over whatever is there, with the plots that lie there.

        The card's hash is kept in the record, so that a card that somebody has edited since can be told.
        """
        # From the record as its file gives it back: the card can then be rendered again, to the same bytes.
        saved = record.as_saved()
        saved.card_sha256 = None
        plots = saved_plots(folder, saved)
        shown = saved.as_text(), plots
        if shown != self._shown:
            self._card = render_card(saved, plots=plots)
            self._shown = shown
        record.card_sha256 = _sha256(self._card)
        record.save(folder)
        atomic_write_text(Path(folder, CARD_FILE), self._card)


def write_own_card(folder: str | Path, record: RunRecord) -> None:
    """Write a record into a folder, and its card with the plots that lie there as README.md."""
    CardWriter().write(folder, record)


def has_own_card(folder: str | Path) -> bool:
    """Whether a folder's README.md is as it was rendered, or not there; one that was edited by hand is left alone."""
    card = Path(folder, CARD_FILE)
    if not card.is_file():
        return True
    record, text = load_record(folder), card.read_text(encoding="utf-8")
    if record.card_sha256 is not None:
        return _sha256(text) == record.card_sha256
    # A record from before the hash was kept. render_card takes the repository that `hf-unlearn card --repo_id` named
    # from the record.
    return text == render_card(record, plots=saved_plots(folder))


def saved_plots(folder: str | Path, record: RunRecord | None = None) -> dict[str, str]:
    """The plots of a run in its folder, by title, as the card shows them; none where they are of an earlier run.

    Args:
        folder: of the run.
        record: as `load_record` gives it; None for the one in the folder.
    """
    mark = Path(folder, PLOTS, PLOTS_OF)
    if not mark.is_file():
        return {}
    if mark.read_text(encoding="utf-8") != (record or load_record(folder)).figures_hash():
        return {}
    images = sorted(mark.parent.glob("*.png"))
    return {path.stem.replace("_", " ").capitalize(): f"{PLOTS}/{path.name}" for path in images}


def _sha256(card: str) -> str:
    return hashlib.sha256(card.encode()).hexdigest()
