"""Write the notebooks of the walkthroughs from their pages, or with --check say whether they are up to date.

    python docs/make_notebooks.py            # writes docs/notebooks/*.ipynb
    python docs/make_notebooks.py --check    # writes nothing; exit status 1 when one is out of date

A Python block becomes a cell; one whose first line is a comment with a file's name (`# own.py`) a cell that writes
that file, as does a YAML block. A bash block becomes a cell of `!` lines. Everything else stays text: a page is the
only source.
"""

import argparse
import json
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
NOTEBOOKS = DOCS / "notebooks"

# The page of each notebook, and the heading at which the notebook ends where the page goes on with what is not run.
PAGES = {
    "harmful": ("walkthroughs/harmful.md", "With your own model"),
    "requests": ("requests.md", "With a model of your own"),
    "own_loss": ("walkthroughs/own_loss.md", None),
}
BLOCK = re.compile(r"^```(python|bash|yaml)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\S+\.(?:py|yaml))\n")
LINK = re.compile(r"\]\((?!\w+:|#)([^)\s]+)\)")
OWN_LINK = re.compile(r" *\[As a notebook\]\([^)]*\)\.")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def notebook(page: str, end: str | None) -> dict[str, Any]:
    """The notebook of a page, in format 4.5, without outputs."""
    text = OWN_LINK.sub("", (DOCS / page).read_text(encoding="utf-8"))
    if end is not None:
        text, found, _ = text.partition(f"\n## {end}\n")
        assert found, f"{page} has no heading {end!r}"
    # Links are those of a file in docs/notebooks.
    text = LINK.sub(lambda match: f"]({_moved(match[1], posixpath.dirname(page))})", text)
    cells, place = [], 0
    for block in BLOCK.finditer(text):
        cells += [_cell("markdown", text[place : block.start()]), _cell("code", _code(*block.groups()))]
        place = block.end()
    cells.append(_cell("markdown", text[place:]))
    whole = [cell for cell in cells if cell["source"]]
    for number, cell in enumerate(whole):
        cell["id"] = f"cell-{number}"
    return {"cells": whole, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}


def _moved(target: str, folder: str) -> str:
    path, mark, anchor = target.partition("#")
    return posixpath.relpath(posixpath.normpath(posixpath.join(folder, path)), "notebooks") + mark + anchor


def _cell(kind: str, text: str) -> dict[str, Any]:
    source = text.strip("\n").splitlines(keepends=True)
    more = {"execution_count": None, "outputs": []} if kind == "code" else {}
    return {"cell_type": kind, "metadata": {}, "source": source, **more}


def _code(language: str, code: str) -> str:
    named = FILE.match(code)
    if language == "bash":
        joined = code.replace("\\\n", "\x00")  # a command that goes on in the next line is one command
        lines = [f"!{line}" if line.strip() else "" for line in joined.splitlines()]
        return "\n".join(lines).replace("\x00", "\\\n")
    if named is not None:
        return f"%%writefile {named[1]}\n{code[named.end() :]}"
    assert language == "python", "a block of YAML begins with the name of its file"
    return code


def main(arguments: list[str] | None = None) -> int:
    """Write the notebooks, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 when one is out of date")
    check, status = parser.parse_args(arguments).check, 0
    NOTEBOOKS.mkdir(exist_ok=True)
    for name, (page, end) in PAGES.items():
        path, text = NOTEBOOKS / f"{name}.ipynb", json.dumps(notebook(page, end), indent=1, ensure_ascii=False) + "\n"
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        print(f"{path.name}: {'out of date; run python docs/make_notebooks.py' if check else 'written'}")
        if check:
            status = 1
        else:
            path.write_text(text, encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
