"""Write the pages of docs that are made from the package itself, or with --check say whether they are up to date.

    python docs/make_reference.py            # writes docs/reference/*.md and docs/layout.md
    python docs/make_reference.py --check    # writes nothing; exit status 1 when a page is out of date

The tables come from the classes of losses, step wrappers and weightings, the layout from the first line of each
folder's `__init__.py`. To change a page, change those, or the text around the tables in this file.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hf_unlearn import UnlearningConfig
from hf_unlearn.attacks import Threat
from hf_unlearn.cli.method_catalog import list_methods

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
MADE = "<!-- Made by docs/make_reference.py; a test compares. -->"

# The folders beside the package, which have no `__init__.py` that could say what they are.
BESIDE = {
    "examples": "Scripts for the three tasks (harmful.py, copyright.py, privacy.py) and plain_script.py, the same run "
    "without a command line. configs/ is a link to the packaged recipes, slurm/ has a job for several nodes.",
    "model_cards": "Cards and records of the examples and of some methods on the lab, rendered again by a test.",
    "benchmarks": "Time and memory of a step, accuracy of the memory plan, quality of the methods; results/ has the "
    "figures.",
    "tests": "Mirrors the package; oracles/ has a second, naive implementation of every formula.",
    "docs": "These pages.",
}

METHODS_HEAD = f"""\
{MADE}

# Losses, step wrappers and weightings

The objective is `forget_weight` times the forget side plus `retain_weight` times the retain side, and it is minimised;
an anchor, which holds rows that the model has never seen, comes on top of it times `anchor_weight`.
Each side is one loss or a weighted sum of several ([how to combine them](../start.md#combining-losses)).
[methods.md](../methods.md) says which method to use when. `hf-unlearn methods` prints the same facts in the terminal.

How to read the formulas:

- lp_t is the log-probability of answer token t in nats, and p_t = exp(lp_t). NLL is the negative log-likelihood of a
  row's answer (a sum over its tokens), nll its mean per token.
- z_t are the logits, pi_t the distribution over the vocabulary, h_t the hidden states.
- `ref` is the reference, the model before unlearning; `alt` is the row's alternate answer
  ([your rows](../start.md#your-rows)); b and d are the arguments beta and delta.
- tau is a row's level (the run's `levels`), what a model that never saw it would give it, nats per token, and
  progress the share of the run's steps; Huber_d(x) is x^2 / 2 up to d and d (|x| - d / 2) above.

The class in the second column shows the arguments with their defaults. "Mean over" says what the values are averaged
over, in a whole optimizer step. "Needs" names what a loss needs beside the forget rows; alternate rows are their
alternate answers, mismatch rows are random answers from the retain set.
"""

ANCHOR_TEXT = """\
An anchor holds rows of `train_dataset["holdout"]`, which the model has never seen, where they are: forgetting moves
rows of the same kind along. `anchor_ratio` holdout rows join each forget row. No weighting moves `anchor_weight`.
"""

WRAPPERS_TEXT = """\
A step wrapper changes what one optimizer step does. It works with every loss and together with the other wrappers. The
gradients are those of a whole optimizer step, so gradient accumulation and the number of processes change nothing.
g_f and g_r are the gradients of the forget side and of the retain side, theta the weights.
"""

WEIGHTINGS_TEXT = """\
A weighting sets `retain_weight` (w_r) during the run. `primal_dual` starts from the given value: it lowers the weight
while the retain loss is below epsilon, which leaves more room to forget, and raises it while the retain loss is above.
"""

OPTIMIZER_TEXT = """\
`optim="sophia"` takes the second-order optimizer Sophia ([Liu et al. 2023](https://arxiv.org/abs/2305.14342),
[Jia et al. 2024](https://arxiv.org/abs/2404.18239)), with its arguments in `optim_args`. In any other Trainer pass
`hf_unlearn.optimizers.Sophia` in `optimizer_cls_and_kwargs`.
"""

ATTACKS_PAGE = f"""\
{MADE}

# Attacks

What `hf_unlearn.attacks` tries, weakest attacker first. [attacks.md](../attacks.md) says how to run them and how to
read what they find; `hf-unlearn methods` prints the same facts in the terminal.

- An attacker of `queries` has texts in and texts out; of `logits` the probabilities of tokens, too; of `weights` the
  weights of the model after unlearning; of `weights_and_before` those of the model before it as well.
- Every argument is a budget. The setting is chosen on one half of the rows, and the other half is reported.
- A leak is 0 (nothing) to 1, and never counts what the attacker was given.

"""

EDITS_PAGE = f"""\
{MADE}

# Edits

What `hf_unlearn.edits` does to weights without the objective of the trainer. [edits.md](../edits.md) says which is
worth its cost, with figures; `hf-unlearn methods` prints the same facts in the terminal.

- The level is the mean NLL per token that a model without the forget rows would give them ([levels.md](../levels.md)).
- Of the holdout rows an edit reads the half that levels are calibrated on.
- All of them work on whole weights, in one process or under DDP; an adapter is merged first. Under ZeRO and FSDP, and
  on quantised weights, they are refused.

"""

SUPPRESSIONS_TEXT = """\
## Suppressions

What `hf_unlearn.suppression` does to answers at inference. The weights still know: whoever has them takes it off.

"""

WORKS_TEXT = """\
All of them work in one process with full parameters. What else they work with stands here; the rest is refused, with
the reason, when the trainer is built.
"""


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; a `|` inside a cell is escaped."""
    columns = [cell.replace("|", r"\|") for cell in head]
    lines = [columns, ["---"] * len(columns)]
    lines += [[cell.replace("|", r"\|") for cell in row] for row in rows]
    return "\n".join("|" + "".join(f" {cell} |" if cell else " |" for cell in line) for line in lines)


def papers(text: str) -> str:
    """`Author et al. 2024, arXiv:2404.05868; ...` as links."""
    return re.sub(r"([^;,]+), arXiv:([\d.]+)", lambda match: _link(*match.groups()), text)


def _link(name: str, number: str) -> str:
    space = " " if name.startswith(" ") else ""
    return f"{space}[{name.strip()}](https://arxiv.org/abs/{number})"


def _name(method: dict[str, Any], default: str) -> str:
    return f"`{method['name']}`" + (" (default)" if method["name"] == default else "")


def _class(method: dict[str, Any]) -> str:
    arguments = ", ".join(f"{name}={value!r}" for name, value in method["arguments"].items() if name != "weight")
    return f"`{method['class']}({arguments})`"


def _needs(needs: str) -> str:
    """What a loss needs beside the forget rows, which are always there."""
    return re.sub(r"^forget (and |rows(; )?)", "", needs)


def losses_table(methods: list[dict[str, Any]], side: str) -> str:
    """The losses of a side: `forget_loss`, `retain_loss` or `anchor_loss`."""
    default = str(UnlearningConfig.__dataclass_fields__[side].default)
    rows = [
        [_name(m, default), _class(m), m["formula"], m["mean_over"] + "s", _needs(m["needs"]), papers(m["paper"])]
        for m in methods
        if m["kind"] == side
    ]
    if side == "retain_loss":
        rows.append(["`none`", "", "no retain side: forget rows only", "", "", ""])
    if side == "anchor_loss":
        rows.append(["`none` (default)", "", "no anchor: no holdout rows in the batch", "", "", ""])
    return table([f"`{side}`", "class", "minimised", "mean over", "needs", "paper"], rows)


def parts_table(methods: list[dict[str, Any]], kind: str, argument: str) -> str:
    """Step wrappers or weightings."""
    default = str(UnlearningConfig.__dataclass_fields__[argument].default)
    rows = [[_name(m, default), _class(m), m["formula"], papers(m["paper"])] for m in methods if m["kind"] == kind]
    return table([f"`{argument}`", "class", "what it does", "paper"], rows)


def works_with(methods: list[dict[str, Any]]) -> str:
    """Methods that work with the same set-ups, a list entry for each such group."""
    names = [method["name"] for method in methods]
    groups: dict[str, list[str]] = {}
    for method in methods:
        if "works_with" in method:
            # A name that a forget and a retain loss share is told apart by its side.
            side = f" ({method['kind'].removesuffix('_loss')})" if names.count(method["name"]) > 1 else ""
            groups.setdefault(method["works_with"], []).append(f"`{method['name']}`{side}")
    return "\n".join(f"- {', '.join(group)}: {text}" for text, group in groups.items())


def methods_page() -> str:
    """docs/reference/losses.md."""
    methods = list_methods()
    parts = [METHODS_HEAD]
    parts += ["## Forget losses\n", losses_table(methods, "forget_loss"), ""]
    parts += ["## Retain losses\n", losses_table(methods, "retain_loss"), ""]
    parts += ["## Anchor losses\n", ANCHOR_TEXT, losses_table(methods, "anchor_loss"), ""]
    parts += ["## Step wrappers\n", WRAPPERS_TEXT, parts_table(methods, "step_wrapper", "step_wrappers"), ""]
    parts += ["## Weighting of the two sides\n", WEIGHTINGS_TEXT, parts_table(methods, "weighting", "weighting"), ""]
    parts += ["## Optimizer\n", OPTIMIZER_TEXT]
    parts += ["## What works with what\n", WORKS_TEXT]
    return "\n".join([*parts, works_with(methods), ""])


def attacks_page() -> str:
    """docs/reference/attacks.md."""
    order = list(Threat)
    methods = [method for method in list_methods() if method["kind"] == "attack"]
    methods.sort(key=lambda method: order.index(method["threat"]))
    rows = [
        [f"`{m['name']}`", m["threat"], _class(m), m["formula"], m["given"], m["score"], m["cost"], papers(m["paper"])]
        for m in methods
    ]
    head = ["attack", "attacker", "class", "what it does", "given", "leak", "cost", "paper"]
    return ATTACKS_PAGE + table(head, rows) + "\n"


def edits_page() -> str:
    """docs/reference/edits.md."""
    methods = [method for method in list_methods() if method["kind"] == "edit"]
    rows = [[f"`{m['name']}`", _class(m), m["formula"], m["reads"], m["cost"], papers(m["paper"])] for m in methods]
    page = EDITS_PAGE + table(["edit", "class", "what it does", "reads", "cost", "paper"], rows)
    held = [method for method in list_methods() if method["kind"] == "suppression"]
    rows = [[f"`{m['name']}`", _class(m), m["formula"], m["reads"], m["cost"], papers(m["paper"])] for m in held]
    head = ["suppression", "class", "what it does", "reads", "cost", "paper"]
    return f"{page}\n\n{SUPPRESSIONS_TEXT}{table(head, rows)}\n"


def folders(package: Path) -> list[Path]:
    """The folders of the package that hold files, parents first."""
    holding = {path.parent for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    return sorted(holding, key=lambda folder: folder.relative_to(package).parts)


def purpose(folder: Path) -> str:
    """The first line of the docstring of a folder's `__init__.py`; for a folder without one, the files in it."""
    module = folder / "__init__.py"
    if module.is_file():
        docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))
        return docstring.splitlines()[0] if docstring else ""
    suffixes = sorted({path.suffix for path in folder.iterdir() if path.is_file()})
    return f"Data files ({', '.join(suffixes)})."


def layout_page() -> str:
    """docs/layout.md."""
    package = ROOT / "hf_unlearn"
    lines = [
        MADE,
        "",
        "# Layout",
        "",
        "One line for each folder. The first line of every file says what is in it.",
        "",
    ]
    for folder in folders(package):
        depth = len(folder.relative_to(package).parts)
        path = folder.relative_to(ROOT).as_posix()
        lines.append(f"{'  ' * depth}- [`{path}/`](../{path}): {purpose(folder)}")
    lines += ["", "Beside the package:", ""]
    lines += [f"- [`{name}/`](../{name}): {text}" for name, text in BESIDE.items()]
    return "\n".join([*lines, ""])


def pages() -> dict[Path, str]:
    """Every made page: its file -> its text."""
    reference = DOCS / "reference"
    made = {"losses.md": methods_page(), "attacks.md": attacks_page(), "edits.md": edits_page()}
    return {reference / name: text for name, text in made.items()} | {DOCS / "layout.md": layout_page()}


def main(arguments: list[str] | None = None) -> int:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 when a page is out of date")
    check = parser.parse_args(arguments).check
    stale = [path for path, text in pages().items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'out of date; run python docs/make_reference.py' if check else 'written'}")
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(pages()[path], encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
