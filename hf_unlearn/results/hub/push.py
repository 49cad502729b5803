"""The push: which files of a run go to the Hub, who may see them there, and the one commit that brings them."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from ...errors import input_error
from ..adapter_config import ADAPTER_CONFIG, read_adapter_config
from ..card_file import CARD_FILE, has_own_card, saved_plots
from ..model_card import render_card
from ..record import RECORD_FILE, ModelRecord, RunRecord, load_record
from ..suppression_report import SUPPRESSION_FOLDER, SUPPRESSOR_FILE
from .errors import hub_errors

# What a model, its tokenizer and its record are made of; all else stays where it is.
_WEIGHTS = ("adapter_model*.safetensors", "model*.safetensors", "*.safetensors.index.json")
_MODEL = ("config.json", "generation_config.json", ADAPTER_CONFIG)
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",  # sentencepiece
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
)
_RECORD = (RECORD_FILE, CARD_FILE, "plots/*.png", "plots/*.svg")
PUSHED = (*_WEIGHTS, *_MODEL, *_TOKENIZER, *_RECORD)
NO_BASE = (
    "The adapter's base model is not on the Hub as far as the run knows, so nobody else can load it: name the base's "
    "repository (--base_model owner/name), or push whole weights (--merge)."
)
# Weights that run code when they are loaded.
_PICKLES = ("pytorch_model*.bin", "adapter_model*.bin")
# Of an earlier push to the same repository: a model must not load half of one and half of the other.
_REPLACED = (*_WEIGHTS, *_PICKLES, *_MODEL, "training_args.bin")


@dataclass(frozen=True)
class PushPlan:
    """What a push would bring to the Hub.

    Attributes:
        repo_id: owner/name, or a name under the token's owner.
        files: by path in the repository, a file or its bytes.
        kept: paths of the folder that stay where they are.
        record: of the run.
        notes: what who pushes must know.
    """

    repo_id: str
    files: dict[str, Path | bytes]
    kept: list[str]
    record: RunRecord
    notes: tuple[str, ...] = ()

    def sizes(self) -> dict[str, int]:
        """Bytes of every file."""
        return {
            name: len(file) if isinstance(file, bytes) else file.stat().st_size for name, file in self.files.items()
        }


@dataclass
class Push:
    """One push of a plan.

    Args:
        plan: what goes.
        private: whether a new repository is private; None lets the sets decide: private unless all of them are public.
        revision: branch; None for main.
        message: of the commit.
        api: the Hub, with its token.
        timeout: seconds without an answer after which the push is given up.
    """

    plan: PushPlan
    private: bool | None = None
    revision: str | None = None
    message: str = "Unlearned model"
    api: HfApi = field(default_factory=HfApi)
    timeout: float = 300.0

    def __call__(self) -> CommitInfo:
        """Create the repository where there is none, and commit all files at once.

        Files that the repository has already are not sent again; until the commit nothing of it is changed.

        Raises:
            PushError: the Hub refused or could not be reached.
            ValueError: the repository is public and the sets are not.
        """
        with hub_errors(f"push to {self.plan.repo_id}", self.timeout):
            private = needs_private(self.plan.record, self.api) if self.private is None else self.private
            repo_id = self.api.create_repo(self.plan.repo_id, private=private, exist_ok=True).repo_id
            if private:
                require_private(repo_id, self.api, asked=self.private is True)
            if self.revision is not None:
                self.api.create_branch(repo_id, branch=self.revision, exist_ok=True)
            stale = [
                name
                for name in self.api.list_repo_files(repo_id, revision=self.revision)
                if name not in self.plan.files and _matches(name, _REPLACED)
            ]
            operations = [
                CommitOperationAdd(name, file if isinstance(file, bytes) else str(file))
                for name, file in self.plan.files.items()
            ]
            return self.api.create_commit(
                repo_id,
                [*operations, *map(CommitOperationDelete, stale)],
                commit_message=self.message,
                revision=self.revision,
            )


def plan_push(folder: str | Path, repo_id: str, *, base_model: str | None = None) -> PushPlan:
    """What a push of a run's folder brings to the Hub: model or adapter, tokenizer, record, card and plots.

    The card is rendered anew with the repository's name in it, unless its text was edited by hand. An adapter's
    config names its base model; where that is a path of this machine it is taken out.

    Args:
        folder: output_dir of a run, or of `merge_adapter`.
        repo_id: owner/name.
        base_model: the repository of the base model, for an adapter that was trained on a local copy of it.

    Raises:
        ValueError: no run, no weights, pickled weights, or names that are no repositories.
    """
    folder = Path(folder)
    require_repo_id(repo_id)
    record = load_record(folder)
    files: dict[str, Path | bytes] = {name: folder / name for name in pushable_files(folder)}
    if base_model is not None:
        require_repo_id(base_model, "base_model")
        record.model.id, record.model.origin = base_model, "hub"
    notes = []
    if ADAPTER_CONFIG in files:
        files[ADAPTER_CONFIG] = _adapter_config(folder, record.model)
        notes += [NO_BASE] if record.model.origin != "hub" else []
    plots = saved_plots(folder)
    files = {name: file for name, file in files.items() if not name.startswith("plots/") or plots}
    if has_own_card(folder):
        files[CARD_FILE] = render_card(record, repo_id=repo_id, plots=plots).encode()
    if base_model is not None:
        files[RECORD_FILE] = record.as_text().encode()
    kept = [name for name in _files_in(folder) if name not in files]
    return PushPlan(repo_id, dict(sorted(files.items())), kept, record, tuple(notes))


def pushable_files(folder: str | Path) -> list[str]:
    """Paths in a run's folder of all that a push may bring to the Hub, as they lie there.

    Raises:
        ValueError: no weights, those of two runs, pickled ones, or such as are suppressed at inference alone.
    """
    names = _files_in(Path(folder))
    if f"{SUPPRESSION_FOLDER}/{SUPPRESSOR_FILE}" in names:
        raise input_error(
            expected="a run that was unlearnt in its weights",
            got=f"one whose answers are suppressed at inference ({SUPPRESSION_FOLDER}/)",
            why="the weights still know the rows, and would be pushed without what suppresses them",
            fix="distil it into the weights (forget_loss distil), and push that run",
        )
    pushed = [name for name in names if _matches(name, PUSHED)]
    _require_weights(Path(folder), pushed, names)
    return pushed


def _files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def needs_private(record: RunRecord, api: HfApi) -> bool:
    """Whether what a run holds is private: a model or a set of the user's own, or one that not everybody may read."""
    if not record.public:
        return True
    model = record.model
    base, origin = (model.fitted_from, model.fitted_origin) if model.fitted_origin else (model.id, model.origin)
    if origin == "hub" and _is_hidden(base, api.model_info):
        return True
    # A gated model may be used under its conditions; the rows of a gated dataset are not for everybody.
    sets = [rows for rows in record.sets.values() if rows.origin == "hub"]
    return any(_is_hidden(rows.id, api.dataset_info, gated=True) for rows in sets)


def _is_hidden(name: str | None, info_of: Callable[[str], Any], *, gated: bool = False) -> bool:
    """Whether a repository is private, or not to be found; with `gated`, also where it asks who its readers are."""
    if name is None:
        return True
    try:
        info = info_of(name)
    except RepositoryNotFoundError:
        return True
    return bool(info.private or (gated and info.gated))


def require_private(repo_id: str, api: HfApi, *, asked: bool) -> None:
    """Raise for a repository that is public already: a push to it would show what was unlearned.

    Args:
        repo_id: of a repository that exists.
        api: the Hub.
        asked: whether the user wants it private; else it is the sets that do.
    """
    if api.model_info(repo_id).private:
        return
    raise input_error(
        expected=f"{repo_id} to be a private repository",
        got="one that is public already",
        why="it was asked for" if asked else "a set that was unlearned is not known to be public",
        fix="push to another repository, make this one private in its settings, or pass --public (private=False)",
    )


def require_repo_id(repo_id: str, argument: str = "the repository") -> None:
    """Raise for what cannot be a repository's name."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise input_error(
            expected=f"{argument} as owner/name",
            got=repr(repo_id),
            why="the Hub has no repository of such a name",
            fix="pass for example my-name/opt-1.3b-unlearned: letters, digits, '-', '_' and '.'",
        ) from None


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    # Patterns are of the whole path: fnmatch's star would take a checkpoint's folder for a file name.
    return any(fnmatch(name, pattern) and name.count("/") == pattern.count("/") for pattern in patterns)


def _require_weights(folder: Path, pushed: list[str], names: list[str]) -> None:
    weights = [name for name in pushed if _matches(name, _WEIGHTS) and name.endswith(".safetensors")]
    kinds = {name.startswith("adapter_") for name in weights}
    if len(kinds) == 1:
        return
    if kinds:
        raise input_error(
            expected="either an adapter or whole weights",
            got=f"both in {folder.name}: {', '.join(sorted(weights)[:3])}",
            why="the folder holds the models of two runs, and who loads it would get the wrong one",
            fix="remove the one that is not of the last run, or train into an empty output_dir",
        )
    pickles = [name for name in names if _matches(name, _PICKLES)]
    raise input_error(
        expected="weights as safetensors",
        got=f"{pickles[0]}, a pickle" if pickles else f"{folder.name}, without weights",
        why="loading a pickle runs whatever code is in it" if pickles else "there is nothing to push",
        fix="save the model with model.save_pretrained(folder), which writes safetensors",
    )


def _adapter_config(folder: Path, model: ModelRecord) -> bytes:
    """An adapter's config with a base model that others can load, or none: a path is nobody's business.

    The record knows which it is: here and now, a path relative to where the run was started looks like a repository.
    """
    config = read_adapter_config(folder)
    name = model.id if model.origin == "hub" else None
    same = name is not None and name == config.get("base_model_name_or_path")
    # PEFT does not write down which revision of the base it was given.
    config["revision"] = config.get("revision") or model.revision if same else None
    config["base_model_name_or_path"] = name
    return (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
