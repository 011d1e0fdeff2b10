"""TorchScript files are opened only when neither opening nor calling them would touch a file."""

# No "from __future__ import annotations": torch.jit.script reads an interface's annotation as it stands.
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dmp_cli.errors import MetricError
from dmp_cli.storage import torchscript
from dmp_cli.storage.torchscript import open_torchscript

torch.set_num_threads(1)


class Clean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if bool(x.sum() > 0):
            for _ in range(2):
                x = x + 1
        return x.mean((2, 3))


class SavesOnLoading(nn.Module):
    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return (self.target, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.target = state[0]
        self.training = state[1]
        torch.ops.aten.save(torch.zeros(3), self.target)


class SavesInABranch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if bool(x.sum() > 0):
            for _ in range(2):
                torch.ops.aten.save(x, "written")
        return x.mean((2, 3))


class Reads(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) + torch.from_file("secret", False, 3)


def _saves(x: Tensor) -> Tensor:
    torch.ops.aten.save(x, "written")
    return x.mean((2, 3))


class Forks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.jit.wait(torch.jit.fork(_saves, x))


@torch.jit.interface
class Part(nn.Module):
    def run(self, x: Tensor) -> Tensor:
        pass


class SavingPart(nn.Module):
    def run(self, x: Tensor) -> Tensor:
        torch.ops.aten.save(x, "written")
        return x.mean((2, 3))


class HidesBehindAnInterface(nn.Module):
    part: Part

    def __init__(self) -> None:
        super().__init__()
        self.part = SavingPart()

    def forward(self, x: Tensor) -> Tensor:
        return self.part.run(x)


def _hook(self, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    torch.ops.aten.save(output, "written")
    return output


def _pre_hook(self, inputs: tuple[Tensor]) -> None:
    torch.ops.aten.save(inputs[0], "written")


def _hooked() -> nn.Module:
    network = Clean()
    network.register_forward_hook(_hook)
    return network


def _pre_hooked() -> nn.Module:
    network = Clean()
    network.register_forward_pre_hook(_pre_hook)
    return network


class While(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while bool(x.sum() > 0):
            x = x + 0
        return x.mean((2, 3))


class OverAValue(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if bool(x.sum() > 0):
            for _ in range(x.shape[0]):
                x = x + 1
        return x.mean((2, 3))


class OverAnAttribute(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.turns = 3

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.turns):
            x = x + 1
        return x.mean((2, 3))


class Long(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        for _ in range(1_000_001):
            x = x + 1
        return x.mean((2, 3))


class Inner(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        for _ in range(1001):
            x = x + 1
        return x


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(1000):
            x = self.inner(x)
        return x.mean((2, 3))


class Breaks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        for _ in range(1000):
            x = x + 1
            if bool(x.sum() > 10):
                break
        return x.mean((2, 3))


class Resizes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)
        return x.mean((2, 3))


class Prints(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        print("anything")
        return x.mean((2, 3))


class Quantised(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.quantized.add(x, x, 1.0, 0).dequantize().mean((2, 3))


def _file(folder: Path, network: nn.Module) -> Path:
    torch.jit.script(network).save(str(folder / "network.pt"))
    return folder / "network.pt"


def test_a_clean_network_gives_what_it_gave_before(tmp_path: Path) -> None:
    network = open_torchscript(_file(tmp_path, Clean()))
    assert torch.equal(network(torch.ones(2, 3, 4, 4)), torch.full((2, 3), 3.0))


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (SavesInABranch, "aten::save"),
        (Reads, "aten::from_file"),
        (Forks, "cannot be inspected"),
        (HidesBehindAnInterface, "cannot be inspected"),
        (_hooked, "hook around"),
        (_pre_hooked, "hook around"),
        (Quantised, "quantized::add"),
        (Prints, "prints"),
        (While, "number of turns the graph does not fix"),
        (Breaks, "number of turns the graph does not fix"),
        (OverAValue, "number of turns the graph does not fix"),
        (OverAnAttribute, "number of turns the graph does not fix"),
        (Long, "a loop of up to 1,000,001 turns"),
        (Nested, "a loop of up to 1,001,000 turns"),
    ],
)
def test_a_network_that_might_touch_files_or_never_end_is_refused(tmp_path: Path, network, reason: str) -> None:
    with pytest.raises(MetricError, match=reason):
        open_torchscript(_file(tmp_path, network()))


@pytest.mark.parametrize("network", [Inner, Resizes])
def test_loops_that_end_are_taken(tmp_path: Path, network) -> None:
    image = torch.rand(2, 3, 4, 4)
    assert torch.equal(open_torchscript(_file(tmp_path, network()))(image), network()(image))


def test_a_network_that_writes_while_it_loads_is_refused_before_it_can(tmp_path: Path) -> None:
    target = tmp_path / "written"
    path = _file(tmp_path, SavesOnLoading(str(target)))
    torch.jit.load(str(path))
    assert target.exists(), "the file is harmless, so this test shows nothing"
    target.unlink()
    with pytest.raises(MetricError, match="__setstate__"):
        open_torchscript(path)
    assert not target.exists()


def test_every_operator_of_torch_with_a_file_name_is_caught() -> None:
    named = [s for s in torch._C._jit_get_all_schemas() if any("filename" in a.name for a in s.arguments)]
    assert {schema.name for schema in named} >= {"aten::save", "aten::from_file"}
    assert [str(s) for s in named if not torchscript._FILE_ARGUMENT.search(str(s))] == []


@pytest.mark.parametrize("content", [b"", b"no network", b"PK\x03\x04PTMF"])
def test_no_torchscript(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "network.pt").write_bytes(content)
    with pytest.raises(MetricError, match="not a TorchScript file"):
        open_torchscript(tmp_path / "network.pt")


def test_a_cut_file_another_zip_and_a_folder(tmp_path: Path) -> None:
    path = _file(tmp_path, Clean())
    (tmp_path / "cut.pt").write_bytes(path.read_bytes()[:-100])
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("a/b.txt", "text")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "weights.pt")
    for name in ("cut.pt", "other.pt", "weights.pt", "."):
        with pytest.raises(MetricError, match="not a TorchScript file"):
            open_torchscript(tmp_path / name)


def test_formats_that_cannot_be_inspected(tmp_path: Path) -> None:
    data = bytearray(_file(tmp_path, Clean()).read_bytes())
    data[4:8] = b"PTMF"  # a zip by its end, a flatbuffer by its start
    (tmp_path / "both.pt").write_bytes(data)
    with pytest.raises(MetricError, match="cannot be inspected before"):
        open_torchscript(tmp_path / "both.pt")
