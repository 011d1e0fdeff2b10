"""``guide``: single calls of guided denoisers against the formula, and what is refused. Pipelines: the file beside."""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dmp_cli import attach, guide
from dmp_cli.backbones import as_backbone
from dmp_cli.backbones.dit import DiT
from dmp_cli.errors import PatchError
from tests.backbones.flow_pipelines import tiny_sd3
from tests.backbones.pipelines import tiny_pixart, tiny_plain_unet, tiny_unet
from tests.builders import call_of, filled_patch, tiny_dit

W = 0.75


def halves(x: Tensor) -> Tensor:
    return torch.cat([x, x])


def pixart_call(seed: int = 0) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    source = torch.Generator().manual_seed(seed)
    x, text = halves(torch.randn(2, 4, 8, 8, generator=source)), torch.randn(4, 5, 32, generator=source)
    more = {"encoder_attention_mask": torch.ones(4, 5), "added_cond_kwargs": {"resolution": None, "aspect_ratio": None}}
    return tiny_pixart(), (x,), {"encoder_hidden_states": text, "timestep": torch.full((4,), 500), **more}


def unet_call(seed: int = 0) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    source = torch.Generator().manual_seed(seed)
    x, text = halves(torch.randn(1, 4, 16, 16, generator=source)), torch.randn(2, 5, 32, generator=source)
    return tiny_unet(), (x, torch.tensor(500)), {"encoder_hidden_states": text}


def dit_call(seed: int = 0) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    model = tiny_dit()
    x, _, _ = call_of(model, count=2, seed=seed)
    return model, (halves(x), torch.full((4,), 500), torch.tensor([1, 3, 4, 4])), {}


CALLS: dict[str, Callable[..., Any]] = {"pixart": pixart_call, "unet": unet_call, "dit": dit_call}


def slow_of(model: Any, call: tuple[Any, ...], kwargs: dict[str, Any], **versions: Any) -> Tensor:
    """W (a_c - b_c) added to both halves of a, by two whole forwards of models patched apart."""
    found = []
    for patch in (versions.get("ours"), versions.get("theirs")):
        own = copy.deepcopy(model)
        if patch is not None:
            attach(own, patch)
        output = own(*call, **kwargs)
        found.append(output if isinstance(output, Tensor) else output.sample)
    a, b = (one.clone() for one in found)
    half, channels = len(a) // 2, call[0].shape[1]
    own_rows = slice(0, half) if isinstance(model, DiT) else slice(half, None)
    more = W * (a[own_rows, :channels] - b[own_rows, :channels])
    a[:, :channels] += halves(more)
    return a


@pytest.mark.parametrize(
    ("kind", "variant"), [("pixart", {}), ("unet", {}), ("dit", {}), ("dit", {"position": "prepend", "num_prompts": 3})]
)
def test_one_call(kind: str, variant: dict[str, Any]) -> None:
    model, args, kwargs = CALLS[kind]()
    theirs = filled_patch(model if kind == "dit" else as_backbone(model), **variant)
    with torch.no_grad():
        bare, expected = model(*args, **kwargs), slow_of(model, args, kwargs, theirs=theirs)
        with guide(model, against=theirs, scale=W):
            found = model(*args, **kwargs)
            if kind != "dit":
                (again,) = model(*args, **kwargs, return_dict=False)
                assert type(found) is type(bare)
                found = found.sample
                assert torch.equal(again, found)
                bare = bare.sample
    assert (found - expected).abs().max() <= 1e-6 * max(1, expected.abs().max())
    assert not torch.allclose(found, bare, atol=1e-3)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.filterwarnings("ignore:.*half precision")
def test_in_half_precision_the_type_stays() -> None:
    model, (x,), kwargs = pixart_call()
    exact = slow_of(model, (x,), kwargs, theirs=filled_patch(as_backbone(model)))
    model = model.to(torch.bfloat16)
    kwargs["encoder_hidden_states"] = kwargs["encoder_hidden_states"].bfloat16()
    with torch.no_grad(), guide(model, against=filled_patch(as_backbone(model)), scale=W):
        found = model(x.bfloat16(), **kwargs).sample
    assert found.dtype == torch.bfloat16
    assert (found - exact).abs().max() < 0.05 * exact.abs().max()


def test_a_model_without_conditions() -> None:
    model, x = tiny_plain_unet(), torch.randn(2, 3, 8, 8)
    patch = filled_patch(as_backbone(model))
    with torch.no_grad():
        bare = model(x, 500).sample
        patched = attach(model, patch)
        b = model(x, 500).sample
        patched.detach()
        with guide(model, against=patch, scale=W, classifier_free=False):
            assert torch.allclose(model(x, 500).sample, bare + W * (bare - b), atol=1e-6)
            same = model(halves(x[:1]), 500).sample  # two images from one noise are no two halves here
            assert torch.allclose(same[0], same[1], atol=1e-6)


def test_only_within_the_interval_and_row_by_row() -> None:
    model, x = tiny_plain_unet(), torch.randn(3, 3, 8, 8)
    patch, steps = filled_patch(as_backbone(model)), torch.tensor([0, 500, 999])
    with torch.no_grad():
        bare = model(x, steps).sample
        with guide(model, against=patch, classifier_free=False) as guidance:
            everywhere = model(x, steps).sample
            guidance.interval = (0.2, 0.7)
            found = model(x, steps).sample
            outside = model(x, 100).sample
            guidance.interval = (1.0, 1.0)  # pure noise alone, which is the last timestep
            last = model(x, steps).sample
        assert torch.equal(outside, model(x, 100).sample)
    assert torch.allclose(found[1], everywhere[1], atol=1e-6)
    assert torch.allclose(found[::2], bare[::2], atol=1e-6)
    assert torch.allclose(last, torch.cat([bare[:2], everywhere[2:]]), atol=1e-6)
    assert not torch.allclose(everywhere[::2], bare[::2], atol=1e-3)


def test_the_interval_of_a_flow_is_over_its_levels() -> None:
    model = tiny_sd3()
    x, text, pooled = torch.randn(1, 16, 8, 8), torch.randn(1, 5, 96), torch.randn(1, 64)
    call = {"encoder_hidden_states": text, "pooled_projections": pooled, "return_dict": False}

    def predict(timestep: float) -> Tensor:
        found: Tensor = model(x, timestep=torch.tensor([timestep]), **call)[0]
        return found

    with torch.no_grad():
        bare = predict(500.0), predict(900.0)
        with guide(model, against=filled_patch(as_backbone(model)), scale=W, classifier_free=False) as guidance:
            everywhere = predict(500.0)
            guidance.interval = (0.4, 0.6)  # of levels, which the model is given times 1000
            assert torch.equal(predict(500.0), everywhere)
            assert torch.equal(predict(900.0), bare[1])
    assert not torch.allclose(everywhere, bare[0], atol=1e-3)


def test_threads_and_copies() -> None:
    model, _, _ = dit_call()
    with guide(model, against=filled_patch(model), scale=W) as guidance, torch.no_grad():
        calls = [dit_call(seed)[1] for seed in range(3)]
        expected = [model(*call) for call in calls]
        twin = copy.deepcopy(model)
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)  # threads take turns so often that shared state would be mixed up
        try:
            with ThreadPoolExecutor(3) as pool:
                for _ in range(10):
                    for found, wanted in zip(pool.map(lambda call: model(*call), calls), expected, strict=True):
                        assert torch.equal(found, wanted)
        finally:
            sys.setswitchinterval(before)
        guidance.scale = 0
        assert torch.equal(twin(*calls[0]), expected[0])
        assert not torch.equal(model(*calls[0]), expected[0])


@pytest.mark.parametrize("kind", ["pixart", "unet", "whole"])
def test_what_runs_again_in_the_backward_pass(kind: str) -> None:
    """Two guided forwards before one backward pass: its gradients are those without recomputation."""
    model, args, kwargs = CALLS[kind if kind in CALLS else "pixart"]()
    others = [CALLS[kind if kind in CALLS else "pixart"](seed)[1][0] for seed in (1, 2)]
    patch = filled_patch(as_backbone(model))

    def run(x: Tensor) -> Tensor:
        return model(x, *args[1:], **kwargs).sample

    def gradients(call: Callable[[Tensor], Tensor]) -> list[Tensor]:
        patch.zero_grad()
        (call(others[0]).square().mean() + call(others[1]).pow(3).mean()).backward()
        return [parameter.grad.clone() for parameter in patch.parameters() if parameter.grad is not None]

    with guide(model, against=patch, scale=W):
        expected = gradients(run)
        if kind == "whole":
            found = gradients(functools.partial(checkpoint, run, use_reentrant=False))
        else:
            model.enable_gradient_checkpointing()
            found = gradients(run)
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-7)


def test_compiled() -> None:
    _, args, _ = dit_call()
    model = tiny_dit(depth=1)
    with torch.no_grad(), guide(model, against=filled_patch(model), scale=W):
        expected = model(*args)
        compiled = torch.compile(model, backend="eager")
        for _ in range(2):
            assert torch.equal(compiled(*args), expected)


# --- what is refused -------------------------------------------------------------------------------------------------


def test_calls_that_do_not_hold_what_was_said() -> None:
    model, (x, *rest), kwargs = pixart_call()
    patch = filled_patch(as_backbone(model))
    with torch.no_grad():
        bare = model(x, *rest, **kwargs).sample
        with guide(model, against=patch) as guidance:
            with pytest.raises(PatchError, match="call of 4 rows does not hold the same latents twice"):
                model(x.flip(0) + torch.arange(4.0).view(-1, 1, 1, 1), *rest, **kwargs)
            with pytest.raises(PatchError, match="4 rows and an argument of shape"):
                model(x, *rest, **{**kwargs, "timestep": torch.full((3,), 500)})
            with pytest.raises(RuntimeError):  # an error of the model itself leaves nothing behind either
                model(x, *rest, **{**kwargs, "encoder_hidden_states": torch.zeros(4, 5, 31)})
            guidance.scale = 0
            assert torch.equal(model(x, *rest, **kwargs).sample, bare)
        with (
            guide(model, against=patch, classifier_free=False),
            pytest.raises(PatchError, match="hold the same latents"),
        ):
            model(x, *rest, **kwargs)
    backbone, (x, steps, labels), _ = dit_call()
    with (
        guide(backbone, against=filled_patch(backbone)),
        pytest.raises(PatchError, match="not only the null class 4"),
    ):
        backbone(x, steps, labels.flip(0))


def test_what_cannot_be_guided() -> None:
    model, patch = tiny_pixart(), filled_patch(as_backbone(tiny_pixart()))
    plain, other = tiny_plain_unet(), filled_patch(as_backbone(tiny_plain_unet()))
    refused: list[tuple[str, Any, dict[str, Any]]] = [
        ("both versions are the bare model", model, {"against": None}),
        ("both versions have the same patch", model, {"against": patch, "patch": patch}),
        ("give a finite number", model, {"against": patch, "scale": float("nan")}),
        ("give two shares of the schedule", model, {"against": patch, "interval": (0.9, 0.1)}),
        ("takes the model of a pipeline", as_backbone(model), {"against": patch}),
        ("has no null condition", plain, {"against": other}),
        ("belongs to another backbone", model, {"against": other}),
        ("belongs to another backbone", model, {"patch": patch, "against": other}),
    ]
    for reason, module, how in refused:
        with pytest.raises(PatchError, match=reason):
            guide(module, **how)
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in [*model.modules(), *plain.modules()])
    with guide(model, against=patch):
        for how in ({"against": filled_patch(as_backbone(model), seed=1)}, {"against": None, "patch": patch}):
            with pytest.raises(PatchError, match="attached"):
                guide(model, **how)
    attach(model, patch)
    with pytest.raises(PatchError, match="has a patch attached already"):
        guide(model, against=filled_patch(as_backbone(model), seed=1))
    assert len(model.transformer_blocks[0]._forward_pre_hooks) == 1
