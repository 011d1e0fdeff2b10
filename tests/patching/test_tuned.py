"""BitFit and DiffFit: what is learnt, identity at the start, gradients in float64, and the backbone's own weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from dmp_cli.backbones import Backbone, as_backbone
from dmp_cli.config import TunedMethod
from dmp_cli.errors import ConfigError
from dmp_cli.patching.tuned import Tuned, create_tuned, share_weights, tuned_shapes
from dmp_cli.patching.versions import BackboneVersions
from tests.backbones import test_pixart
from tests.backbones.pipelines import tiny_pixart, tiny_plain_unet, tiny_unet
from tests.builders import call_of, tiny_dit

METHODS: tuple[TunedMethod, ...] = ("bitfit", "difffit")


def call_unet(model: Any) -> Tensor:
    source = torch.Generator().manual_seed(0)
    x, text = torch.randn(2, 4, 16, 16, generator=source), torch.randn(2, 5, 32, generator=source)
    kind = next(model.parameters()).dtype
    return model(x.to(kind), torch.tensor([3, 900]), encoder_hidden_states=text.to(kind)).sample


def call_dit(backbone: Backbone) -> Tensor:
    x, timesteps, labels = call_of(backbone)
    return backbone(x.to(next(backbone.parameters()).dtype), timesteps, labels)


KINDS: dict[str, tuple[Callable[[], Any], Callable[[Any], Tensor]]] = {
    "dit": (tiny_dit, call_dit),
    "pixart": (tiny_pixart, test_pixart.call),
    "unet": (tiny_unet, call_unet),
    "plain": (lambda: tiny_plain_unet(num_class_embeds=3), lambda model: call_dit(as_backbone(model))),
}


def made(kind: str) -> tuple[Backbone, Callable[[], Tensor]]:
    """A backbone, and one forward of it."""
    make, call = KINDS[kind]
    model = make()
    return model if kind == "dit" else as_backbone(model), lambda: call(model)


def fill(tuned: Tuned, *, seed: int = 0) -> None:
    """Change every learnt number."""
    source = torch.Generator().manual_seed(seed)
    for parameter in tuned.parameters.values():
        parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=source))


def dit_names(method: str) -> set[str]:
    blocks = [f"blocks.{i}" for i in range(3)]
    layers = [f"{b}.{name}" for b in blocks for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")]
    layers += [f"{block}.adaLN_modulation.1" for block in blocks]
    layers += ["x_embedder.proj", "t_embedder.mlp.0", "t_embedder.mlp.2"]
    layers += ["final_layer.linear", "final_layer.adaLN_modulation.1"]
    more = {"y_embedder.embedding_table.weight"}
    more |= {f"{b}.{name}.gamma" for b in blocks for name in ("attn.proj", "mlp.fc2")}
    return {f"{layer}.bias" for layer in layers} | (more if method == "difffit" else set())


def pixart_names(method: str) -> set[str]:
    blocks = [f"transformer_blocks.{i}" for i in range(2)]
    attention = [f"{b}.attn{i}.{name}" for b in blocks for i in (1, 2) for name in ("to_q", "to_k", "to_v", "to_out.0")]
    layers = [*attention, *(f"{b}.ff.net.{name}" for b in blocks for name in ("0.proj", "2"))]
    layers += ["pos_embed.proj", "proj_out", "adaln_single.linear"]
    layers += [
        f"{name}.linear_{i}" for name in ("adaln_single.emb.timestep_embedder", "caption_projection") for i in (1, 2)
    ]
    more = {f"{b}.{name}.gamma" for b in blocks for name in ("attn1.to_out.0", "attn2.to_out.0", "ff.net.2")}
    return {f"{layer}.bias" for layer in layers} | (more if method == "difffit" else set())


def unet_names(method: str, *, tokens: bool) -> set[str]:
    """By the names of diffusers, in which every norm is called so."""
    model = tiny_unet() if tokens else tiny_plain_unet(num_class_embeds=3)
    names = [name for name, _ in model.named_parameters()]
    found = {name for name in names if name.endswith(".bias")}
    if method == "bitfit":
        return found
    found |= {name for name in names if "norm" in name}
    outputs = [name[: -len(".weight")] for name in names if name.endswith(("to_out.0.weight", "ff.net.2.weight"))]
    assert len(outputs) == (3 * 4 if tokens else 4)
    return found | {f"{name}.gamma" for name in outputs} | (set() if tokens else {"class_embedding.weight"})


NAMES = {
    "dit": dit_names,
    "pixart": pixart_names,
    "unet": lambda method: unet_names(method, tokens=True),
    "plain": lambda method: unet_names(method, tokens=False),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_exactly_what_is_named_is_learnt_and_the_own_weights_come_back(kind: str, method: TunedMethod) -> None:
    backbone, call = made(kind)
    own = {name: tensor.clone() for name, tensor in backbone.core.state_dict().items()}
    with torch.no_grad():
        bare = call()
    tuned = create_tuned(backbone, method)
    assert tuned.parameters.keys() == NAMES[kind](method)
    assert {name: tuple(p.shape) for name, p in tuned.parameters.items()} == tuned_shapes(backbone, method)
    with torch.no_grad():
        assert torch.equal(call(), bare)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        learning = call()
        assert torch.equal(learning, made(kind)[1]())
    optimizer = torch.optim.AdamW({*backbone.parameters(), *tuned.parameters.values()}, lr=0.1, weight_decay=0.1)
    call().square().mean().backward()
    optimizer.step()
    before = {name: own[name] if name in own else torch.ones_like(p) for name, p in tuned.parameters.items()}
    assert all(not torch.equal(parameter, before[name]) for name, parameter in tuned.parameters.items())
    changed = {name for name, tensor in backbone.core.state_dict().items() if not torch.equal(tensor, own[name])}
    assert changed == {name for name in tuned.parameters if not name.endswith(".gamma")}
    with torch.no_grad():
        ours = call()
        assert not torch.equal(ours, bare)
        tuned.remove(backbone)
        assert torch.equal(call(), bare)
    assert all(torch.equal(tensor, own[name]) for name, tensor in backbone.core.state_dict().items())


@pytest.mark.parametrize("kind", ["dit", "unet"])
def test_gradients_are_those_of_the_formula_in_float64(kind: str) -> None:
    """A layer whose output is scaled has the weights gamma W and the bias gamma b."""
    make, call = KINDS[kind]
    model, plain = make().double(), make().double()
    backbone = model if kind == "dit" else as_backbone(model)
    tuned = create_tuned(backbone, "difffit")
    fill(tuned)
    found = call(model)
    weights: dict[str, Tensor] = {}
    for name, parameter in tuned.parameters.items():
        assert parameter.dtype == torch.float64
        if not name.endswith(".gamma"):
            weights[name] = parameter
    for name, gamma in tuned.parameters.items():
        if name.endswith(".gamma"):
            layer = name[: -len(".gamma")]
            weights[f"{layer}.weight"] = gamma[:, None] * plain.get_submodule(layer).weight
            weights[f"{layer}.bias"] = gamma * tuned.parameters[f"{layer}.bias"]
    expected = functional_call(Called(plain, call), {f"model.{name}": value for name, value in weights.items()}, ())
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    values = [*tuned.parameters.values()]
    ours, theirs = (torch.autograd.grad(output.square().sum(), values) for output in (found, expected))
    for name, one, other in zip(tuned.parameters, ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-11, msg=name)


class Called(torch.nn.Module):
    """A model whose forward is one fixed call."""

    def __init__(self, model: Any, call: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.model, self._call = model, call

    def forward(self) -> Tensor:
        return self._call(self.model)


def test_with_and_without_side_by_side() -> None:
    """The two versions have all in common that is not learnt, and a copy of ours keeps its scales."""
    backbone = tiny_dit()
    call = call_of(backbone)
    with torch.no_grad():
        bare = backbone(*call)
        tuned = create_tuned(backbone, "difffit")
        fill(tuned)
        ours = backbone(*call)
        twin = tuned.bare(backbone)
        assert torch.equal(twin(*call), bare)
        assert torch.equal(backbone(*call), ours)
        assert torch.equal(copy.deepcopy(backbone)(*call), ours)
        versions = BackboneVersions(backbone, twin)
        found = versions(*call, against=torch.tensor([True, False, True]))
        torch.testing.assert_close(found, torch.stack([bare[0], ours[1], bare[2]]), rtol=1e-5, atol=1e-6)
    places = {name: parameter.data_ptr() for name, parameter in backbone.named_parameters()}
    apart = {name for name, parameter in twin.named_parameters() if parameter.data_ptr() != places[name]}
    assert apart == {name for name in tuned.parameters if not name.endswith(".gamma")}
    again = share_weights(twin)
    assert {p.data_ptr() for p in again.parameters()} == {p.data_ptr() for p in twin.parameters()}


def test_blocks_that_are_computed_again_and_compiled_give_the_same() -> None:
    backbone = tiny_dit(depth=1)
    tuned = create_tuned(backbone, "difffit")
    fill(tuned)
    call = call_of(backbone)

    def gradients(forward: Callable[..., Tensor]) -> list[Tensor]:
        return list(torch.autograd.grad(forward(*call).square().sum(), [*tuned.parameters.values()]))

    from dmp_cli.training.memory import recomputed

    expected = gradients(backbone)
    compiled = torch.compile(backbone, backend="aot_eager", fullgraph=True)
    with recomputed(backbone):
        assert all(torch.equal(one, other) for one, other in zip(gradients(backbone), expected, strict=True))
    for one, other in zip(gradients(compiled), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    fill(tuned, seed=1)  # the graph reads what a step has changed
    torch.testing.assert_close(compiled(*call), backbone(*call), rtol=1e-5, atol=1e-5)


def test_a_backbone_without_biases_is_refused() -> None:
    backbone = tiny_dit()
    for module in backbone.modules():
        if getattr(module, "bias", None) is not None:
            module.bias = None
    with pytest.raises(ConfigError, match="--method bitfit: this backbone has no biases"):
        create_tuned(backbone, "bitfit")
