"""The log of a training is read as it was written; a changed, missing or torn line is not."""

import os

import pytest

from fixtures.training_logs import ROWS, saved, step, write
from hf_unlearn.unlearnable.lines import LineWriter, read_lines
from hf_unlearn.unlearnable.log import ENDED, RESUMED, read_log
from hf_unlearn.unlearnable.places import make_salt, rows_file, steps_file

CHAT = [{"role": "user", "content": "city 1?"}, {"role": "assistant", "content": "answer 1"}]


def test_steps_of_rows_in_any_format_and_checkpoints_that_are_left(tmp_path):
    folder, ended = tmp_path / "log", {"event": ENDED, "sha256": "1" * 64}
    write(folder, step(1, [0, 1], [2]), saved(1), step(2, [3], [6]), saved(2), step(3, [1, 5]), ended)
    (tmp_path / "out" / "checkpoint-1").mkdir(parents=True)
    log = read_log(folder)
    assert log.steps_of([{"messages": CHAT}]) == log.steps_of(log.digests([ROWS[1]])) == [1, 3]
    assert log.steps_of([{"text": "x"}]) == [2, 3]  # both places of the row
    assert log.places([{"text": " x"}]) == [5, 6]
    assert log.first_step(ROWS[3:4]) == 2 and log.first_step([ROWS[4], {"text": "y"}]) is None
    assert log.never_trained([ROWS[0], ROWS[4]]) == log.digests([ROWS[4]])
    assert (log.total_steps, log.rows_logged, log.finished, log.start) == (3, 7, True, "0" * 64)
    before = tmp_path / "out" / "checkpoint-1"
    assert log.checkpoint_before(3) == before  # checkpoint-2 is gone
    assert log.checkpoint_before(2) == before and log.checkpoint_before(1) is None
    assert log.checkpoint_before(3, whole=True) is None  # it has no optimizer
    assert log.end == "1" * 64 and log.checkpoint_steps == [0] and log.weights is None
    assert [log.first_steps.get(digest) for digest in log.digests(ROWS)] == [1, 1, 1, 2, None, 2, 2]
    assert os.stat(folder / "salt").st_mode & 0o777 == 0o600
    assert "answer" not in "".join(path.read_text() for path in folder.rglob("*.[jt]*"))


def test_rows_of_another_form_are_not_called_never_trained(tmp_path):
    """The same words as preferences or tokens have other digests, so that no answer is better than "never"."""
    write(tmp_path, step(1, [0, 1]))
    log = read_log(tmp_path)
    assert log.steps_of([{"question": " city 1?", "answer": "answer 1"}, {"messages": [*CHAT, *CHAT]}]) == [1]
    for row in (
        {"prompt": "city 1?", "chosen": "x", "rejected": " answer 1"},
        {"input_ids": [1], "labels": [1]},
        {"chosen": "x", "rejected": "y"},
    ):
        with pytest.raises(ValueError, match="rows as they were logged: text, turns"):
            log.first_step([row])


def test_steps_that_were_trained_again_count_once_and_a_torn_line_not_at_all(tmp_path):
    write(tmp_path, step(1, [0]), saved(1), step(2, [1]), step(3, [2]), saved(3))
    whole = read_log(tmp_path)
    with open(steps_file(tmp_path, 0), "ab") as stream:
        stream.write(b'{"event":"step","step":4')
    assert read_log(tmp_path).steps == whole.steps and not whole.finished
    writer = LineWriter(steps_file(tmp_path, 0), make_salt(tmp_path))
    writer.add({"event": RESUMED, "step": 1})
    writer.add(step(2, [4]))
    log = read_log(tmp_path)
    assert [own.number for own in log.steps] == [1, 2] and log.sha256 != whole.sha256
    assert log.steps_of(ROWS[1:3]) == [] and log.steps_of(ROWS[4:5]) == [2]
    assert [*log.saved] == [1]


def test_ranks_are_put_together_up_to_the_last_step_of_all(tmp_path):
    write(tmp_path, step(1, [0]), step(2, [1]), ranks=2)
    with pytest.raises(ValueError, match=r"no steps-1\.jsonl"):
        read_log(tmp_path)
    write(tmp_path, step(1, [2]), ranks=2, rank=1)
    log = read_log(tmp_path)
    assert [own.rows for own in log.steps] == [{"train": [[[0]], [[2]]]}]


@pytest.mark.parametrize("change", ["changed", "missing", "swapped", "cut", "foreign"])
def test_a_changed_line_is_named(tmp_path, change):
    write(tmp_path, step(1, [0]), step(2, [1]), step(3, [2]))
    file = steps_file(tmp_path, 0)
    lines = file.read_bytes().split(b"\n")
    wrong = {
        "changed": [*lines[:2], lines[2].replace(b"[1]", b"[3]"), *lines[3:]],
        "missing": lines[:2] + lines[3:],
        "swapped": [*lines[:2], lines[3], lines[2], b""],
        "cut": [*lines[:2], lines[2][:-1], *lines[3:]],
        "foreign": [*lines[:2], b"{}", *lines[3:]],
    }[change]
    file.write_bytes(b"\n".join(wrong))
    with pytest.raises(ValueError, match=r"line 3 of steps-0\.jsonl is not as it was written"):
        read_log(tmp_path)
    lines, problem = read_lines(file, b"another salt")
    assert lines == [] and "line 1" in problem


def test_other_digests_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no log and no cohorts"):
        read_log(tmp_path)
    write(tmp_path, step(1, [0]))
    rows_file(tmp_path, "train").write_text("0" * 64 + "\n")
    with pytest.raises(ValueError, match=r"train\.txt with other digests"):
        read_log(tmp_path)
