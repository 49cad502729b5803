"""Rows from small files made here, from saved folders, from two public sets' columns. Nothing is downloaded."""

from pathlib import Path

import datasets
import pytest
from datasets import Dataset, DatasetDict
from datasets.exceptions import DatasetNotFoundError

from hf_unlearn.data.sources import load_rows, pku_saferlhf_rows, truthfulqa_rows

RENAMED = {"question": "prompt", "answer": "completion"}
ROWS = [{"prompt": "où?", "completion": "None"}, {"prompt": "{q}", "completion": "1945"}]
BOM = "\ufeff"

FILES = {
    "rows.jsonl": '{"question": "où?", "answer": "None", "n": 1}\n{"question": "{q}", "answer": "1945", "n": 2}\n',
    "lines.json": '{"question": "où?", "answer": "None"}\n{"question": "{q}", "answer": "1945"}\n',
    "array.json": '[{"question": "où?", "answer": "None"},\n {"question": "{q}", "answer": "1945"}]',
    "rows.csv": 'n,question,answer\n1,"où?",None\n2,{q},1945\n',
}


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("mark", ["", BOM], ids=["plain", "bom"])
def test_files_give_the_same_rows(tmp_path: Path, name: str, mark: str) -> None:
    rows = load_rows(write(tmp_path / name, mark + FILES[name]), columns=RENAMED)
    assert rows.to_list() == ROWS
    assert rows.column_names == ["prompt", "completion"]


def test_half_of_a_row_that_has_its_name_stays_beside_the_half_that_is_renamed(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", '{"prompt": "q", "safe": "no", "unsafe": "a", "completion": "c"}\n')
    assert load_rows(file, columns={"unsafe": "completion"}).to_list() == [{"prompt": "q", "completion": "a"}]
    assert load_rows(file, columns={"safe": "prompt"}).to_list() == [{"prompt": "no", "completion": "c"}]
    assert load_rows(file, columns={"unsafe": "text"}).to_list() == [{"text": "a"}]
    swapped = {"prompt": "completion", "unsafe": "prompt"}
    assert load_rows(file, columns=swapped).to_list() == [{"prompt": "a", "completion": "q"}]


def test_parquet_and_saved_folders_give_the_same_rows(tmp_path: Path) -> None:
    dataset = Dataset.from_list(ROWS)
    dataset.to_parquet(tmp_path / "rows.parquet")
    dataset.save_to_disk(tmp_path / "saved")
    DatasetDict(forget=dataset, retain=dataset.select([1])).save_to_disk(tmp_path / "splits")
    assert load_rows(str(tmp_path / "rows.parquet")).to_list() == ROWS
    assert load_rows(tmp_path / "saved").to_list() == ROWS
    assert load_rows(tmp_path / "splits", split="retain").to_list() == ROWS[1:]
    with pytest.raises(ValueError, match="did you mean 'retain'"):
        load_rows(tmp_path / "splits", split="retian")


def test_text_is_one_row_a_line_or_a_paragraph(tmp_path: Path) -> None:
    path = write(tmp_path / "book.txt", BOM + "One\r\n\r\ntwo\r\nthree\r\n \r\n")
    assert load_rows(path)["text"][:] == ["One", "two", "three"]
    path = write(tmp_path / "paragraphs.txt", BOM + "One\n\ntwo\nthree\n\n\nfour")
    assert [text.strip() for text in load_rows(path, text_unit="paragraph")["text"]] == ["One", "two\nthree", "four"]


def test_every_value_of_a_csv_is_the_string_it_was(tmp_path: Path) -> None:
    rows = load_rows(write(tmp_path / "rows.csv", BOM + "prompt,completion\na,1945\nb,007\n,\n"))
    assert rows.to_dict() == {"prompt": ["a", "b", ""], "completion": ["1945", "007", ""]}


def test_a_book_in_one_csv_field(tmp_path: Path) -> None:
    path = write(tmp_path / "book.csv", f"text\n{'word ' * 40_000}\n")
    assert len(load_rows(path)[0]["text"]) == 200_000


def test_limit_and_seed(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", "text\n" + "\n".join(f"row{i}" for i in range(20)))
    assert load_rows(path, limit=2)["text"][:] == ["row0", "row1"]
    assert len(load_rows(path, limit=50)) == 20
    drawn = load_rows(path, limit=5, seed=3)["text"][:]
    assert drawn == load_rows(path, limit=5, seed=3)["text"][:]
    assert drawn not in (load_rows(path, limit=5)["text"][:], load_rows(path, limit=5, seed=4)["text"][:])
    assert load_rows(path, split="train[:3]")["text"][:] == ["row0", "row1", "row2"]
    with pytest.raises(ValueError, match="limit must be a whole number of at least 1"):
        load_rows(path, limit=0)


def test_unknown_column_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'question'"):
        load_rows(write(tmp_path / "rows.csv", FILES["rows.csv"]), columns={"Question": "prompt"})


@pytest.mark.parametrize("source", ["missing.jsonl", "./missing", "/missing", "a/b/c", "~/missing", "a\\b.csv"])
def test_missing_file_says_what_was_looked_for(source: str) -> None:
    with pytest.raises(ValueError, match=r"(?s)where there is no file.*looked for /"):
        load_rows(source)


def test_folder_without_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a folder without a saved dataset"):
        load_rows(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.jsonl", b""),
        ("blank.txt", b"\n  \n"),
        ("broken.json", b'{"text": "zyzzyva"\n'),
        ("longer.csv", b"a,b\n1,2\n3,4,zyzzyva\n"),
        ("shifted.csv", b"a,b\n1,2,zyzzyva\n"),
        ("twice.csv", b"a,a\n1,zyzzyva\n"),
        ("latin.csv", b"\xe9,b\nzyzzyva,2\n"),
        ("latin.txt", b"zyzzyva \xe9"),
    ],
)
def test_unreadable_file_is_named_and_not_quoted(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"Expected {name} to hold rows") as error:
        load_rows(tmp_path / name)
    assert "zyzzyva" not in str(error.value)
    assert error.value.__suppress_context__ or error.value.__context__ is None


def test_unknown_ending(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.jsonl, \.json, \.csv, \.parquet, \.txt"):
        load_rows(write(tmp_path / "rows.docx", "x"))


def test_hub_id_reaches_load_dataset_with_its_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load_dataset(*args: str, **kwargs: str) -> Dataset:
        calls.append((args, kwargs))
        return Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    load_rows("owner/name", name="forget10", split="test", revision="abc123", data_dir="d")
    assert calls == [(("owner/name", "forget10"), {"split": "test", "revision": "abc123", "data_dir": "d"})]


def test_unknown_hub_id(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*args: str, **kwargs: str) -> Dataset:
        raise DatasetNotFoundError("owner/nmae")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ValueError, match="'owner/nmae', which is neither here nor on the Hub"):
        load_rows("owner/nmae")


def pku(labels: list[tuple[bool | None, bool | None]]) -> Dataset:
    columns = {
        "prompt": [f"q{i}" for i in range(len(labels))],
        "response_0": [f"a{i}" for i in range(len(labels))],
        "response_1": [f"b{i}" for i in range(len(labels))],
        "is_response_0_safe": [first for first, _ in labels],
        "is_response_1_safe": [second for _, second in labels],
        "better_response_id": [0] * len(labels),
    }
    return Dataset.from_dict(columns)


def test_pku_saferlhf_has_a_row_for_each_unsafe_response() -> None:
    rows = pku_saferlhf_rows(pku([(False, True), (True, True), (False, False), (None, False)]))
    assert rows.to_list() == [
        {"prompt": "q0", "completion": "a0"},
        {"prompt": "q2", "completion": "a2"},
        {"prompt": "q2", "completion": "b2"},
        {"prompt": "q3", "completion": "b3"},
    ]


def test_pku_saferlhf_errors() -> None:
    with pytest.raises(ValueError, match=r"a response labelled unsafe.*\nGot: none in 1 rows"):
        pku_saferlhf_rows(pku([(True, True)]))
    with pytest.raises(ValueError, match="a column 'is_response_1_safe'"):
        pku_saferlhf_rows(pku([(True, True)]).remove_columns("is_response_1_safe"))


CSV = {
    "Question": ["q1 ", "q2"],
    "Best Answer": ["a1", "a2"],
    "Correct Answers": ["a1; b1;", "a2"],
    "Source": ["", ""],
}
HUB = {"question": ["q1", "q2"], "best_answer": ["a1", "a2"], "correct_answers": [["a1", "b1"], ["a2"]]}


@pytest.mark.parametrize("columns", [CSV, HUB], ids=["csv", "hub"])
def test_truthfulqa_rows(columns: dict) -> None:
    dataset = Dataset.from_dict(columns)
    best = [{"prompt": "q1", "completion": "a1"}, {"prompt": "q2", "completion": "a2"}]
    assert truthfulqa_rows(dataset).to_list() == best
    all_correct = truthfulqa_rows(dataset, which="all_correct").to_list()
    assert all_correct == [best[0], {"prompt": "q1", "completion": "b1"}, best[1]]


def test_truthfulqa_errors() -> None:
    with pytest.raises(ValueError, match="did you mean 'all_correct'"):
        truthfulqa_rows(Dataset.from_dict(CSV), which="correct")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="did you mean 'best_answers'"):
        truthfulqa_rows(Dataset.from_dict({"question": ["q"], "best_answers": ["a"]}))
