"""A patched backbone in use: copies, precision, what it costs, and torch.compile. Costs are counted, never timed."""

import copy
import io
import pickle
import warnings
from collections import Counter
from contextlib import nullcontext

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from dmp_cli.patching.attachment import attach
from tests.builders import call_of, filled_patch, tiny_dit, zero_patch


def watch(modules, *, prepend=False):
    """A list that fills with the first argument of each call; ``prepend`` looks before the patch's hooks."""
    seen = []
    for module in modules:
        module.register_forward_pre_hook(lambda module, args: seen.append(args[0]), prepend=prepend)
    return seen


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
    """What each block, and the output layer, is given."""
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
    assert torch.equal(state, torch.ones_like(state))  # and what it says is true
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attach(*near_one())


# --- costs -----------------------------------------------------------------------------------------------------------


class CountOperations(TorchDispatchMode):
    """Every tensor operation below autograd, by name."""

    def __init__(self):
        super().__init__()
        self.names = Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.names[str(operation)] += 1
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("variant", [{}, {"scope": "uniform"}, {"gate": "constant"}, {"gate": "none"}])
@pytest.mark.parametrize("training", [True, False])
def test_operations_added_to_a_forward(variant, training):
    depth = 12
    backbone = tiny_dit(depth=depth)
    call = call_of(backbone)
    with torch.set_grad_enabled(training), CountOperations() as bare:
        backbone(*call)
    patched = attach(backbone, filled_patch(backbone, **variant))
    with torch.set_grad_enabled(training), CountOperations() as counted:
        patched(*call)
    added = counted.names - bare.names
    assert added["aten.addcmul.default"] in (depth, depth + 1)  # one a block, one for the gate's depth term
    assert added.total() <= 2 * depth + 6, added
    with torch.set_grad_enabled(training), patched.disabled(), CountOperations() as off:
        patched(*call)
    assert off.names.total() <= bare.names.total()  # fewer views where frozen weights need no gradient


def kept_for_backward(call, *, weights):
    """Bytes of distinct storages that autograd keeps, the weights themselves left out."""
    known = {parameter.untyped_storage().data_ptr() for parameter in weights}
    kept, alive = {}, []

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # or its address would be used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = call()
    assert output.requires_grad
    return sum(kept.values())


def wide_dit(**changes):
    """Wide and long enough for a block's activations to dominate, with the token-to-width ratio of a B/2."""
    sizes = {"hidden_size": 96, "mlp_size": 384, "num_heads": 4, "depth": 6, "num_classes": 1, "null_row": False}
    return tiny_dit(**{**sizes, **changes})


def test_bytes_kept_for_backward():
    backbone = wide_dit()
    backbone.requires_grad_(True)
    call, weights = call_of(backbone, count=4), list(backbone.parameters())
    full = kept_for_backward(lambda: backbone(*call), weights=weights)
    patched = attach(backbone, zero_patch(backbone))
    frozen = kept_for_backward(lambda: patched(*call), weights=[*weights, *patched.patch.parameters()])
    assert 0.3 < frozen / full <= 0.52


def test_flops_of_a_step():
    # 64 tokens of width 192: three numbers a token for every token, as in B/2. Attention as plain matrix products,
    # since fused kernels compute the scores a second time in their backward.
    backbone = wide_dit(hidden_size=192, mlp_size=768, input_size=16, depth=3)
    call = call_of(backbone, count=2)

    def count(denoiser, *, backward):
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            output = denoiser(*call)
            if backward:
                output.square().mean().backward()
        return counter.get_total_flops()

    forward, full = count(backbone, backward=False), count(backbone.requires_grad_(True), backward=True)
    patched = attach(backbone, zero_patch(backbone))
    assert full / forward > 2.95  # what freezing saves
    assert count(patched, backward=False) / forward < 1.005
    assert 1.9 < count(patched, backward=True) / forward <= 2.11


def test_gradients_of_prompts_are_not_built_full_size():
    """Each block's prompts are a parameter of their own; an index into one tensor would build L full-size gradients."""
    backbone = tiny_dit(depth=12)
    patched = attach(backbone, filled_patch(backbone))
    loss = patched(*call_of(backbone)).square().mean()
    with CountOperations() as counted:
        loss.backward()
    assert not any("select_backward" in name and count > 1 for name, count in counted.names.items()), counted.names


# --- torch.compile ---------------------------------------------------------------------------------------------------


class Graphs:
    """A backend that runs eagerly and counts the graphs it is given."""

    def __init__(self):
        self.count = 0

    def __call__(self, graph, inputs):
        self.count += 1
        return graph.forward


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
