"""What a model card cites: an entry for every paper that the code names, well formed and of that paper. No network."""

import re
from pathlib import Path

import pytest

from hf_unlearn.losses import FORGET_LOSSES, RETAIN_LOSSES
from hf_unlearn.steps import STEP_WRAPPERS
from hf_unlearn.steps.weighting import WEIGHTINGS

PACKAGE = Path(__file__).resolve().parents[3] / "hf_unlearn"
TEXT = (PACKAGE / "results" / "templates" / "citations.bib").read_text(encoding="utf-8")
ITSELF = "hf_unlearn"  # has no author and no paper

PARTS = {
    f"{kind}/{name}": part
    for kind, parts in {
        "forget loss": FORGET_LOSSES,
        "retain loss": RETAIN_LOSSES,
        "step wrapper": STEP_WRAPPERS,
        "weighting": WEIGHTINGS,
    }.items()
    for name, part in parts.items()
}
ARXIV_ID = re.compile(r"(?:arXiv:|arxiv\.org/abs/)(\d{4}\.\d{4,5})", re.IGNORECASE)
# "Maini et al. 2024 (TOFU), arXiv:2401.06121" in code and docstrings: first author, year and id.
CITATION = re.compile(
    r"([A-Z][\w-]+)(?: et al\.)? (\d{4})(?: \(\w+\))?,\s+(?:arXiv:|https://arxiv\.org/abs/)(\d{4}\.\d{4,5})"
)
ACCENT = re.compile(r"\{\\[`'^\"~](\w)\}")


def entries_of(text: str) -> list[dict[str, str]]:
    """The entries with their fields, `key` and `type`: each closes with a brace at the start of a line."""
    entries = []
    for kind, key, body in re.findall(r"^@(\w+)\{(\w+),\n(.*?)^\}$", text, re.MULTILINE | re.DOTALL):
        fields = re.findall(r"^  (\w+) = \{(.*?)\},$", body, re.MULTILINE | re.DOTALL)
        assert len(fields) == len(dict(fields)), f"{key} has a field twice"
        entries.append({"type": kind, "key": key, **{name: " ".join(value.split()) for name, value in fields}})
    return entries


ENTRIES = entries_of(TEXT)
PAPERS = {entry["eprint"]: entry for entry in ENTRIES if "eprint" in entry}


def first_author(entry: dict[str, str]) -> str:
    """The last word of the first author's name."""
    return ACCENT.sub(r"\1", entry["author"].split(" and ")[0]).split()[-1]


def unbalanced(text: str) -> bool:
    """Whether a brace closes what is not open, or is never closed."""
    depth = 0
    for brace in re.findall(r"[{}]", text):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return True
    return depth != 0


def unprotected(title: str) -> list[str]:
    """Words whose capitals BibTeX would lower: capitals after a first letter, or after a colon, outside braces."""
    bare = re.sub(r"\{[^{}]*\}", "", title)
    return re.findall(r"[A-Za-z]+[A-Z]\w*|(?<=: )[A-Z]\w*", bare)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_names_a_paper_can_be_cited(part):
    ids = ARXIV_ID.findall(PARTS[part].paper)
    assert bool(ids) == bool(PARTS[part].paper)
    assert [paper for paper in ids if paper not in PAPERS] == []


def test_every_paper_that_the_package_names_can_be_cited():
    named = {paper for path in PACKAGE.rglob("*.py") for paper in ARXIV_ID.findall(path.read_text(encoding="utf-8"))}
    assert len(named) > 30
    assert sorted(named - set(PAPERS)) == []


def test_an_entry_is_of_the_author_and_the_year_that_the_code_names():
    cited = {found for path in PACKAGE.rglob("*.py") for found in CITATION.findall(path.read_text(encoding="utf-8"))}
    assert ("Zhang", "2024", "2404.05868") in cited and ("Yang", "2025", "2503.01224") in cited
    entries = {(first_author(PAPERS[paper]), PAPERS[paper]["year"], paper) for _, _, paper in cited}
    assert sorted(cited - entries) == []


def test_every_entry_is_read():
    assert len(ENTRIES) == TEXT.count("\n@") > 40
    for entry in ENTRIES:
        assert entry["type"] in {"misc", "inproceedings", "software"}
        assert entry.keys() >= ({"title", "year"} if entry["key"] == ITSELF else {"title", "author", "year"})
        assert all(entry.values())
    assert TEXT.count(" = {") == sum(len(entry) - 2 for entry in ENTRIES)


def test_keys_and_papers_are_named_once():
    keys = [entry["key"] for entry in ENTRIES]
    assert len(set(keys)) == len(keys)
    assert len(PAPERS) == sum("eprint" in entry for entry in ENTRIES)
    titles = [entry["title"].lower() for entry in ENTRIES]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize(
    "entry", [entry for entry in ENTRIES if entry["key"] != ITSELF], ids=lambda entry: entry["key"]
)
def test_an_entry_is_well_formed(entry):
    assert re.fullmatch(r"\d{4}", entry["year"])
    assert entry["key"].rsplit("_", 1)[0] == f"{first_author(entry).lower()}_{entry['year']}"
    assert ("booktitle" in entry) == (entry["type"] == "inproceedings")
    assert "et al" not in entry["author"]
    if "eprint" in entry:
        assert re.fullmatch(r"\d{4}\.\d{4,5}", entry["eprint"]) and entry["archiveprefix"] == "arXiv"
        assert int(entry["year"]) - 2000 - int(entry["eprint"][:2]) in {0, 1}  # a venue may follow in the next year
    else:
        assert "url" in entry or "doi" in entry
    assert unprotected(entry["title"]) == []


def test_the_package_cites_itself():
    itself = next(entry for entry in ENTRIES if entry["key"] == ITSELF)
    assert itself["type"] == "software" and itself["license"] == "Apache-2.0"
    assert "author" not in itself and "url" not in itself


def test_braces_balance_and_letters_are_ascii():
    assert TEXT.isascii()
    assert not unbalanced(TEXT)
    assert [entry["key"] for entry in ENTRIES if any(map(unbalanced, entry.values()))] == []


def test_what_is_wrong_is_found():
    assert unbalanced("{a}}{") and unbalanced("{a") and not unbalanced("{a {B}}")
    assert unprotected("TOFU: A Task for LLMs") == ["TOFU", "A", "LLMs"]
    assert unprotected("{TOFU}: {A} Task for {LLMs} and {Min-K\\%++}") == []
    with pytest.raises(AssertionError, match="a_2024_b has a field twice"):
        entries_of("@misc{a_2024_b,\n  year = {2024},\n  year = {2025},\n}\n")
