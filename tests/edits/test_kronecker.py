"""Curvature of linear layers against Hessians and Fisher matrices that are built whole; draws against entropies."""

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from fixtures.edited import ragged
from fixtures.models import VOCABULARY, tiny_model, tiny_tokenizer
from fixtures.planted import planted_rows
from hf_unlearn.edits.drawn_answers import drawn_batches, with_drawn_answers
from hf_unlearn.edits.kronecker import DrawnBatch, curvatures
from hf_unlearn.edits.layer_inputs import listening
from hf_unlearn.edits.matrices import Matrix, chosen_matrices
from hf_unlearn.evaluation.questioner import Questioner
from oracles.naive import token_logps

KINDS = ("kfac", "ekfac", "diagonal")


def _softmax_model(labels):
    """A linear softmax model that gives every input the distribution of `labels`, and its rows with these labels."""
    torch.manual_seed(0)
    model = nn.Linear(5, max(labels) + 1).double()
    nn.init.zeros_(model.weight)
    model.bias.data = torch.bincount(torch.tensor(labels)).double().div(len(labels)).log()
    inputs = torch.randn(7, 5, dtype=torch.float64) @ torch.randn(5, 5, dtype=torch.float64) + 1
    inputs, targets = inputs.repeat_interleave(len(labels), 0), torch.tensor(labels).repeat(7)

    def batches():
        for part in (slice(0, 20), slice(20, None)):  # batches of two sizes

            def backward(part=part):
                loss = nn.functional.cross_entropy(model(inputs[part, None])[:, 0], targets[part], reduction="sum")
                torch.autograd.grad(loss, list(model.parameters()))

            yield DrawnBatch(torch.ones(len(inputs[part]), 1, dtype=torch.long), len(inputs[part]), backward)

    return model, inputs, batches


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [0, 0, 0, 0, 1, 1, 2, 3]])
def test_step_is_newtons_on_a_linear_softmax_model(labels):
    # Every input has the same distribution, and the labels are that distribution: curvature is A x G exactly.
    model, inputs, batches = _softmax_model(labels)
    ones = torch.cat([inputs, torch.ones(len(inputs), 1, dtype=torch.float64)], 1)
    matrix = torch.cat([model.weight, model.bias[:, None]], 1).detach()

    def mean_nll(flat):
        return -(ones @ flat.view_as(matrix).T).log_softmax(-1)[:, 0].mean()

    hessian = torch.autograd.functional.hessian(mean_nll, matrix.flatten())
    gradient = torch.randn(matrix.shape, dtype=torch.float64)
    damped = hessian + 0.1 * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)
    newton = torch.linalg.solve(damped, gradient.flatten()).view_as(matrix)
    layers = {"only": Matrix(model, with_bias=True)}
    steps = {kind: curvatures(layers, batches, kind)["only"].solve(gradient, 0.1) for kind in KINDS}
    torch.testing.assert_close(steps["kfac"], newton)
    torch.testing.assert_close(steps["ekfac"], newton)
    diagonal = gradient / damped.diagonal().view_as(matrix)
    torch.testing.assert_close(steps["diagonal"], diagonal)
    assert (diagonal - newton).norm() > 0.3 * newton.norm()
    # Without the bias the block is another one.
    weights = curvatures({"only": Matrix(model)}, batches, "kfac")["only"].solve(gradient[:, :-1], 0.1)
    assert (weights - newton[:, :-1]).norm() > 0.01 * newton.norm()


def test_is_not_newtons_step_where_distributions_follow_inputs():
    model, inputs, batches = _softmax_model([0, 1, 2, 3])
    nn.init.normal_(model.weight)
    rows = torch.stack([g.flatten() for g in _row_gradients(model, inputs)])
    gradient = torch.randn(4, 5, dtype=torch.float64)
    steps = [curvatures({"only": Matrix(model)}, batches, kind)["only"].solve(gradient, 0.1) for kind in KINDS]
    fisher = rows.T @ rows / len(rows)
    damping = 0.1 * fisher.diagonal().mean() * torch.eye(20, dtype=torch.float64)
    exact = torch.linalg.solve(fisher + damping, gradient.flatten()).view(4, 5)
    errors = [float((step - exact).norm() / exact.norm()) for step in steps]
    # The correction of the eigenvalues brings K-FAC nearer to the matrix that it stands for.
    assert 0.01 < errors[1] < errors[0] and errors[1] < errors[2]


def _row_gradients(model, inputs):
    for row, label in zip(inputs, torch.arange(4).repeat(len(inputs) // 4), strict=True):
        yield torch.autograd.grad(nn.functional.cross_entropy(model(row), label), model.weight)[0]


def _gpt2():
    torch.manual_seed(0)
    shape = dict(n_embd=8, n_head=2, n_layer=2, n_inner=12, n_positions=64, vocab_size=VOCABULARY)
    return GPT2LMHeadModel(GPT2Config(**shape, initializer_range=0.3, attn_pdrop=0, resid_pdrop=0, embd_pdrop=0))


def test_blocks_are_sums_of_outer_products():
    """Conv1D with a bias, rows of unequal length padded into batches; the oracle runs every row alone."""
    model = _gpt2().double().eval()
    rows = ragged(planted_rows()["retain"][:9])
    questioner = Questioner(tiny_tokenizer(), batch_size=4)
    name, layer = "transformer.h.0.mlp.c_fc", model.transformer.h[0].mlp.c_fc
    read, sent, fisher, tokens = [], [], 0, 0
    for row in rows:
        spot = torch.zeros(1, len(row["input_ids"]), 12, dtype=torch.float64, requires_grad=True)
        handle = layer.register_forward_hook(
            lambda module, given, output, spot=spot: (read.append(given[0]), output + spot)[1]
        )
        nll = -token_logps(model, row).sum()
        handle.remove()
        by_weight, by_bias, by_spot = torch.autograd.grad(nll, [layer.weight, layer.bias, spot])
        sent.append(by_spot[0])
        flat = torch.cat([by_weight.T, by_bias[:, None]], 1).flatten()
        fisher = fisher + torch.outer(flat, flat)
        tokens += sum(label != -100 for label in row["labels"][1:])
    read = torch.cat([part.detach()[0] for part in read])
    read, sent = torch.cat([read, torch.ones(len(read), 1)], 1), torch.cat(sent)
    inputs, outputs = read.T @ read / len(read), sent.T @ sent / tokens
    fisher = fisher / tokens
    basis = torch.kron(torch.linalg.eigh(outputs).eigenvectors, torch.linalg.eigh(inputs).eigenvectors)
    corrected = basis @ (basis.T @ fisher @ basis).diagonal().diag() @ basis.T
    whole = {"kfac": torch.kron(outputs, inputs), "ekfac": corrected, "diagonal": fisher.diagonal().diag()}
    matrices = {name: chosen_matrices(model, None, with_bias=True)[name]}
    gradient = torch.randn(12, 9, dtype=torch.float64)
    for kind, block in whole.items():
        curvature = curvatures(matrices, lambda: drawn_batches(model, questioner, rows), kind)[name]
        damped = block + 0.1 * block.diagonal().mean() * torch.eye(len(block), dtype=torch.float64)
        expected = torch.linalg.solve(damped, gradient.flatten()).view_as(gradient)
        torch.testing.assert_close(curvature.solve(gradient, 0.1), expected, rtol=1e-6, atol=1e-9)


def test_answers_are_drawn_from_the_models_own_distributions():
    model = tiny_model().eval()
    rows = planted_rows()["retain"] * 6
    drawn = [with_drawn_answers(model, Questioner(tiny_tokenizer(), seed=seed), rows) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    for row, other in zip(rows, drawn[0], strict=True):
        assert other["input_ids"] == row["input_ids"]
        assert [label == -100 for label in other["labels"]] == [label == -100 for label in row["labels"]]
    # In the mean the NLL of a draw is the entropy of what it is drawn from; that of the rows' own answers is not.
    with torch.no_grad():
        batch = next(iter(_padded(rows)))
        logps = model(**batch).logits.log_softmax(-1)[:, :-1]
    entropies, nlls, own = [], [], []
    for place, (row, other) in enumerate(zip(rows, drawn[0], strict=True)):
        for position, label in enumerate(other["labels"][1:]):
            if label != -100:
                at = logps[place, position]
                entropies.append(float(-(at.exp() * at).sum()))
                nlls.append(float(-at[label]))
                own.append(float(-at[row["labels"][position + 1]]))
    excess = torch.tensor(nlls) - torch.tensor(entropies)
    error = excess.std() / len(excess) ** 0.5
    assert excess.mean().abs() < 4 * error < (torch.tensor(own) - torch.tensor(entropies)).mean()


def _padded(rows):
    batch = Questioner(tiny_tokenizer()).collator.collate_rows(rows)
    yield {name: batch[name] for name in ("input_ids", "attention_mask")}


def test_layers_that_do_not_read_one_vector_a_position_are_refused():
    layer = nn.Linear(3, 2)
    with (
        pytest.raises(ValueError, match=r"Got: expert, which reads \(5, 3\) of a batch of \(2, 4\) tokens"),
        listening({"expert": Matrix(layer)}, torch.ones(2, 4), lambda *heard: None),
    ):
        layer(torch.ones(5, 3))
    assert not layer._forward_hooks
