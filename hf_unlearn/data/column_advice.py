"""Advice for sets whose columns spell no row format: from the layouts of others to ours, and nothing is lost."""

import json
from collections.abc import Collection

# Other people's names for our columns. What makes the prompt is joined, in this order; the first answer counts.
_PROMPT_PARTS = (
    "system",
    "system_prompt",
    "context",
    "passage",
    "instruction",
    "question",
    "query",
    "problem",
    "prompt",
)
_PROMPT_LAST = ("input",)
_ANSWERS = ("completion", "best answer", "best_answer", "answer", "response", "output", "target")
_CONVERSATIONS = ("messages", "conversation", "conversations")
_TEXTS = ("text", "content", "sentence", "document")


def column_renames(column_names: Collection[str]) -> dict[str, str]:
    """Old column name -> new: several that become `prompt` are to be joined. Empty where nothing is recognised."""
    by_lower_name = {name.lower(): name for name in column_names}

    def present(names: Collection[str]) -> list[str]:
        return [by_lower_name[name] for name in names if name in by_lower_name]

    prompts, answers = present((*_PROMPT_PARTS, *_PROMPT_LAST)), present(_ANSWERS)
    asked = [name for name in prompts if name.lower() not in ("system", "system_prompt", "context", "passage")]
    if asked and answers:
        return {**dict.fromkeys(prompts, "prompt"), answers[0]: "completion"}
    for group, new in ((_CONVERSATIONS, "messages"), (_TEXTS, "text")):
        if present(group):
            return {present(group)[0]: new}
    return {}


def column_advice(column_names: Collection[str], argument: str | None = None) -> str:
    """What to do with a set of these columns, as the end of an error.

    Args:
        column_names: of the set.
        argument: flag of the command line that renames its columns, where the set came from there.
    """
    renames = column_renames(column_names)
    if argument is not None:
        example = renames or {"<question>": "prompt", "<answer>": "completion"}
        joined = "; columns of one new name are joined" if len(set(renames.values())) < len(renames) else ""
        return f"pass --{argument} '{json.dumps(example)}'{', if that is what they hold' if renames else ''}{joined}"
    if not renames:
        if "input_ids" in column_names:
            return (
                "add `labels`: input_ids with -100 on the prompt, not shifted; or pass "
                "data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False) to train on every token; or pass "
                "the rows as text"
            )
        return 'rename your columns, e.g. dataset.rename_columns({"<question>": "prompt", "<answer>": "completion"})'
    prompts = [old for old, new in renames.items() if new == "prompt"]
    if len(prompts) > 1:
        (answer,) = (old for old, new in renames.items() if new == "completion")
        parts = ", ".join(f'row["{name}"]' for name in prompts)
        return (
            f'dataset = dataset.map(lambda row: {{"prompt": "\\n".join(filter(None, [{parts}])), '
            f'"completion": row["{answer}"]}}, remove_columns={sorted({*prompts, answer})}), if that is what they hold'
        )
    call = ", ".join(f'"{old}": "{new}"' for old, new in renames.items() if old != new)
    return f"dataset = dataset.rename_columns({{{call}}}), if that is what they hold"
