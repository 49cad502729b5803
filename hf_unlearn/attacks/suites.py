"""The packaged suites of attacks: what is tried in under a minute, in minutes, and in hours on a small model."""

from typing import Any

# Arguments where they differ from an attack's defaults.
ATTACK_SUITES: dict[str, list[dict[str, Any]]] = {
    "quick": [
        {
            "name": "relearn",
            "rates": (3e-4,),
            "steps": 20,
            "every": 10,
            "sets": ("forget",),
            "adapters": ("full",),
        },
        {"name": "quantize", "kinds": ("int4",)},
        {"name": "sampling"},
        {"name": "remove_adapter"},
        {"name": "remove_suppression"},
    ],
    "standard": [
        {"name": "membership"},
        {"name": "sampling"},
        {"name": "remove_adapter"},
        {"name": "remove_suppression"},
        {"name": "quantize"},
        {"name": "logit_lens"},
        {"name": "probe"},
        {"name": "prune"},
        {"name": "contrast"},
        {"name": "prompts"},
        {"name": "relearn", "rates": (3e-5, 1e-4, 3e-4, 1e-3), "steps": 50},
        {"name": "leak_at_k", "samples": 32, "temperatures": (0.8,)},
    ],
    "thorough": [
        {"name": "membership"},
        {"name": "sampling"},
        {"name": "remove_adapter"},
        {"name": "remove_suppression"},
        {"name": "quantize"},
        {"name": "prune"},
        {"name": "merge"},
        {"name": "logit_lens"},
        {"name": "tuned_lens"},
        {"name": "probe"},
        {"name": "answer_probe"},
        {"name": "patching"},
        {"name": "contrast"},
        {"name": "prompts"},
        {"name": "soft_prompt"},
        {"name": "relearn"},
        {"name": "leak_at_k"},
        {"name": "suffix"},
    ],
}
