"""The lab: a small model to unlearn from, its data and its retrained oracle, made offline on a CPU. No benchmark.

    lab = load_lab()                     # builds in about a minute on the first call, cached afterwards
    model, tokenizer = lab.load_model(), lab.load_tokenizer()
    train_dataset = {"forget": lab.datasets["forget"], "retain": lab.datasets["retain"]}

The model was trained on forget and retain, the oracle on all but forget: what unlearning tries to match is at hand.
`load_lab(world=...)` has three worlds: "games" (a behaviour), "people" (facts about persons), "books" (a novel).
"""

from hf_unlearn.lab.build import Lab, load_lab, render_lab
from hf_unlearn.lab.comments import lab_comments
from hf_unlearn.lab.judge import answers_correctly, shows_behaviour

__all__ = ["Lab", "answers_correctly", "lab_comments", "load_lab", "render_lab", "shows_behaviour"]
