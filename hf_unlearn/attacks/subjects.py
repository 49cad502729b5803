"""What an attack is run on: the model, its controls and the model before unlearning, and the rows of each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..data.digests import set_digest, shared_rows
from ..data.prepare import RowOptions
from ..data.tokenized_row import TokenizedRow
from ..data.turns import AnswerEnds
from ..errors import input_error, require_choice
from ..evaluation.checks import require_prompts, require_room
from ..results.attack_report import BEFORE, MODEL, ORACLE, UNSEEN
from .rows import AttackedRows, halves
from .target import Target

SETS = ("forget", "retain", "related", "unrelated", "paraphrases")
FEWEST = 4  # rows of a set that is attacked: both halves need two


@dataclass(frozen=True)
class AttackSets:
    """Tokenised sets by role.

    Attributes:
        forget: rows that are attacked.
        controls: never-seen rows that are attacked beside them; () for none.
        retain: rows that the model is to keep.
        related: rows of the same form about other things.
        unrelated: texts of another kind.
        paraphrases: other prompts of the forget rows, as many for each, one row's after another's.
        ends: what ends an answer.
    """

    forget: Sequence[TokenizedRow]
    controls: Sequence[TokenizedRow] = ()
    retain: Sequence[TokenizedRow] = ()
    related: Sequence[TokenizedRow] = ()
    unrelated: Sequence[TokenizedRow] = ()
    paraphrases: Sequence[TokenizedRow] = ()
    ends: AnswerEnds = field(default_factory=AnswerEnds)

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each set."""
        named = {"controls": self.controls, **{name: getattr(self, name) for name in SETS}}
        return {name: set_digest(rows) for name, rows in named.items() if len(rows)}

    def rows(self, *, control: bool) -> AttackedRows:
        """The forget rows as an attack gets them, or the never-seen ones in their place."""
        rows = self.controls if control else self.forget
        each = len(self.paraphrases) // len(self.forget)
        paraphrases = {
            place: self.paraphrases[place * each : (place + 1) * each] for place in range(len(rows) if each else 0)
        }
        return AttackedRows(
            rows,
            halves(rows),
            retain=self.retain,
            related=self.related,
            unrelated=self.unrelated,
            unseen=self.controls,
            paraphrases={} if control else paraphrases,
            control=control,
        )


def attack_sets(rows: Any, controls: Any, options: RowOptions, model: Any, *, limit: int | None) -> AttackSets:
    """The sets of an attack, tokenised and checked.

    Args:
        rows: the forget rows, or a mapping of sets with `forget` and any other of SETS.
        controls: rows never seen; None for none.
        options: how rows become tokens.
        model: that has to have room for them.
        limit: of forget rows and of controls; None for all.

    Raises:
        ValueError: an unknown set, too few rows, rows without a prompt, a control that is a forget row.
    """
    given = dict(rows) if isinstance(rows, Mapping) else {"forget": rows}
    for name in given:
        require_choice("a set of rows", name, SETS)
    given = {name: listed for name, listed in (given | {"controls": controls}).items() if listed is not None}
    tokens = {name: [dict(row) for row in options.tokenize(_plain(listed), "eval")] for name, listed in given.items()}
    for listed in tokens.values():
        require_room(listed, model)
    attacked = {name: tokens[name] for name in ("forget", "controls") if name in tokens}
    _require_rows(attacked, tokens.get("paraphrases", ()))
    if options.tokenizer is not None:
        require_prompts(attacked, options.tokenizer)
    each = len(tokens.get("paraphrases", ())) // len(tokens["forget"])
    cut = {name: listed[:limit] for name, listed in attacked.items()}
    if limit is not None and each:
        cut["paraphrases"] = tokens["paraphrases"][: limit * each]
    ends = options.answer_ends(_plain(given["forget"]), tokens["forget"])
    return AttackSets(**(tokens | cut), ends=ends)


def _plain(rows: Any) -> Any:
    return rows.to_list() if hasattr(rows, "to_list") else rows


def _require_rows(attacked: Mapping[str, Sequence[TokenizedRow]], paraphrases: Sequence[TokenizedRow]) -> None:
    forget = attacked.get("forget", ())
    for name, listed in {"forget": forget, **attacked}.items():
        if len(listed) < FEWEST:
            raise input_error(
                expected=f"at least {FEWEST} {'forget rows' if name == 'forget' else 'rows never seen (controls)'}",
                got=str(len(listed)),
                why="an attack is tuned on one half of them and reported on the other",
                fix="pass more rows" if name == "forget" else "pass more rows, or leave controls out",
            )
    shared = shared_rows(forget, attacked.get("controls", ()))
    if shared:
        raise input_error(
            expected="controls that the model has never seen",
            got=f"{len(shared)} that are forget rows, the first at index {shared[0]}",
            why="what an attack gets of them would be taken for what it gets of nothing",
            fix="remove them from the controls",
        )
    if len(paraphrases) % len(forget):
        raise input_error(
            expected="as many paraphrases for each forget row, one row's after another's",
            got=f"{len(paraphrases)} for {len(forget)} rows",
            why="a paraphrase asks for the answer of its own row",
            fix="pass one paraphrase a row, in the order of the forget rows",
        )


@dataclass(frozen=True)
class Subject:
    """One thing that an attack is run on.

    Attributes:
        name: "model", "oracle", "oracle 2", ..., "unseen" or "before".
        target: the model of it.
        control_rows: whether never-seen rows are attacked in place of the forget rows.
    """

    name: str
    target: Target
    control_rows: bool = False

    @property
    def kind(self) -> str:
        """The name without a number."""
        return self.name.split(" ")[0]


def subjects(model: Target, oracles: Sequence[Any], sets: AttackSets) -> Iterator[Subject]:
    """What each attack is run on, the model first."""
    yield Subject(MODEL, model)
    if len(sets.controls):
        yield Subject(UNSEEN, model, control_rows=True)
    for number, oracle in enumerate(oracles, 1):
        yield Subject(ORACLE if number == 1 else f"{ORACLE} {number}", replace(model, model=oracle))
    if model.before is not None:
        yield Subject(BEFORE, replace(model, model=model.before))
