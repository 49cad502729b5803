"""Code and BibTeX of a card: how to load the model, how to train it again, what to cite."""

import importlib.resources
import json
import re
from typing import Any

from ..phase_record import suppression_of
from ..record import ComponentRecord, RunRecord, TermRecord
from .phases import phases_yaml
from .text import fenced, hub_id, one_line, specification

_HERE, _BASE = "path/to/this/folder", "path/to/the/base/model"
_ENTRY = re.compile(r"^@\w+\{([\w-]+),\n.*?^\}$", re.MULTILINE | re.DOTALL)
_EPRINT = re.compile(r"eprint\s*=\s*[{\"](\d{4}\.\d{4,5})")
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})", re.IGNORECASE)
_PACKAGE = "hf_unlearn"
_MACHINE = ("use_cpu", "dataloader_pin_memory")  # arguments that belong to a machine, not to the run
# An optimizer is no part of the objective, but this one has a paper that says how to unlearn with it.
_OPTIMIZER_PAPERS = {"sophia": "Liu et al. 2023, arXiv:2305.14342; Jia et al. 2024 (SOUL), arXiv:2404.18239"}


def loading_code(record: RunRecord, repo_id: str | None, adapter: bool) -> str:
    """Python that loads the model and lets it answer."""
    place, base = json.dumps(repo_id or _HERE), hub_id(record.model)
    revision = f", revision={json.dumps(record.model.revision)}" if base and record.model.revision else ""
    imports = ["from transformers import AutoModelForCausalLM, AutoTokenizer"]
    load = [f"model = AutoModelForCausalLM.from_pretrained({place})"]
    if adapter:
        imports.insert(0, "from peft import PeftModel")
        load = [
            f"base = AutoModelForCausalLM.from_pretrained({json.dumps(base or _BASE)}{revision})",
            f"model = PeftModel.from_pretrained(base, {place})",
        ]
    if adapter and record.model.vocabulary is not None:
        rows = f"base.resize_token_embeddings({record.model.vocabulary}, mean_resizing=False)"
        load.insert(1, f"{rows}  # the adapter brings its embeddings")
    if adapter and record.model.origin == "lab":
        imports = ["from hf_unlearn.lab import load_lab", "from peft import PeftModel", imports[-1]]
        load[0] = f"base = load_lab({_world(record)}).load_model()"
    if suppression_of(record) is not None:
        imports.insert(0, "from hf_unlearn.suppression import load_suppressor")
        load.append(f"load_suppressor({json.dumps(f'{_HERE}/suppression')}).install(model)  # without it: as before")
    answer = [
        f"tokenizer = AutoTokenizer.from_pretrained({place})",
        "",
        'inputs = tokenizer("a prompt", return_tensors="pt")',
        "answer = model.generate(**inputs, max_new_tokens=64)",
        "print(tokenizer.decode(answer[0], skip_special_tokens=True))",
    ]
    return fenced("\n".join([*sorted(imports), "", *load, *answer]), "python")


def _world(record: RunRecord) -> str:
    origins = [(rows.id, rows.origin) for rows in record.sets.values()] + [(record.model.id, record.model.origin)]
    worlds = [name for name, origin in origins if origin == "lab" and name]
    return f"world={json.dumps(worlds[0])}" if worlds else ""


def training_code(record: RunRecord) -> str:
    """What makes the run again, but for the rows themselves; "" where there is no objective on record.

    Python, or the recipe of the phases of a run that has some.
    """
    if record.phases:
        return f"Its phases, as a recipe of `hf-unlearn train --config` has them:\n\n{phases_yaml(record.phases)}"
    if not record.objective.terms:
        return ""
    imports, loading, model, tokenizer = _start(record)
    lines = [f"        {name}={_written(value)}," for name, value in _arguments(record).items()]
    roles = ", ".join(f'"{role}": {role}' for role in record.sets if role.isidentifier()) or '"forget": forget'
    more = [] if tokenizer is None else [f"    processing_class={tokenizer},"]
    more += [f"    {argument}={_written(terms)}," for argument, terms in _objects(record).items()]
    adapter = record.model.adapter
    if adapter is not None and adapter.get("kind") == "LORA":
        imports.append("from peft import LoraConfig")
        given = "".join(
            f"{name}={value!r}, " for name, value in adapter.items() if name != "kind" and name.isidentifier()
        )
        more.append(f'    peft_config=LoraConfig({given}task_type="CAUSAL_LM"),')
    elif adapter is not None:
        kind = one_line(adapter.get("kind", "PEFT"))
        more.append(f"    peft_config=...,  # {kind}, as the adapter_config.json beside has it")
    own = _own_classes(record)
    text = [
        *sorted(imports),
        *(["", own] if own else []),
        "",
        *loading,
        "trainer = UnlearningTrainer(",
        f"    model={model},",
        "    args=UnlearningConfig(",
        '        output_dir="unlearned",',
        *lines,
        "    ),",
        f"    train_dataset={{{roles}}},  # rows as above",
        *more,
        ")",
        "trainer.train()",
    ]
    return fenced("\n".join(text), "python")


def _start(record: RunRecord) -> tuple[list[str], list[str], str, str | None]:
    """How a run gets its model: imports, lines before the trainer, model, and a tokenizer that is not beside it."""
    imports, known = ["from hf_unlearn import UnlearningConfig, UnlearningTrainer"], record.model
    base = model = json.dumps(hub_id(known) or _BASE)
    tokenizer = None
    if known.origin == "lab":
        imports.append("from hf_unlearn.lab import load_lab")
        model, tokenizer = (f"load_lab({_world(record)}).load_{what}()" for what in ("model", "tokenizer"))
    if known.resized is None:
        return imports, [], model, tokenizer
    classes = ["AutoTokenizer"]
    if known.origin != "lab":
        classes.insert(0, "AutoModelForCausalLM")
        options = {"revision": known.revision if hub_id(known) else None}
        options["dtype"] = known.dtype if "float" in known.dtype else None  # not the integers of a quantised base
        given = "".join(f", {name}={json.dumps(value)}" for name, value in options.items() if value)
        model = f"AutoModelForCausalLM.from_pretrained({base}{given})"
    imports.append(f"from transformers import {', '.join(classes)}")
    resize = f"model.resize_token_embeddings({known.resized}, mean_resizing=False)  # its new rows start at random"
    # The tokenizer was extended as well, and lies in the run's folder.
    return imports, [f"model = {model}", resize, ""], "model", f"AutoTokenizer.from_pretrained({json.dumps(_HERE)})"


def _arguments(record: RunRecord) -> dict[str, Any]:
    """Arguments of UnlearningConfig, the parts of the objective among them."""
    objective = record.objective
    arguments: dict[str, Any] = {}
    for side in ("forget", "retain"):
        terms = [specification(term) for term in objective.terms if term.side == side]
        if f"{side}_loss" not in _objects(record):
            arguments[f"{side}_loss"] = terms[0] if len(terms) == 1 else terms or "none"
    anchors = [term for term in objective.terms if term.side == "anchor"]
    if anchors:
        arguments["anchor_loss"] = anchors[0] if len(anchors) == 1 else anchors
    if objective.step_wrappers:
        arguments["step_wrappers"] = list(objective.step_wrappers)
    if objective.weighting.own or objective.weighting.name != "fixed":
        arguments["weighting"] = objective.weighting
    if objective.bound.get("setting", "") is None:
        arguments["forget_nll_bound"] = None
    revision = {"revision": record.model.revision} if hub_id(record.model) and record.model.revision else {}
    if revision and "model_init_kwargs" not in record.arguments and record.model.resized is None:
        arguments["model_init_kwargs"] = revision
    given = {name: value for name, value in record.arguments.items() if name not in _MACHINE and name.isidentifier()}
    return arguments | {"seed": record.seed} | given


def _objects(record: RunRecord) -> dict[str, list[TermRecord]]:
    """By argument of the trainer, the losses of a side where one is of the user's own, which no name stands for."""
    terms = {side: [term for term in record.objective.terms if term.side == side] for side in ("forget", "retain")}
    return {f"{side}_loss": of_side for side, of_side in terms.items() if any(term.own for term in of_side)}


def _written(value: Any) -> str:
    """As Python: a part as its specification, or as an object where its class is the user's own."""
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    if not isinstance(value, ComponentRecord):
        return repr(value)
    if value.own is None:
        return repr(specification(value))
    weight = {"weight": value.weight} if isinstance(value, TermRecord) and value.weight != 1 else {}
    given = (value.arguments | weight).items()
    return f"{_class_name(value.own)}({', '.join(f'{name}={argument!r}' for name, argument in given)})"


def _class_name(own: str) -> str:
    """Of a class of the user's own, as code; what is no name would be code of somebody else's."""
    return own if all(word.isidentifier() for word in own.split(".")) else "..."


def _own_classes(record: RunRecord) -> str:
    """A comment that names the classes of the user's own; "" where there are none."""
    names = dict.fromkeys(_class_name(part.own) for part in record.parts if part.own)
    return f"# of the user's own, not in hf_unlearn: {', '.join(names)}" if names else ""


def citations(record: RunRecord) -> str:
    """BibTeX of the package and of every paper on arXiv that the run's parts and the attacks on it name."""
    templates = importlib.resources.files("hf_unlearn.results") / "templates"
    text = (templates / "citations.bib").read_text(encoding="utf-8")
    entries = {match[1]: match[0] for match in _ENTRY.finditer(text)}
    by_paper = {paper: entry for entry in entries.values() for paper in _EPRINT.findall(entry)}
    papers = [part.paper for part in record.parts]
    papers += [] if record.attack_report is None else [finding.paper for finding in record.attack_report.findings]
    papers.append(_OPTIMIZER_PAPERS.get(record.objective.optimizer, ""))
    ids = dict.fromkeys(paper for paper_words in papers for paper in _ARXIV.findall(paper_words))
    cited = [by_paper.get(paper) or _entry(paper) for paper in ids]
    return fenced("\n\n".join([entries[_PACKAGE], *dict.fromkeys(cited)]), "bibtex")


def _entry(paper: str) -> str:
    """Of a paper that a loss of the user's own names: what its id tells."""
    key = f"arxiv_{paper.replace('.', '_')}"
    return f"@misc{{{key},\n  title = {{arXiv:{paper}}},\n  eprint = {{{paper}}},\n  archiveprefix = {{arXiv}},\n}}"
