"""Whether a run of phases starts from a model that had not learnt the forget rows yet."""

from collections.abc import Mapping
from typing import Any

from ...edits import EDITS
from ...results.phase_record import EDIT
from ...training.method_specs import parse_text


def starts_from_checkpoint(phases: Any) -> bool:
    """Whether an edit among phases, as they were given, starts from a model that had not learnt the forget rows.

    What is no list of phases is told later.
    """
    entries = parse_text(phases)
    specs = [entry[EDIT] for entry in entries or () if isinstance(entry, Mapping) and EDIT in entry]
    names = [spec.get("name") if isinstance(spec, Mapping) else spec for spec in specs]
    return any(isinstance(name, str) and name in EDITS and EDITS[name].needs_checkpoint for name in names)
