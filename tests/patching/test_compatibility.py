"""Patches that do not fit a backbone: they are refused before the first hook, with the difference named."""

import pytest
import torch

from dmp_cli.backbones import as_backbone
from dmp_cli.config import BackboneRecord
from dmp_cli.errors import ConfigError, PatchError
from dmp_cli.patching.attachment import attach
from dmp_cli.patching.identity import backbone_digest
from tests.backbones.pipelines import tiny_unet
from tests.builders import call_of, filled_patch, tiny_dit, zero_patch
from tests.patching.watching import count_hooks


def recorded(backbone):
    """The backbone with a record of where its weights came from."""
    digest = backbone_digest(backbone)
    backbone.record = BackboneRecord(family="dit", sizes=backbone.sizes, source="here.pt", digest=digest)
    return backbone


def test_more_depth_than_blocks_is_refused():
    with pytest.raises(ConfigError, match="--depth 4: this backbone has 3 blocks"):
        zero_patch(tiny_dit(), depth=4)


@pytest.mark.parametrize("variant", [{}, {"depth": 0}])
def test_a_second_patch_is_refused(variant):
    backbone = tiny_dit()
    patched = attach(backbone, filled_patch(backbone, **variant))
    hooks = count_hooks(backbone)
    with pytest.raises(PatchError, match="attached already"):
        attach(backbone, filled_patch(backbone, seed=1))
    assert count_hooks(backbone) == hooks
    attach(patched.detach(), filled_patch(backbone, seed=1))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"input_size": 12}, r"prompts of shape \[\(36, 16\)\], not \[\(16, 16\)\]"),
        ({"hidden_size": 32}, "gate width 32, not 16"),
        ({"depth": 4}, "4 prompted blocks, not at most 3"),
        ({"num_heads": 4}, "num_heads 4, not 2"),
        ({"freq_shift": 1.0}, "freq_shift 1.0, not 0.0"),
        ({"num_classes": 5}, "num_classes 5, not 4"),
    ],
)
def test_a_patch_of_other_sizes_is_refused_before_anything_happens(changes, reason):
    backbone = recorded(tiny_dit()).train()
    patch = filled_patch(recorded(tiny_dit(**changes)))
    for force in (False, True):
        with pytest.raises(PatchError, match=reason):
            attach(backbone, patch, force=force)
    assert count_hooks(backbone) == 0
    assert backbone.training
    assert backbone.blocks[0].attn.qkv.weight.requires_grad


def test_shapes_are_checked_without_a_record_too():
    backbone = tiny_dit()
    for changes in ({"input_size": 12}, {"hidden_size": 32}, {"depth": 4}):
        patch = filled_patch(tiny_dit(**changes))
        assert patch.record is None
        with pytest.raises(PatchError, match="another backbone"):
            attach(backbone, patch)
    assert count_hooks(backbone) == 0


def test_another_family_is_refused():
    backbone = recorded(tiny_dit())
    patch = filled_patch(backbone)
    patch.record = patch.record.model_copy(
        update={"backbone": patch.record.backbone.model_copy(update={"family": "unet"})}
    )
    with pytest.raises(PatchError, match="family unet, not dit"):
        attach(backbone, patch, force=True)
    assert count_hooks(backbone) == 0


@pytest.mark.parametrize("knows_its_digest", [True, False])
def test_other_weights_are_refused_unless_forced(knows_its_digest):
    patch = filled_patch(recorded(tiny_dit()))
    other = tiny_dit(seed=1)
    if knows_its_digest:
        recorded(other)
    with pytest.raises(PatchError, match=r"here\.pt with digest") as caught:
        attach(other, patch)
    assert "--force-backbone" in caught.value.hint
    assert count_hooks(other) == 0
    assert attach(other, patch, force=True)(*call_of(other)).isfinite().all()
    same = tiny_dit()
    assert attach(same, patch)(*call_of(same)).isfinite().all()


def test_a_module_that_is_not_a_backbone_is_refused():
    with pytest.raises(PatchError, match="Linear is not a backbone"):
        attach(torch.nn.Linear(2, 2), filled_patch(tiny_dit()))


def test_variants_that_feature_maps_cannot_have_are_refused():
    backbone = as_backbone(tiny_unet())
    for variant, reason in [
        ({"position": "prepend"}, "feature maps"),
        ({"selection": "hard"}, "different sizes"),
        ({"depth": 6}, "5 blocks"),
        ({"gate_input": "conditioning"}, "can read the timestep"),
    ]:
        with pytest.raises(ConfigError, match=reason):
            zero_patch(backbone, **variant)
