"""What mkdocs makes while it builds the site: the API pages, the command line, and links to files outside of docs/.

On GitHub a page links to any file of the repository. On the site such a file is carried along (a picture, a script),
or is a page of its own (`PAGES`); a folder has no page, so that its link becomes plain text.
"""

import contextlib
import io
import os
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]

# Files of the root that are pages of the site.
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}

# The public modules, a page of the API each; `results` has nothing of its own, but modules that have.
MODULES = (
    "attacks", "data", "edits", "evaluation", "lab", "losses", "metrics", "optimizers", "plugins", "requests", "steps",
    "suppression", "tasks", "unlearnable",
)  # fmt: skip
RESULTS = (
    "record", "evaluation_result", "attack_report", "lineage", "verdict", "gate", "hub", "model_card", "report",
)  # fmt: skip
API = {
    "hf_unlearn": ("hf_unlearn",),
    **{name: (f"hf_unlearn.{name}",) for name in MODULES},
    "results": tuple(f"hf_unlearn.results.{name}" for name in RESULTS),
}

# Code, where nothing is a link; then a link or picture of Markdown that is neither a web address nor within its page.
LINK = re.compile(
    r"(?P<code>^ *```.*?^ *```$|(?<!\[)`[^`\n]+`)"
    r"|(?P<mark>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:|#)(?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)",
    re.MULTILINE | re.DOTALL,
)
NESTED = re.compile(r"^( +)(?=[-*] )", re.MULTILINE)


def api_page(name: str) -> str:
    """The page of one public module, or of those of `hf_unlearn.results`."""
    modules = API[name]
    title = name if name == "hf_unlearn" else f"hf_unlearn.{name}"
    if len(modules) == 1:
        return f"# {title}\n\n::: {modules[0]}\n"
    parts = [f"## {module}\n\n::: {module}\n    options: {{heading_level: 3}}\n" for module in modules]
    return "\n".join([f"# {title}\n", *parts])


def help_text(*words: str) -> str:
    """What a command prints for `--help`, 80 columns wide."""
    from hf_unlearn.cli import main

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return printed.getvalue().rstrip()


def command_line_page() -> str:
    """Every command with its `--help`, commands of `request` included."""
    from hf_unlearn.cli import VERBS
    from hf_unlearn.cli.request import REQUEST_VERBS

    os.environ["COLUMNS"] = "80"
    commands = [(name,) for name in VERBS]
    place = commands.index(("request",)) + 1
    commands[place:place] = [("request", name) for name in REQUEST_VERBS]
    lines = ["# Command line", "", "What each command prints for `--help`.", "", _fenced(help_text())]
    for words in commands:
        lines += ["", f"{'#' * (len(words) + 1)} hf-unlearn {' '.join(words)}", "", _fenced(help_text(*words))]
    return "\n".join([*lines, ""])


def _fenced(text: str) -> str:
    return f"```text\n{text}\n```"


def source_of(page: str) -> str:
    """The file of the repository that a page of the site is made from."""
    return next((source for source, made in PAGES.items() if made == page), f"docs/{page}")


def place_of(path: str) -> str | None:
    """Where a file of the repository stands on the site; None for a folder, which has no place there."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if not (ROOT / path).is_file():
        return None
    return f"repository/{path}{'.txt' if path.endswith('.md') else ''}"  # as text: it is no page of the site


def linked(markdown: str, page: str) -> set[str]:
    """The files and folders of the repository that a page links to."""
    return {_target(match, page) for match in LINK.finditer(markdown) if not match["code"]}


def with_links(markdown: str, page: str, titles: Mapping[str, str] = MappingProxyType({})) -> str:
    """The text of a page with links as they are on the site; what is code stays as it is.

    Args:
        titles: of pages, by their files; a link whose text is the name of a file gets the title of its page.
    """

    def moved(match: re.Match[str]) -> str:
        if match["code"]:
            return match[0]
        path = _target(match, page)
        place = place_of(path)
        if place is None:
            return match["text"] if (ROOT / path).is_dir() else match[0]  # a file that is not there: mkdocs says so
        target = posixpath.relpath(place, posixpath.dirname(page) or ".")
        text = titles.get(place, match["text"]) if match["text"].endswith(".md") else match["text"]
        return f"{match['mark']}[{text}]({target}{match['anchor'] or ''})"

    return LINK.sub(moved, markdown)


def _target(match: re.Match[str], page: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(source_of(page)), match["target"]))


def titles_of(navigation: list[dict[str, Any]]) -> dict[str, str]:
    """The title of each page of a navigation as mkdocs.yml has it, by its file."""
    titles: dict[str, str] = {}
    for entry in navigation:
        for name, value in entry.items():
            titles |= {value: name} if isinstance(value, str) else titles_of(value)
    return titles


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made and the files that pages link to."""
    made = {f"api/{name}.md": api_page(name) for name in API}
    made["reference/command_line.md"] = command_line_page()
    made |= {page: (ROOT / source).read_text(encoding="utf-8") for source, page in PAGES.items()}
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    pages = {file.src_uri: file.content_string for file in files.documentation_pages()}
    paths = {path for page, text in pages.items() for path in linked(text, page)}
    for path in sorted(paths):
        place = place_of(path)
        if place is not None and place.startswith("repository/"):
            files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Links as they are on the site; nested lists with the four spaces that Python-Markdown wants (GitHub: two)."""
    if page.is_homepage:  # not in the page itself, where GitHub would show it
        page.meta["hide"] = ["navigation", "toc"]
    nested = NESTED.sub(lambda match: match[1] * 2, markdown)
    return with_links(nested, page.file.src_uri, titles_of(config.nav))


def on_post_page(output: str, **_: Any) -> str:
    """The name of the search, which the theme gives it none of."""
    search = 'data-md-component="search" role="dialog"'
    return output.replace(search, f'{search} aria-label="Search"')
