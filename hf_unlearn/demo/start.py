"""From the folders of runs to the page that is served: checks first, then models, then the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..results.report import verdict
from ..results.report.page import render
from .answers import ModelThread
from .blind import TallyFile
from .columns import Column, choose_device, load_columns
from .serve import choose_port, launch, require_gradio, warn_of_host
from .session import Session
from .sources import RunFolder, open_runs, sources_of

if TYPE_CHECKING:  # only where the extra is installed
    from gradio import Blocks


@dataclass(frozen=True)
class DemoOptions:
    """How the page is made and served.

    Attributes:
        models: roles of the models, of "before", "after", "oracle"; None for all that there are.
        before: place of the model before unlearning, where the run does not say.
        oracle: place of a model that has never seen the forget rows.
        device: where models answer; "auto" for an accelerator where there is one.
        dtype: of the weights, unquantised; None for what the run loads.
        host: to listen on.
        port: to listen on; None for the first that is free from 7860 on.
        tally: file that keeps votes; None keeps none.
        open_browser: open the page in the browser of this machine.
    """

    models: Sequence[str] | None = None
    before: str | None = None
    oracle: str | None = None
    device: str = "auto"
    dtype: str | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    tally: str | None = None
    open_browser: bool = False


def start(folders: Sequence[str], options: DemoOptions) -> None:
    """Serve the page on runs until it is interrupted.

    Args:
        folders: of the runs.
        options: of the page.

    Raises:
        ValueError: gradio is missing, a folder holds no run, a model or a port that cannot be had.
    """
    require_gradio()
    device, port = choose_device(options.device), choose_port(options.host, options.port)
    tally_file = None if options.tally is None else TallyFile(options.tally)
    runs = open_runs(folders)
    sources = sources_of(runs, options.models, before=options.before, oracle=options.oracle)
    columns = load_columns(sources, device, options.dtype)
    thread = ModelThread()
    try:
        page = page_of(runs, Session(columns, thread, tally_file))
        warn_of_host(options.host)
        address = launch(page, options.host, port, open_browser=options.open_browser, wait=False)
        print(f"{', '.join(column.name for column in columns)} on {device}: {address} (Ctrl+C ends it)", flush=True)
        page.block_thread()
    finally:
        thread.close()


def page_of(runs: Sequence[RunFolder], session: Session) -> "Blocks":
    """The page on some runs.

    Args:
        runs: whose report and verdicts it shows.
        session: their models.
    """
    from .page import build_page

    judged = [(run.title, verdict(run.run.record)) for run in runs]
    showable = dict.fromkeys(shown.prompt for run in runs for shown in run.run.showable)
    return build_page(
        session,
        title=f"Try the run {runs[0].title}" if len(runs) == 1 else f"Try {len(runs)} runs",
        verdicts=judged,
        report=render([run.run for run in runs]),
        showable=list(showable),
        templated=any(_is_templated(column) for column in session.columns),
    )


def _is_templated(column: Column) -> bool:
    return column.options.template is not None or column.tokenizer.chat_template is not None
