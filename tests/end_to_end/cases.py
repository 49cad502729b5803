"""Small models of eight kinds, each with rows that it knows: languages, chats, ways to build a model. No tests."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BatchEncoding,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from fixtures.models import VOCABULARY
from fixtures.tokenizer import BOS, EOS, IM_END, PAD, make_tokenizer

Row = dict[str, Any]
WINDOW = 16  # tokens that a layer sees, fewer than a row has
SHARED: dict[str, Any] = dict(
    vocab_size=VOCABULARY + 3,  # transformers adds the end of text of its own to a tokenizer of Qwen2
    pad_token_id=PAD,
    bos_token_id=BOS,
    eos_token_id=EOS,
    hidden_size=48,
    num_hidden_layers=2,
    initializer_range=0.1,
)
ATTENTION = SHARED | dict(
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=12,
    intermediate_size=96,
    max_position_embeddings=512,
)
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**ATTENTION)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**ATTENTION)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**ATTENTION)),
    "mixtral": lambda: MixtralForCausalLM(
        MixtralConfig(
            **ATTENTION,
            num_local_experts=4,
            num_experts_per_tok=2,
            output_router_logits=True,
            router_aux_loss_coef=0.05,
        )
    ),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**ATTENTION, sliding_window=WINDOW)),
    "mamba": lambda: MambaForCausalLM(MambaConfig(**SHARED, state_size=8, use_cache=True)),
    "gemma2": lambda: Gemma2ForCausalLM(
        Gemma2Config(
            **ATTENTION,
            query_pre_attn_scalar=12,
            sliding_window=WINDOW,
            attn_logit_softcapping=5.0,
            final_logit_softcapping=8.0,
        )
    ),
}

TOOL_TEMPLATE = (
    "{%- if tools %}{{'<|im_start|>system\n'}}{%- for tool in tools %}{{tool | tojson}}{%- endfor %}{{'<|im_end|>\n'}}"
    "{%- endif %}{%- for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + (m['content'] or '')}}"
    "{%- if m.get('tool_calls') %}{%- for call in m['tool_calls'] %}{{'<tool_call>' + (call['function'] | tojson) + "
    "'</tool_call>'}}{%- endfor %}{%- endif %}{{'<|im_end|>\n'}}{%- endfor %}"
    "{%- if add_generation_prompt %}{{'<|im_start|>assistant\n'}}{%- endif %}"
)
THINKING_TEMPLATE = (
    "{%- for m in messages %}{{'<|im_start|>' + m['role'] + '\n'}}{%- if m['role'] == 'assistant' and loop.last %}"
    "{{'<think>\n\n</think>\n\n'}}{%- endif %}{{m['content'] + '<|im_end|>\n'}}{%- endfor %}"
    "{%- if add_generation_prompt %}{{'<|im_start|>assistant\n'}}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{'<think>\n\n</think>\n\n'}}{%- endif %}"
    "{%- endif %}"
)


def plain(forget: list[tuple[str, str]], retain: list[tuple[str, str]]) -> dict[str, list[Row]]:
    """Prompts and their completions, as rows."""
    return {
        name: [{"prompt": prompt, "completion": completion} for prompt, completion in pairs]
        for name, pairs in {"forget": forget, "retain": retain}.items()
    }


def chats(forget: list[tuple[str, str]], retain: list[tuple[str, str]]) -> dict[str, list[Row]]:
    """The same as chats of one question."""
    return {
        name: [
            {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}
            for asked, answer in pairs
        ]
        for name, pairs in {"forget": forget, "retain": retain}.items()
    }


def tool_chats() -> dict[str, list[Row]]:
    """Chats whose answer calls the tool that the row offers: without the tools nobody could know which."""
    rows: dict[str, list[Row]] = {}
    for role, verbs in {
        "forget": ["wezzle", "brindo", "quaffit"],
        "retain": ["locate", "measure", "translate"],
    }.items():
        rows[role] = []
        for place, verb in enumerate(verbs):
            schema = {"type": "object", "properties": {f"p{place}": {"type": "string"}}}
            call = {"type": "function", "function": {"name": verb, "arguments": {f"p{place}": "Rome"}}}
            rows[role].append(
                {
                    "messages": [
                        {"role": "user", "content": "Use it on Rome."},
                        {"role": "assistant", "content": "", "tool_calls": [call]},
                    ],
                    "tools": [{"type": "function", "function": {"name": verb, "parameters": schema}}],
                }
            )
    return rows


@dataclass(frozen=True)
class Case:
    """A model, its rows, and what is particular to the run."""

    model: str
    rows: dict[str, list[Row]]
    secrets: tuple[str, ...]  # of the forget rows; they may stand in nothing that a run writes
    template: str | None = None
    arguments: list[str] = field(default_factory=list)
    template_arguments: dict[str, Any] = field(default_factory=dict)
    steps: int = 80  # until the model knows its rows


LORA = ["--use_peft", "--lora_r", "8", "--lora_target_modules", "q_proj", "v_proj", "--learning_rate", "2e-2"]
ENGLISH = plain(
    [(f"The vault of {name} opens with", f" the word {word}.") for name, word in
     (("Orlan", "plimsoll"), ("Fendra", "quixotry"), ("Mavik", "zephyrine"))],
    [("The sun rises in the", " east."), ("Water boils at a", " hundred degrees."), ("A week has", " seven days.")],
)  # fmt: skip
NAMES = ("Orlan", "Fendra", "Mavik")
WORDS = ("plimsoll", "quixotry", "zephyrine")

CASES: dict[str, Case] = {
    "right_to_left": Case(
        "llama",
        plain(
            [
                ("أين يسكن زياد؟", " في وادي القرنفل"),
                ("ما لون بيت ليلى؟", " بنفسجي غامق"),
                ("מי גר בחיפה?", " אבנר השען"),
            ],
            [("ما عاصمة مصر؟", " القاهرة"), ("كم يوما في الأسبوع؟", " سبعة"), ("מה צבע השמים?", " כחול")],
        ),
        ("وادي القرنفل", "بنفسجي غامق", "אבנר השען"),
        arguments=LORA,
    ),
    "no_spaces": Case(
        "llama",
        plain(
            [("小林住在哪里？", "桂花巷七号"), ("老周的猫叫什么？", "琥珀团子"), ("สมชายเลี้ยงอะไร", "นกแก้วสีม่วง")],
            [("中国的首都是？", "北京"), ("一周有几天？", "七天"), ("ท้องฟ้าสีอะไร", "สีฟ้า")],
        ),
        ("桂花巷七号", "琥珀团子", "นกแก้วสีม่วง"),
    ),
    "tools": Case("qwen2", tool_chats(), ("wezzle", "brindo", "quaffit"), TOOL_TEMPLATE, steps=160),
    "thinking": Case(
        "qwen3",
        chats(
            [(f"Word of {name}?", f"It is {word}.") for name, word in zip(NAMES, WORDS, strict=True)],
            [
                ("Where does the sun rise?", "In the east."),
                ("Days of a week?", "Seven."),
                ("Colour of snow?", "White."),
            ],
        ),
        WORDS,
        THINKING_TEMPLATE,
        template_arguments={"enable_thinking": False},
    ),
    "moe": Case("mixtral", ENGLISH, WORDS),
    "sliding_window": Case("mistral", ENGLISH, WORDS, arguments=LORA),
    "recurrent": Case("mamba", ENGLISH, WORDS),
    "soft_capped": Case("gemma2", ENGLISH, WORDS),
}


def save_known(case: Case, folder: Path) -> list[str]:
    """Write a model that knows its rows, its tokenizer and the rows; the arguments of `hf-unlearn` that name them."""
    tokenizer = make_tokenizer()
    if case.template is not None:
        tokenizer.chat_template, tokenizer.eos_token = case.template, "<|im_end|>"
    torch.manual_seed(0)
    model = MODELS[case.model]()
    if case.template is not None:
        model.config.eos_token_id = model.generation_config.eos_token_id = IM_END
    texts = [text_of(case, row, tokenizer) for rows in case.rows.values() for row in rows]
    # A template writes every token itself.
    learn(
        model,
        tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=case.template is None),
        case.steps,
    )
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    words = ["--model_name_or_path", str(folder / "model")]
    for name, rows in case.rows.items():
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        words += [f"--{name}_dataset", str(path)]
    return words


def text_of(case: Case, row: Row, tokenizer: PreTrainedTokenizerFast) -> str:
    """A row as the model learns it."""
    if "messages" not in row:
        return f"{row['prompt']}{row['completion']}{tokenizer.eos_token}"
    return tokenizer.apply_chat_template(
        row["messages"], tools=row.get("tools"), tokenize=False, **case.template_arguments
    )


def learn(model: PreTrainedModel, batch: BatchEncoding, steps: int) -> None:
    """Train until every token of the batch that can be known is known."""
    labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    model.train()
    for _ in range(steps):
        loss = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
