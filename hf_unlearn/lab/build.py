"""The lab on disk: built once, found again by the hash of all that went into it. What it is made of lies beside."""

import hashlib
import json
import os
import platform
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import datasets
import tokenizers
import torch
import transformers
from datasets import Dataset
from filelock import FileLock
from huggingface_hub import constants
from transformers import AutoTokenizer, OPTForCausalLM, PreTrainedTokenizerFast

from hf_unlearn.errors import input_error
from hf_unlearn.lab.checks import measure, require_rates
from hf_unlearn.lab.corpus import Row, build_corpus
from hf_unlearn.lab.judge import JUDGE_RULES
from hf_unlearn.lab.training import Recipe, reproducible, train_model, train_tokenizer

RECORD = "lab.json"  # written last: a folder that has it is whole
SETS = ("forget", "retain", "paraphrase", "holdout")


@dataclass(frozen=True, eq=False)
class Lab:
    """A small model that shows a made-up behaviour, its oracle retrained without it, and their data.

    Attributes:
        path: the lab's folder in the cache.
        seed: of the corpus and of both models.
        datasets: `forget` and `retain` (`prompt`, `completion`, `alternate`: a refusal), `paraphrase` (row i asks
            forget row i in a wording not trained on) and `holdout` (rows like forget's that neither model has seen).
        checks: what was measured when the lab was built; the names are explained at `checks.measure`.
        build_seconds: wall-clock time of building both models and measuring them.
    """

    path: Path
    seed: int
    datasets: dict[str, Dataset]
    checks: dict[str, float]
    build_seconds: float

    @property
    def model_path(self) -> Path:
        """The folder of the model before unlearning, which was trained on forget and retain."""
        return self.path / "model"

    @property
    def oracle_path(self) -> Path:
        """The folder of the oracle: the same recipe and seed, trained on retain alone."""
        return self.path / "oracle"

    def load_model(self) -> OPTForCausalLM:
        """A fresh copy of the model before unlearning, in fp32 and evaluation mode."""
        return OPTForCausalLM.from_pretrained(self.model_path)

    def load_oracle(self) -> OPTForCausalLM:
        """A fresh copy of the retrained oracle, in fp32 and evaluation mode."""
        return OPTForCausalLM.from_pretrained(self.oracle_path)

    def load_tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer of both models: `<pad>` = 0, `<s>` = 1, `</s>` = 2, no chat template."""
        return AutoTokenizer.from_pretrained(self.model_path)


def load_lab(cache_dir: str | os.PathLike[str] | None = None, seed: int = 0, force: bool = False) -> Lab:
    """Load the lab, building it first (on the CPU, without a network, in about a minute) if it is not cached.

    The same seed gives the same files, byte for byte, on one machine and set of versions. Neither torch's random state
    nor its thread count is changed for the caller. Any number of processes may call this at once: one builds.

    Args:
        cache_dir: the folder that labs are kept in; `hf_unlearn/lab` under the Hugging Face cache (`HF_HOME`) if None.
        seed: of the corpus and of both models.
        force: build anew even if the lab is cached.

    Raises:
        ValueError: `seed` is not a whole number from 0 on.
        RuntimeError: the built models miss one of the rates in `checks.REQUIRED_RATES`. Nothing is cached then.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise input_error(
            expected="`seed` to be a whole number from 0 on",
            got=f"{seed!r} ({type(seed).__name__})",
            why="the seed draws the corpus and both models, and names their folder in the cache",
            fix="pass for example load_lab(seed=0)",
        )
    recipe = Recipe()
    corpus = build_corpus(seed)
    root = Path(constants.HF_HOME, "hf_unlearn", "lab") if cache_dir is None else Path(cache_dir).expanduser()
    path = root / _key(corpus, recipe, seed)
    if force or not (path / RECORD).exists():
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            # Another process may have built it while this one waited for the lock.
            if force or not (path / RECORD).exists():
                _build_into(path, corpus, recipe, seed)
    record = json.loads((path / RECORD).read_text(encoding="utf-8"))
    return Lab(
        path=path,
        seed=seed,
        datasets={name: Dataset.from_list(corpus[name]) for name in SETS},
        checks=record["checks"],
        build_seconds=record["build_seconds"],
    )


def render_lab(lab: Lab) -> str:
    """The lab as a short plain-text table: sizes, rates, negative log-likelihoods, place and time."""

    def line(label: str, cells: list[str]) -> str:
        return f"{label:<30}" + "".join(f"{cell:>12}" for cell in cells)

    lines = [line("", list(SETS)), line("rows", [str(lab.datasets[name].num_rows) for name in SETS])]
    for who in ("model", "oracle"):
        behaviour = [lab.checks.get(f"{who}_{name}_behaviour") for name in SETS]
        lines.append(line(f"{who}: shows the behaviour", ["-" if r is None else f"{r:.1%}" for r in behaviour]))
        right = [lab.checks.get(f"{who}_{name}_accuracy") for name in SETS]
        lines.append(line(f"{who}: answers correctly", ["-" if r is None else f"{r:.1%}" for r in right]))
        nll = [lab.checks[f"{who}_{name}_nll"] for name in SETS]
        lines.append(line(f"{who}: NLL, nats per token", [f"{value:.3f}" for value in nll]))
    lines += ["", f"model   {lab.model_path}", f"oracle  {lab.oracle_path}"]
    lines.append(f"seed {lab.seed}, built in {lab.build_seconds:.0f} s")
    return "\n".join(lines)


def _key(corpus: dict[str, list[Row]], recipe: Recipe, seed: int) -> str:
    """The name of the lab's folder: 16 hexadecimal digits of the hash of everything the lab is made from."""
    made_from = json.dumps([corpus, asdict(recipe), JUDGE_RULES, seed], sort_keys=True)
    return hashlib.sha256(made_from.encode("utf-8")).hexdigest()[:16]


def _build_into(path: Path, corpus: dict[str, list[Row]], recipe: Recipe, seed: int) -> None:
    """Build the lab beside `path` and rename it at the end, so that `path` is whole or absent. Needs the lock."""
    unfinished = path.with_name(f"{path.name}.building")
    if unfinished.exists():  # from a build that was killed: whoever held the lock before is gone
        shutil.rmtree(unfinished)
    unfinished.mkdir()
    try:
        _build(unfinished, corpus, recipe, seed)
        if path.exists():
            shutil.rmtree(path)
        unfinished.rename(path)
    finally:
        if unfinished.exists():
            shutil.rmtree(unfinished)


def _build(folder: Path, corpus: dict[str, list[Row]], recipe: Recipe, seed: int) -> None:
    """Train, measure and save both models."""
    started = time.perf_counter()
    # The tokenizer sees the words of all sets, holdout too: otherwise names of holdout alone would fall into more
    # tokens than those of forget, and the two would differ in length. Neither model sees a row of holdout.
    texts = [row["prompt"] + row["completion"] for name in SETS for row in corpus[name]]
    tokenizer = train_tokenizer(texts, recipe)
    checks: dict[str, float] = {}
    for name, rows in (("model", corpus["forget"] + corpus["retain"]), ("oracle", corpus["retain"])):
        with reproducible(seed, recipe.threads):
            model = train_model(rows, tokenizer, recipe, name)
            checks |= measure(name, model, tokenizer, corpus)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    require_rates(checks)
    record = {
        "seed": seed,
        "recipe": asdict(recipe),
        "checks": checks,
        "build_seconds": time.perf_counter() - started,
        "versions": {
            "python": platform.python_version(),
            **{module.__name__: module.__version__ for module in (torch, transformers, tokenizers, datasets)},
        },
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
