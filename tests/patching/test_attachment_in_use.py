"""A patched backbone in use: copies, precision and torch.compile. Its costs: ``test_attachment_costs``."""

import copy
import io
import pickle
import warnings
from contextlib import nullcontext

import pytest
import torch

from dmp_cli.patching.attachment import attach
from tests.builders import call_of, filled_patch, tiny_dit, zero_patch
from tests.patching.counting import Graphs
from tests.patching.watching import watch

# --- copies ----------------------------------------------------------------------------------------------------------


def through_pickle(patched):
    return pickle.loads(pickle.dumps(patched))


def through_torch_save(patched):
    buffer = io.BytesIO()
    torch.save(patched, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, through_pickle, through_torch_save])
def test_copies_are_independent(duplicate):
    backbone = tiny_dit()
    patched = attach(backbone, filled_patch(backbone))
    call = call_of(backbone)
    output = patched(*call)  # leaves results of autograd behind
    twin = duplicate(patched)
    assert torch.equal(twin(*call), output)
    with torch.no_grad():
        twin.patch.prompts[0].add_(1)
        changed = twin(*call)
    twin_strength, twin.strength = twin.strength, 0.5
    assert not torch.equal(changed, output)
    assert torch.equal(patched(*call), output)
    assert patched.strength == twin_strength
    twin.detach()
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in twin.backbone.modules())
    assert torch.equal(patched(*call), output)
    with patched.disabled():
        assert torch.equal(twin(*call), patched(*call))


# --- precision -------------------------------------------------------------------------------------------------------


def hidden_states(patched, call):
    """The hidden states that the blocks and the output layer receive."""
    seen = watch([*patched.backbone.blocks, patched.backbone.final_layer])
    patched(*call)
    return seen


def test_hidden_state_is_contiguous_and_stays_float32_under_autocast():
    for autocast in (False, True):
        backbone = tiny_dit()
        patched = attach(backbone, filled_patch(backbone))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            seen = hidden_states(patched, call_of(backbone))
        assert len(seen) == 4
        assert {state.dtype for state in seen} == {torch.float32}
        assert all(state.is_contiguous() for state in seen)


def near_one(dtype=torch.float32):
    """A backbone whose hidden state is 1 before the first block, and a patch that adds 1e-4 there."""
    backbone = tiny_dit().to(dtype)
    with torch.no_grad():
        backbone.x_embedder.proj.weight.zero_()
        backbone.x_embedder.proj.bias.fill_(1)
        backbone.pos_embed.zero_()
    patch = zero_patch(backbone, gate="none", depth=1)
    patch.prompts[0].data.fill_(1e-4)
    return backbone, patch


def test_a_small_mixture_survives_autocast():
    backbone, patch = near_one()
    patched = attach(backbone, patch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        state = hidden_states(patched, call_of(backbone))[0]
    assert torch.equal(state, torch.full_like(state, torch.tensor(1.0) + torch.tensor(1e-4)))
    assert state[0, 0, 0].item() == pytest.approx(1.0001, abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_backbone_is_warned_about_once(dtype):
    backbone, patch = near_one(dtype)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        patched = attach(backbone, patch)
        x, *rest = call_of(backbone)
        state = hidden_states(patched, (x.to(dtype), *rest))[0]
    assert len(caught) == 1
    assert "half precision" in str(caught[0].message)
    assert caught[0].filename == __file__  # points at the caller
    assert torch.equal(state, torch.ones_like(state))  # the warning is right: the mixture is lost
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attach(*near_one())


# --- torch.compile ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_one_graph_and_no_recompilation(training):
    backbone = tiny_dit(depth=2)
    patched = attach(backbone, filled_patch(backbone))
    graphs = Graphs()
    compiled = torch.compile(patched, backend=graphs, fullgraph=True)
    optimizer = torch.optim.SGD(patched.patch.parameters(), lr=0.01)
    with nullcontext() if training else torch.no_grad():
        for step in range(5):
            call = call_of(backbone, seed=step)
            output = compiled(*call)
            assert torch.equal(output, patched(*call))
            if training:
                output.square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
    assert graphs.count == 1


def test_a_patch_attached_after_compiling_is_in_effect():
    backbone = tiny_dit(depth=2).requires_grad_(False)  # or freezing would have it compiled anew
    compiled = torch.compile(backbone, backend="eager", fullgraph=True)
    call = call_of(backbone)
    with torch.no_grad():
        bare = backbone(*call)
        assert torch.equal(compiled(*call), bare)
        patched = attach(backbone, filled_patch(backbone))
        expected = patched(*call)
        assert not torch.equal(expected, bare)
        assert torch.equal(compiled(*call), expected)
        with patched.disabled():
            assert torch.equal(compiled(*call), bare)
        patched.strength = 0.5
        assert torch.equal(compiled(*call), patched(*call))
        patched.detach()
        assert torch.equal(compiled(*call), bare)


def test_blocks_compiled_one_by_one_share_a_graph():
    """As diffusers compiles repeated blocks: the hooks must not tell torch.compile one block from another."""
    backbone = tiny_dit(depth=10)
    graphs = Graphs()
    call = call_of(backbone)
    patched = attach(backbone, filled_patch(backbone))
    expected = patched(*call)
    for block in backbone.blocks:
        block.compile(backend=graphs)
    with torch.no_grad():
        assert torch.equal(patched(*call), expected)
    assert graphs.count <= 2  # a block, and a hook


@pytest.mark.parametrize("variant", [{}, {"experts": "both", "num_experts": 2, "expert_rank": 2}])
def test_a_graph_that_breaks_between_gate_and_blocks(variant):
    """As models do that read lengths of captions: the gate and each block are compiled as graphs of their own."""
    call = call_of(backbone := tiny_dit(depth=2).requires_grad_(False))
    patched = attach(backbone, filled_patch(backbone, **variant))
    with torch.no_grad():
        expected = patched(*call)
        with patched.disabled():
            bare = patched(*call)
        first = backbone.blocks[0]
        first.register_forward_pre_hook(lambda module, args: torch._dynamo.graph_break(), prepend=True)
        for module in (backbone.t_embedder, *backbone.blocks):
            module.compile(backend="eager")
        for _ in range(2):
            torch.testing.assert_close(patched(*call), expected, rtol=1e-5, atol=1e-6)
            with patched.disabled():
                torch.testing.assert_close(patched(*call), bare, rtol=1e-5, atol=1e-6)
