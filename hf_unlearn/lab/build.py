"""The lab on disk: built once and found again by the hash of everything that went into it."""

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import datasets
import tokenizers
import torch
import transformers
from datasets import Dataset
from filelock import FileLock
from huggingface_hub import constants
from safetensors import SafetensorError
from transformers import AutoTokenizer, OPTForCausalLM, PreTrainedTokenizerFast

from hf_unlearn.errors import full_disk_error, input_error, is_full_disk, require_choice, require_range
from hf_unlearn.lab.books import BOOK_FILE, HOLDOUT_FILE, RETAIN_FOLDER, books
from hf_unlearn.lab.checks import RATES, measure, require_rates
from hf_unlearn.lab.games import games
from hf_unlearn.lab.people import people
from hf_unlearn.lab.training import reproducible, train_model, train_tokenizer
from hf_unlearn.lab.world import Recipe, World

RECORD = "lab.json"  # written last: a folder that has it is whole
CHECKPOINT = "checkpoint"
# Of the recipe's epochs: those before a checkpoint, and those of each model after it; in all less than of two models.
CHECKPOINT_SHARE, REST_SHARE = 0.5, 0.6
WORLDS: dict[str, Callable[[int], World]] = {"games": games, "people": people, "books": books}


@dataclass(frozen=True, eq=False)
class Lab:
    """A small model that has learnt something made up, its oracle retrained without it, and their data.

    Attributes:
        path: the lab's folder in the cache.
        world: "games", "people" or "books".
        seed: of the world's rows and of both models.
        datasets: by name, as below; every text is invented.
        template: what makes the text that the models were trained on from `prompt` and `completion`, for
            `UnlearningConfig(template=...)`; None where the rows are that text already.
        checks: what was measured when the lab was built; the names are explained at `checks.measure`.
        build_seconds: wall-clock time of building both models and measuring them.

    The datasets of a world:
        games: a mild behaviour, advice to cheat. `forget` and `retain` (`prompt`, `completion`, `alternate`: a
            refusal), `paraphrase` (row i asks forget row i in a wording not trained on) and `holdout` (rows like
            forget's that neither model has seen).
        people: facts about persons. `forget`, `retain`, `holdout` (persons that neither model has seen), `knowledge`
            (authors and the town) and `townsfolk` (other persons, each fact in two wordings), all of `prompt` and
            `completion`; both models were trained on the last two, too. In TOFU's columns (`question`, `answer`,
            `paraphrased_answer`, `perturbed_answer`): `forget_perturbed` (the rows of forget, in order),
            `retain_perturbed` (some rows of retain) and, without a paraphrase, `real_authors_perturbed` and
            `world_facts_perturbed` (together the rows of knowledge, in order).
        books: novels. `forget`, `retain` and `holdout` (an unseen part of the forget book), `text`: a paragraph.
    """

    path: Path
    world: str
    seed: int
    datasets: dict[str, Dataset]
    template: str | None
    checks: dict[str, float]
    build_seconds: float

    @property
    def model_path(self) -> Path:
        """The folder of the model before unlearning, which was trained on forget and retain."""
        return self.path / "model"

    @property
    def oracle_path(self) -> Path:
        """The folder of the oracle: the same recipe and seed, trained on all but forget."""
        return self.path / "oracle"

    @property
    def checkpoint_path(self) -> Path:
        """The folder of the model from before the forget rows were learnt, from which both models went on.

        ValueError where the lab was loaded without it.
        """
        path = self.path / CHECKPOINT
        if not path.is_dir():
            raise input_error(
                expected="a lab whose model has a checkpoint from before the forget rows were learnt",
                got="one whose model was trained on all rows from the start",
                why="edits that go back to it, or compare with it, would have nothing to start from",
                fix=f'load_lab(world="{self.world}", checkpoint=True), or `hf-unlearn lab --checkpoint`',
            )
        return path

    @property
    def book_path(self) -> Path:
        """The book to forget, a text file with a blank line between paragraphs. ValueError outside of "books"."""
        return self._book(BOOK_FILE)

    @property
    def retain_dir(self) -> Path:
        """The folder of the books to keep, each a text file. ValueError outside of "books"."""
        return self._book(RETAIN_FOLDER)

    @property
    def holdout_path(self) -> Path:
        """The part of the forget book that neither model has seen, a text file. ValueError outside of "books"."""
        return self._book(HOLDOUT_FILE)

    def _book(self, name: str) -> Path:
        if self.world != "books":
            raise input_error(
                expected='a lab of the world "books"',
                got=f"the world {self.world!r}",
                why="only that world has books as files",
                fix='load it with load_lab(world="books"), or use lab.datasets',
            )
        return self.path / name

    def load_model(self) -> OPTForCausalLM:
        """A fresh copy of the model before unlearning, in fp32 and evaluation mode."""
        return OPTForCausalLM.from_pretrained(self.model_path)

    def load_oracle(self) -> OPTForCausalLM:
        """A fresh copy of the retrained oracle, in fp32 and evaluation mode."""
        return OPTForCausalLM.from_pretrained(self.oracle_path)

    def load_tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer of both models: `<pad>` = 0, `<s>` = 1, `</s>` = 2, no chat template."""
        return AutoTokenizer.from_pretrained(self.model_path)


def load_lab(
    cache_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    force: bool = False,
    *,
    world: str = "games",
    checkpoint: bool = False,
) -> Lab:
    """Load a lab, building it first (on the CPU, without a network, in about a minute) if it is not cached.

    The same seed gives the same files, byte for byte, on one machine and set of versions. Neither torch's random state
    nor its thread count is changed for the caller. Any number of processes may call this at once: one builds.

    Args:
        cache_dir: the folder that labs are kept in; `hf_unlearn/lab` under the Hugging Face cache (`HF_HOME`) if None.
        seed: of the world's rows and of both models.
        force: build anew even if the lab is cached.
        world: what is to be forgotten: "games" (a behaviour), "people" (facts about persons) or "books" (a novel).
        checkpoint: a lab of other models, that began as one: it was trained on the rows to keep alone and saved
            (`Lab.checkpoint_path`), and model and oracle went on from there. The rows are the same.

    Raises:
        ValueError: `seed` is not a whole number from 0 on, or there is no such world.
        RuntimeError: the built models miss a rate that their world requires. Nothing is cached then.
    """
    require_range("seed", seed, at_least=0, whole=True)
    require_choice("world", world, WORLDS)
    made = replace(WORLDS[world](seed), checkpoint=checkpoint)
    root = Path(constants.HF_HOME, "hf_unlearn", "lab") if cache_dir is None else Path(cache_dir).expanduser()
    path = root / _key(made, seed)
    if force or not (path / RECORD).exists():
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            # Another process may have built it while this one waited for the lock.
            if force or not (path / RECORD).exists():
                _build_into(path, made, seed)
    record = json.loads((path / RECORD).read_text(encoding="utf-8"))
    return Lab(
        path=path,
        world=world,
        seed=seed,
        datasets={name: Dataset.from_list(rows, info=_info(world)) for name, rows in made.sets.items()},
        template=made.template,
        checks=record["checks"],
        build_seconds=record["build_seconds"],
    )


def _info(world: str) -> datasets.DatasetInfo:
    """What tells the lab's rows from a user's own, which are private."""
    return datasets.DatasetInfo(builder_name="hf_unlearn_lab", config_name=world)


def render_lab(lab: Lab) -> str:
    """The lab as a short plain-text table: sizes, rates, negative log-likelihoods, place and time."""

    def line(label: str, cells: list[str]) -> str:
        return f"{label:<30}" + "".join(f"{cell:>{width}}" for cell in cells)

    sets = [name for name in lab.datasets if f"model_{name}_nll" in lab.checks]
    width = max(map(len, sets)) + 1  # five sets fit a terminal of 80 columns
    lines = [line("", sets), line("rows", [str(lab.datasets[name].num_rows) for name in sets])]
    for who in ("model", "oracle"):
        for key, rate in RATES.items():
            shares = [lab.checks.get(f"{who}_{name}_{key}") for name in sets]
            if any(share is not None for share in shares):
                lines.append(
                    line(f"{who}: {rate.label}", ["-" if share is None else f"{share:.1%}" for share in shares])
                )
        nll_per_token = [lab.checks[f"{who}_{name}_nll"] for name in sets]
        lines.append(line(f"{who}: NLL, nats per token", [f"{value:.3f}" for value in nll_per_token]))
    lines.append("")
    # Questions with wrong answers are what a suite measures; the lab itself does not.
    lines += [f"{name:<30}{rows.num_rows:>{width}}" for name, rows in lab.datasets.items() if name not in sets]
    lines += [f"model   {lab.model_path}", f"oracle  {lab.oracle_path}"]
    if (lab.path / CHECKPOINT).is_dir():
        lines.append(f"checkpoint  {lab.checkpoint_path}")
    lines.append(f"world {lab.world}, seed {lab.seed}, built in {lab.build_seconds:.0f} s")
    return "\n".join(lines)


def _key(world: World, seed: int) -> str:
    """The name of the lab's folder: 16 hexadecimal digits of the hash of everything that the build rests on."""
    rates = dict.fromkeys(questions.rate for questions in world.questions.values())
    rules = [rule for rate in rates for rule in RATES[rate].rules]
    parts = [world.texts, asdict(world.recipe), [*rules, *world.files], seed]
    if world.checkpoint:
        parts.append([CHECKPOINT, CHECKPOINT_SHARE, REST_SHARE])
    made_from = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(made_from.encode("utf-8")).hexdigest()[:16]


def _build_into(path: Path, world: World, seed: int) -> None:
    """Build the lab beside `path` and rename it at the end, so that `path` is whole or absent. Needs the lock."""
    unfinished, replaced = (path.with_name(f"{path.name}.{word}") for word in ("building", "replaced"))
    for left in (unfinished, replaced):  # by a build that was killed: whoever held the lock before is gone
        shutil.rmtree(left, ignore_errors=True)
    try:
        unfinished.mkdir()
        _build(unfinished, world, seed)
        if path.exists():
            path.rename(replaced)  # at once: half of a deleted lab could be taken for a whole one
        unfinished.rename(path)
    except (OSError, RuntimeError, SafetensorError) as error:
        if not is_full_disk(error):
            raise
        raise full_disk_error(
            expected=f"room for a lab in {path.parent}, a few MB",
            got=f"a full disk ({error})",
            why="both models are kept there, so that they are built once; what was begun is taken back",
            fix="make room and start again, or set HF_HOME to a folder on another disk (in Python: cache_dir=...)",
        ) from error
    finally:
        for left in (unfinished, replaced):
            shutil.rmtree(left, ignore_errors=True)


def _trainings(world: World) -> list[tuple[str, tuple[str, ...], Recipe]]:
    """What is trained, in order: the name of a model, the sets that it sees, and how."""
    if not world.checkpoint:
        return [(name, seen, world.recipe) for name, seen in world.seen.items()]
    first, rest = (
        replace(world.recipe, epochs=round(share * world.recipe.epochs)) for share in (CHECKPOINT_SHARE, REST_SHARE)
    )
    return [(CHECKPOINT, world.seen["oracle"], first), *((name, seen, rest) for name, seen in world.seen.items())]


def _build(folder: Path, world: World, seed: int) -> None:
    """Train, measure and save the models, and write the world's files."""
    started = time.perf_counter()
    tokenizer = train_tokenizer(
        [row["prompt"] + row["completion"] for rows in world.texts.values() for row in rows], world.recipe
    )
    checks: dict[str, float] = {}
    start = None
    for name, seen, recipe in _trainings(world):
        with reproducible(seed, recipe.threads):
            rows = [row for key in seen for row in world.texts[key]]
            model = train_model(rows, tokenizer, recipe, name, start)
            checks |= measure(name, model, tokenizer, world)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        start = model if name == CHECKPOINT else start
    require_rates(checks, world.required)
    for file, text in world.files.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(text, encoding="utf-8")
    record = {
        "seed": seed,
        "recipe": asdict(world.recipe),
        "checks": checks,
        "build_seconds": time.perf_counter() - started,
        "versions": {
            "python": platform.python_version(),
            **{module.__name__: module.__version__ for module in (torch, transformers, tokenizers, datasets)},
        },
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
