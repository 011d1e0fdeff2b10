"""DoRA: its formula and its gradients in float64, the start, on some rows of a batch, its folder, under bf16."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch.func import functional_call

from dmp_cli.backbones.keeping import half_weights
from dmp_cli.config import TrainConfig
from dmp_cli.errors import CheckpointError, ConfigError
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.patching.lora_file import load_adapter, save_adapter
from dmp_cli.patching.versions import AdapterVersions
from dmp_cli.training.methods import prepare
from tests.builders import call_of, tiny_dit
from tests.patching.adapters import create, fill, known

PREFIX = "base_model.model."


def merged(backbone, adapter, *, constant=None):
    """The backbone's weights by name, those of adapted layers as m / |W + B A| * (W + B A), in float64.

    ``constant`` are the lengths |W + B A|, by layer, where they are taken for constants.
    """
    weights, known_lengths = {}, {}
    for layer in adapter.layers:
        down, up, lengths = (
            adapter.parameters[f"{PREFIX}{layer}.{part}"].double()
            for part in ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector")
        )
        whole = backbone.get_submodule(layer).weight.double() + up @ down
        known_lengths[layer] = whole.square().sum(1).sqrt() if constant is None else constant[layer]
        weights[f"{layer}.weight"] = (lengths / known_lengths[layer])[:, None] * whole
    return weights, known_lengths


def in_doubles(call):
    x, timesteps, condition = call
    return x.double(), timesteps, condition


def test_the_formula_and_its_gradients_in_float64():
    """Peft's forward and backward against the definition; the lengths |W + B A| have no gradient, as in the paper."""
    backbone, plain = tiny_dit(), tiny_dit().double()
    adapter = create(backbone, rank=3, is_dora=True)
    fill(adapter)
    backbone.double()
    for parameter in adapter.parameters.values():
        assert parameter.dtype == torch.float64
    call = in_doubles(call_of(plain))
    found = backbone(*call)
    _, lengths = merged(plain, adapter)
    constant = {layer: value.detach() for layer, value in lengths.items()}
    expected = functional_call(plain, merged(plain, adapter, constant=constant)[0], call)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    names, values = zip(*adapter.parameters.items(), strict=True)
    ours = torch.autograd.grad(found.square().sum(), values)
    theirs = torch.autograd.grad(expected.square().sum(), values)
    for name, one, other in zip(names, ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12, msg=name)
        assert one.any(), name


@pytest.mark.parametrize("rows", [(False, True, True), (True, False, True)])
def test_on_some_rows_it_is_the_formula_in_float64(rows):
    backbone, plain = tiny_dit(), tiny_dit().double()
    adapter = create(backbone, is_dora=True)
    fill(adapter)
    backbone.double().requires_grad_(False)
    call, adapted = in_doubles(call_of(plain)), torch.tensor(rows)
    with torch.no_grad():
        bare, whole = plain(*call), functional_call(plain, merged(plain, adapter)[0], call)
        found = AdapterVersions(backbone, is_ours=False)(*call, against=adapted)
    torch.testing.assert_close(found, torch.where(adapted.view(-1, 1, 1, 1), whole, bare), rtol=1e-9, atol=1e-12)
    assert (whole - bare).abs().max() > 0.1


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_fresh_one_changes_no_bit(dtype):
    backbone, bare, call = tiny_dit(), tiny_dit(), call_of(tiny_dit())
    adapter = create(backbone, is_dora=True)
    assert sum("magnitude" in name for name in adapter.parameters) == len(adapter.layers) == 12
    learning = {id(parameter) for parameter in backbone.parameters() if parameter.requires_grad}
    assert learning == {id(parameter) for parameter in adapter.parameters.values()}
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        assert torch.equal(backbone(*call), bare(*call))


def test_half_precision_leaves_the_weights_that_have_lengths():
    """So that --half-frozen changes no number: a length of rounded weights would be another one."""
    backbone, call = tiny_dit(), call_of(tiny_dit())
    config = TrainConfig(method="dora", data="images", dtype="bf16")
    trainee = prepare(config, backbone=backbone, codec=PixelCodec(3))
    assert trainee.file_stem == "adapter"
    fill(trainee.adapter)
    with torch.autocast("cpu", torch.bfloat16):
        before = backbone(*call)
        with half_weights(backbone, torch.bfloat16, without=trainee.exact_layers):
            assert backbone.blocks[0].mlp.fc1.base_layer.weight.dtype == torch.float32
            assert backbone.blocks[0].adaLN_modulation[1].weight.dtype == torch.bfloat16
            assert torch.equal(backbone(*call), before)
        with half_weights(backbone, torch.bfloat16):
            assert not torch.equal(backbone(*call), before)


def test_a_row_without_a_length_is_refused():
    backbone = tiny_dit()
    backbone.blocks[1].mlp.fc2.weight.data[3] = 0
    with pytest.raises(ConfigError, match=r"blocks\.1\.mlp\.fc2 is all zero"):
        create(backbone, is_dora=True)
    assert isinstance(backbone.blocks[0].attn.qkv, torch.nn.Linear)


@pytest.fixture
def saved(tmp_path):
    """The folder of a filled adapter, and the output of the backbone with it."""
    backbone = known()
    adapter = create(backbone, is_dora=True)
    fill(adapter)
    save_adapter(tmp_path / "adapter", adapter, training={"steps_done": 3})
    return tmp_path / "adapter", backbone(*call_of(backbone)).detach()


def test_this_tool_and_peft_read_its_folder(saved):
    path, expected = saved
    again, call = known(), call_of(known())
    assert load_adapter(path, again).is_dora
    assert torch.equal(again(*call), expected)
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert json.loads((path / "adapter_config.json").read_text())["use_dora"] is True
    assert torch.equal(PeftModel.from_pretrained(known(), str(path)).eval()(*call), expected)


def test_a_folder_that_is_half_dora_is_refused(saved):
    path, _ = saved
    config, file = path / "adapter_config.json", path / "adapter_model.safetensors"
    fields, tensors = json.loads(config.read_text()), load_file(file)
    for wrong in (False, 1, None):
        config.write_text(json.dumps({**fields, "use_dora": wrong}))
        with pytest.raises(CheckpointError, match="not as dmp train wrote it"):
            load_adapter(path, known())
    fields.pop("use_dora")
    config.write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match=r"unexpected \(12\): .*lora_magnitude_vector"):
        load_adapter(path, known())
    config.write_text(json.dumps({**fields, "use_dora": True}))
    save_file({name: tensor for name, tensor in tensors.items() if "magnitude" not in name}, file)
    with pytest.raises(CheckpointError, match=r"missing \(12\): .*lora_magnitude_vector"):
        load_adapter(path, known())
