"""The page of a report: runs in, one HTML file out that loads nothing from elsewhere.

The same folders give the same bytes: no time, no path, no random id stands in the page.
"""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ...errors import input_error
from ..files import atomic_write_text
from ..html_pages import html_environment
from ..verdict import GLOSSARY, verdict_rules
from .interactive import scripts_of
from .overview import by_method, measured, method_groups, planes_of
from .read import Run, read_run
from .sections import charts_of, section_of

_TEMPLATE = "report.html.jinja"


def write_report(folders: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str]) -> Path:
    """One HTML page of one or several runs.

    Args:
        folders: of the runs, each with a results.json.
        output: the file to write; its folder is made where it is missing.

    Returns:
        the path of the page.

    Raises:
        ValueError: no folders, a folder without a run, or an output that is a folder.
    """
    named = [folders] if isinstance(folders, str | os.PathLike) else list(folders)
    target = Path(output)
    if not named:
        raise _no_folders()
    if target.is_dir():
        raise input_error(
            expected="a file to write the report to",
            got=f"{target.name or 'the current folder'}, which is a folder",
            why="a report is one HTML file",
            fix='write_report(folders, "report.html")',
        )
    page = render([read_run(folder) for folder in named])
    return atomic_write_text(target, page)


def render(runs: Sequence[Run]) -> str:
    """The page as text."""
    ordered = by_method(runs)
    numbered = enumerate(zip(ordered, _titles(ordered), strict=True), 1)
    alone = len(runs) == 1
    sections = [section_of(i, run, title, alone=alone) for i, (run, title) in numbered]
    environment = html_environment()
    planes = None if alone else planes_of(sections)
    results = [section.evaluated for section in sections if section.evaluated is not None]
    return environment.get_template(_TEMPLATE).render(
        sections=sections,
        groups=method_groups(sections),
        planes=planes,
        rules=verdict_rules(results),
        glossary=GLOSSARY,
        measured=measured,
        scripts=scripts_of(charts_of(sections, {} if planes is None else planes.drawings)),
    )


def _titles(runs: Sequence[Run]) -> list[str]:
    """The runs' names; those of one name are told apart by a number."""
    counts, taken = Counter(run.title for run in runs), Counter[str]()
    titles = []
    for run in runs:
        taken[run.title] += 1
        titles.append(run.title if counts[run.title] == 1 else f"{run.title} ({taken[run.title]})")
    return titles


def _no_folders() -> ValueError:
    return input_error(
        expected="the folder of at least one run",
        got="none",
        why="a report is made of what lies in the folders of runs",
        fix='write_report(["unlearned"], "report.html")',
    )
