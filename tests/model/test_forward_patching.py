"""Changes of a model's forward: that they are undone, and that one file of the package makes them all."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import hf_unlearn
from hf_unlearn.model.forward_patching import replaced_attributes, replaced_forward, shifted_output, skipped_blocks

# What changes how a module's forward runs.
PATCH = re.compile(r"\bregister_(?:module_)?(?:full_)?(?:forward|backward)\w*\(|\.forward = |\bdel \w+\.forward\b")


def test_two_files_alone_change_forwards():
    folder = Path(hf_unlearn.__file__).parent
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.py") if PATCH.search(path.read_text())}
    # What suppresses answers at inference stays between calls, and so stands in a file of its own.
    assert files == {"model/forward_patching.py", "model/suppressed_forward.py"}


@pytest.mark.parametrize("patched_before", [False, True])
@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_a_forward_is_what_it_was_also_after_an_error(patched_before, error):
    layer, x = nn.Linear(2, 2), torch.ones(1, 2)
    if patched_before:
        own = layer.forward
        layer.forward = lambda x: own(x) + 1  # as accelerate's hooks do
    before, expected = vars(layer).get("forward"), layer(x)
    try:
        with replaced_forward(layer, lambda x: x + 5):
            assert torch.equal(layer(x), x + 5)
            if error is not None:
                raise error
    except KeyboardInterrupt:
        assert error is KeyboardInterrupt
    assert vars(layer).get("forward") is before and torch.equal(layer(x), expected)


def test_skipped_blocks_hand_on_what_the_last_one_puts_out():
    blocks = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])
    x = torch.ones(1, 2)
    with skipped_blocks(blocks, 1):
        ended = blocks[2](blocks[1](blocks[0](x)))
    assert torch.equal(ended, blocks[0](x)) and not torch.equal(ended, blocks[2](blocks[1](blocks[0](x))))
    assert not any("forward" in vars(block) or block._forward_hooks for block in blocks)


@pytest.mark.parametrize("rest", [(), ("cache",)], ids=["a tensor", "a tuple"])
def test_what_is_added_to_a_block_is_added_to_its_hidden_states_alone(rest):
    class Block(nn.Module):
        def forward(self, x):
            return (2 * x, *rest) if rest else 2 * x

    block, x = Block(), torch.ones(1, 3, 2)
    with shifted_output(block, torch.full((1, 3, 2), 0.5)):
        output = block(x)
    hidden = output[0] if rest else output
    assert torch.equal(hidden, torch.full((1, 3, 2), 2.5)) and (not rest or output[1:] == rest)
    assert not block._forward_hooks


def test_attributes_have_their_own_values_again():
    config = nn.Module()
    config.scale, config.cap = 2.0, None
    with pytest.raises(KeyboardInterrupt), replaced_attributes([(config, "scale", 1.0), (config, "cap", 3.0)]):
        assert (config.scale, config.cap) == (1.0, 3.0)
        raise KeyboardInterrupt
    assert (config.scale, config.cap) == (2.0, None)
