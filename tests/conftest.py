"""The environment every test runs in: offline, one thread, caches of its own. Not fixtures of any one subject.

The settings come before the imports because torch, datasets and huggingface_hub read them when they are imported;
the processes that distributed tests launch inherit them.
"""

import gc
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

REPOSITORY = Path(__file__).resolve().parent.parent

# Kept from one session to the next, and shared by xdist's workers: the lab's models take a minute to make.
_cache = Path(os.environ.get("HF_UNLEARN_TEST_CACHE", REPOSITORY / ".cache" / "tests")).absolute()
os.environ["HF_HOME"] = str(_cache)
# Each of these would win over HF_HOME and let a developer's own caches into the tests.
for _name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_ASSETS_CACHE", "HF_MODULES_CACHE"):
    os.environ.pop(_name, None)

# Arrow caches live for one session: a stale one would hide a change in how rows are prepared. A worker inherits its
# controller's folder, which is removed when the controller exits.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _datasets_cache = tempfile.TemporaryDirectory(prefix="hf_unlearn_tests_", ignore_cleanup_errors=True)
    os.environ["HF_DATASETS_CACHE"] = _datasets_cache.name

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)

if not torch.accelerator.is_available():
    # For accelerators that are not there, torch keeps every seed with the text of the stack from which it was set.
    for _device in (torch.cuda, torch.xpu, torch.mtia):
        _device.traceback = SimpleNamespace(format_stack=list)


# The longest. The first two need labs of their own, which they build at the same time where there are none yet.
LONGEST = (
    "examples/test_copyright.py",
    "examples/test_privacy.py",
    "end_to_end/test_kinds.py",
    "evaluation/judges/test_training.py",
    "training/test_composition.py",
    "test_package.py",
    "cli/test_folders.py",
    "training/test_trainer_arguments.py",
    "training/test_invariances.py",
    "distributed/test_trajectories.py",
    "tasks/test_same_result.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: a worker takes whole files, and a long one begun last keeps the others waiting."""
    tests = Path(__file__).parent
    place = {tests / name: place for place, name in enumerate(LONGEST)}
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (place.get(item.path, len(place)), item.path not in slow))


def pytest_collection_finish() -> None:
    """Every run of Trainer collects garbage, and need not look through what hundreds of modules have imported."""
    gc.collect()
    gc.freeze()
