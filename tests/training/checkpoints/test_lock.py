"""One run at a time in an output folder: by a lock that dies with its process, and that one process may share."""

import os
import socket
import subprocess
import sys

import pytest
from filelock import FileLock

from fixtures.models import make_trainer, tiny_model
from hf_unlearn.training.checkpoints import lock
from hf_unlearn.training.checkpoints.lock import LOCK_FILE

PARTS = r"Expected (.|\n)*Got: (.|\n)*Why it matters: (.|\n)*What to do: "
# A process that takes a folder's lock, says whether it could, and keeps it until it is ended.
HOLDS = """
import sys, time
from filelock import FileLock, Timeout
try:
    lock = FileLock(sys.argv[1], timeout=0)
    lock.acquire()
except Timeout:
    sys.exit("taken")
print("holds", flush=True)
time.sleep(60)
"""


def holder(folder) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", HOLDS, str(folder / LOCK_FILE)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.first_word = process.stdout.readline().strip()
    return process


def test_two_processes_cannot_train_into_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_PATIENCE", 0.1)
    out = tmp_path / "out"
    other = holder(out)
    assert other.first_word == "holds"
    trainer = make_trainer(tmp_path, tiny_model())
    for call in (trainer.train, trainer.save_model):
        with pytest.raises(ValueError, match=PARTS) as caught:
            call()
        assert str(out) in str(caught.value)
    trainer.save_model(str(tmp_path / "elsewhere"))
    other.kill()  # as a crash: nothing releases the lock but the system
    other.wait()
    trainer.train()
    assert holder(out).first_word == "", "the second process was let in"
    # Another trainer of this process shares it; one that was only built never takes it.
    second = make_trainer(tmp_path, tiny_model())
    second.train()
    trainer.end()
    assert holder(out).first_word == ""
    second.end()
    last = holder(out)
    assert last.first_word == "holds"
    last.kill()
    last.wait()


def test_the_other_process_is_named_where_the_lock_says_it(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_PATIENCE", 0.0)
    held = lock.lock_folder(tmp_path)
    file = tmp_path / LOCK_FILE
    assert file.read_text() == f"process {os.getpid()} on {socket.gethostname()}"
    held.release()
    for text, name in ((b"process 7 on node3", "process 7 on node3"), (b"", "another process"), (b"\xff", "another")):
        file.write_bytes(text)
        with FileLock(file, is_singleton=False), pytest.raises(ValueError, match=PARTS) as error:
            lock.lock_folder(tmp_path)
        assert f"one whose lock {name}" in str(error.value)


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, caplog):
    def acquire(self):
        raise NotImplementedError("flock")

    monkeypatch.setattr(lock.FileLock, "acquire", acquire)
    assert lock.lock_folder(tmp_path) is None
    assert "has no locks" in caplog.text
