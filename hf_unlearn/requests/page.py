"""The page of an export: a ledger in, one HTML file out that loads nothing from elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from ..results.html_pages import html_environment
from .chain import Entry
from .page_facts import sections, timeline, weights_names
from .state import OPEN, fold

_TEMPLATE = "ledger.html.jinja"
# What a reader must not take from the page.
LIMITS = (
    "Suppression is not certified deletion. A request that was calibrated, or went on from a checkpoint, was brought "
    "to the level of rows that the model never saw, and measured there. A measurement does not prove that nothing is "
    "left: other wordings, other attacks or further training may bring back what seems forgotten.",
    "The exact ways (nothing to do, an adapter dropped, a training replayed) are exact only as far as the log of the "
    "training is complete. The log knows a row by its exact words; the same told in other words is another row.",
    "A verification speaks of the weights that are named beside it. Copies of earlier weights, checkpoints, backups "
    "and published models are not covered, and neither are databases, indexes, caches and logs that hold the rows.",
    "What is said of the same people in rows that no request names was not looked for.",
    "Dates of receipt are those that the keeper of the ledger wrote down.",
    "The hashes show that no line was changed since somebody else has known the last one. Who holds the only copy of "
    "a ledger could write all of it anew: keep this bundle, and compare the next one with it.",
)


@dataclass(frozen=True)
class BatchFiles:
    """The files of a batch that lie in the bundle, by what a link calls them, and what is missing."""

    batch: int
    files: dict[str, str]
    missing: list[str]


def render_page(entries: Sequence[Entry], batches: Sequence[BatchFiles], today: date) -> str:
    """The page as text.

    Args:
        entries: of the ledger.
        batches: what the bundle has of each batch that was done.
        today: the day on which it is made.
    """
    state = fold(entries)
    about = sections(state, entries, today)
    environment = html_environment("hf_unlearn.requests")
    return environment.get_template(_TEMPLATE).render(
        sections=about,
        open=len(state.with_status(OPEN)),
        late=sum(section.late and section.request.status == OPEN for section in about),
        batches=batches,
        weights=weights_names(entries),
        timeline=list(timeline(entries)),
        head=entries[-1],
        policy=state.opened.get("policy"),
        limits=LIMITS,
        today=today.isoformat(),
    )
