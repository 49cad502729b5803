"""What is built from the repository is whole: templates, recipes and configs are in it, and it works elsewhere."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGED = (
    "py.typed",
    "results/templates/*",
    "tasks/recipes/*.yaml",
    "tasks/recipes/edits/*.yaml",
    "tasks/recipes/methods/*.yaml",
    "training/launch/configs/*.yaml",
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel of the files that git has, built without a network; the checkout is left as it is."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    listing = ["git", "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listing, capture_output=True, check=True).stdout.decode().split("\0"):
        path = REPOSITORY / name
        if name and path.is_file() and name.split("/")[0] in ("hf_unlearn", *names_at_the_top()):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(path.read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    (found,) = output.glob("*.whl")
    return found


def names_at_the_top() -> list[str]:
    return [path.name for path in REPOSITORY.iterdir() if path.is_file()]


def test_the_wheel_has_every_packaged_file(wheel):
    inside = {name.removeprefix("hf_unlearn/") for name in zipfile.ZipFile(wheel).namelist()}
    package = REPOSITORY / "hf_unlearn"
    wanted = [path.relative_to(package).as_posix() for pattern in PACKAGED for path in package.glob(pattern)]
    assert len(wanted) > 40
    assert [name for name in wanted if name not in inside] == []
    modules = [path.relative_to(package).as_posix() for path in package.rglob("*.py")]
    assert [name for name in modules if name not in inside] == []


def test_twine_accepts_both(wheel):
    files = [str(path) for path in wheel.parent.iterdir()]
    assert len(files) == 2
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *files], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_works_from_the_wheel_alone(wheel, tmp_path):
    """As installed: no file of the checkout is on the path, and the folder is another one."""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    environment = os.environ | {"PYTHONPATH": str(site)}
    run = tmp_path / "run"
    common = ["--use_cpu", "--max_steps", "2", "--evaluated_rows", "8", "--output_dir", str(run)]
    lines = [
        ["train", "--config", "harmful_lab", *common],
        ["card", str(run)],
        ["report", str(run), "-o", str(tmp_path / "report.html")],
        ["push", str(run), "me/model", "--dry-run"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", f"from hf_unlearn.cli import main\nfor line in {lines!r}:\n    assert main(line) == 0"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "unlearning" in (run / "README.md").read_text(encoding="utf-8")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
