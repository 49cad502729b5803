"""What is refused of an output folder before a run: a file, and the other kind of model."""

from pathlib import Path

import pytest

from fixtures.examples import assert_four_parts
from hf_unlearn import UnlearningConfig
from hf_unlearn.tasks.task import require_output


def arguments(folder: Path) -> UnlearningConfig:
    return UnlearningConfig(output_dir=str(folder), report_to="none", use_cpu=True)


@pytest.mark.parametrize(
    ("file", "adapter", "refused"),
    [
        ("model.safetensors", True, True),
        ("model.safetensors.index.json", True, True),
        ("adapter_model.safetensors", False, True),
        ("adapter_model.safetensors", True, False),
        ("model.safetensors", False, False),
        ("results.json", True, False),
    ],
)
def test_a_folder_holds_one_kind_of_model(tmp_path, file, adapter, refused):
    (tmp_path / file).write_bytes(b"")
    if not refused:
        require_output(arguments(tmp_path), adapter=adapter)
        return
    with pytest.raises(ValueError) as error:
        require_output(arguments(tmp_path), adapter=adapter)
    assert_four_parts(str(error.value), "--output_dir", file)


def test_a_file_is_no_folder(tmp_path):
    file = tmp_path / "out"
    file.write_bytes(b"")
    with pytest.raises(ValueError) as error:
        require_output(arguments(file), adapter=True)
    assert_four_parts(str(error.value), "--output_dir", "a file")
    require_output(arguments(tmp_path / "new"), adapter=True)
