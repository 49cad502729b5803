"""What makes the plots of a page answer to the pointer: plotly.js and a script of our own, both inside the page.

A page without plots has none of it. Nothing is loaded: the policy of the page allows these two scripts and no other.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from markupsafe import Markup

from .charts import Chart

_LIBRARY, _OWN = "plotly-basic.min.js", "report.js"
_NOTHING = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Scripts:
    """The scripts of a page.

    Attributes:
        policy: of its Content-Security-Policy.
        code: text of each script element, the library first; () where nothing is charted.
        charts: JSON of the charts by their name, as markup.
    """

    policy: str
    code: tuple[Markup, ...] = ()
    charts: str = ""


def scripts_of(charts: Mapping[str, Chart]) -> Scripts:
    """The scripts that a page with these charts needs."""
    if not charts:
        return Scripts(_NOTHING)
    code = tuple(_script(name) for name in (_LIBRARY, _OWN))
    hashes = " ".join(f"'sha256-{_sha256(text)}'" for text in code)
    # "<" as JSON's own escape: no text within can end the element that holds it.
    text = json.dumps(charts, sort_keys=True, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return Scripts(f"{_NOTHING}; script-src {hashes}", code, Markup(text))


@cache
def _script(name: str) -> Markup:
    text = files("hf_unlearn.results").joinpath("templates", name).read_text(encoding="utf-8")
    # What a browser hashes has these line ends, whatever a checkout made of them.
    return Markup(text.replace("\r\n", "\n"))


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
