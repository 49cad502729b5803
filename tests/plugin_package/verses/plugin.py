"""What this package adds: a line each."""

from hf_unlearn.plugins import Plugin

from .echo import ECHO_RATE
from .first_token import FirstToken
from .growing import Growing
from .quieten import Quieten
from .saturating_ascent import SaturatingAscent
from .suite import verses
from .unit_forget import UnitForget

HF_UNLEARN = Plugin(
    forget_losses=[SaturatingAscent],
    step_wrappers=[UnitForget],
    weightings=[Growing],
    attacks=[FirstToken],
    edits=[Quieten],
    metrics=[ECHO_RATE],
    suites={"verses": verses},
    tasks={"verses": "verses.task"},
)
