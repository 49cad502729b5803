"""What of other libraries a user of a command is not told, and what is told all the same."""

import io
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from hf_unlearn.tasks import library_noise
from hf_unlearn.tasks.library_noise import quiet_libraries


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def put_back() -> None:
    """The filter of DeepSpeed's log is taken off again; pytest does it with those of warnings."""
    logger = logging.getLogger("DeepSpeed")
    before = list(logger.filters)
    yield
    logger.filters[:] = before


def told(message: str, module: str, category: type[Warning] = FutureWarning) -> bool:
    """Whether a warning that a module gives is shown."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet_libraries()
        warnings.warn_explicit(message, category, "file.py", 1, module=module)
    return bool(caught)


def test_a_name_that_peft_asks_for_is_not_told_and_anything_else_is() -> None:
    words = "`is_gradient_checkpointing` is deprecated and will be removed in v6."
    assert not told(words, "transformers.modeling_utils")
    assert told(words, "somebody.elses")
    assert told(words, "transformers.modeling_utils", UserWarning)
    assert told("`use_cache` is deprecated", "transformers.modeling_utils")


def test_a_machine_without_an_accelerator_is_not_told_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    quiet_libraries()
    quiet_libraries()
    logger = logging.getLogger("DeepSpeed")
    assert logger.filters.count(library_noise._worth_telling) == 1
    monkeypatch.setattr(library_noise, "_NVIDIA_DRIVER", tmp_path / "none")
    logger.warning("Setting accelerator to CPU. If you have GPU or other accelerator, we were unable to detect it.")
    logger.warning("another one")
    assert caplog.messages == ["another one"]
    monkeypatch.setattr(library_noise, "_NVIDIA_DRIVER", tmp_path)  # there is a driver, and its GPU was not found
    logger.warning("Setting accelerator to CPU. If you have GPU or other accelerator, we were unable to detect it.")
    assert len(caplog.messages) == 2


def test_the_bars_of_libraries_stay_out_of_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"]
    for name in names:
        monkeypatch.setenv(name, "")  # so that they are put back
        monkeypatch.delenv(name)
    with monkeypatch.context() as there:
        there.setattr(sys, "stderr", Terminal())
        quiet_libraries()
        assert not {*names} & {*os.environ}
    quiet_libraries()
    assert [os.environ[name] for name in names] == ["1", "1"]
    monkeypatch.setenv(names[0], "0")
    quiet_libraries()
    assert os.environ[names[0]] == "0"
    code = "import datasets, transformers; from transformers.utils import logging; "
    code += "print(logging.is_progress_bar_enabled(), datasets.are_progress_bars_disabled())"
    monkeypatch.setenv(names[0], "1")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
