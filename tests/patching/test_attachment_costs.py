"""What a patch costs: operations, memory for backward, FLOPs. Costs are counted, never timed."""

from collections import Counter

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from dmp_cli.patching.attachment import attach
from tests.builders import call_of, filled_patch, tiny_dit, zero_patch
from tests.patching.counting import kept_for_backward, wide_dit


class CountOperations(TorchDispatchMode):
    """Counts every tensor operation below autograd, by name."""

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
