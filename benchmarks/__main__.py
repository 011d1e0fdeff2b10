"""Print every ratio with its target: ``python -m benchmarks [PART] [--quick]``.

Without PART: engine, training, sampling and guidance. ``peers`` and ``compiled`` are tables of their own, and
``gpu`` measures a GPU, for as long as it is told (``gpu --help``), and ``memory`` what long commands hold (``memory
--help``).
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from dmp_cli.backbones.dit import DiT
from dmp_cli.config import BackboneRecord, CodecRecord, PatchConfig, TrainConfig
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.patching.attachment import attach, create_patch
from dmp_cli.patching.file import save_patch
from dmp_cli.patching.identity import backbone_digest
from dmp_cli.patching.prompts import add_mixture
from dmp_cli.training.loop import TrainingLoop
from dmp_cli.training.methods import prepare

from . import compiled, guidance, peers, sampling, training
from .paired import Pair, Row, ratios, summary
from .setting import Setting, build_nonzero, cpu, gpu, step_of

BATCH = 4


def backbone_of(name: str) -> DiT:
    """A DiT for 256 px with random weights, none of them zero, and a record, so that patches can be made for it."""
    backbone = build_nonzero(name)
    assert isinstance(backbone, DiT)
    digest = backbone_digest(backbone)
    backbone.record = BackboneRecord(family="dit", sizes=backbone.sizes, source="made here", digest=digest)
    return backbone.eval()


def patch_alone(name: str, *, rounds: int) -> Row:
    """The work of the patch alone (the gates of all blocks, and every addition) over one bare forward."""
    backbone = backbone_of(name)
    patch = create_patch(backbone, PatchConfig(), codec=CodecRecord(), image_size=256)
    x, timesteps = torch.randn(BATCH, *backbone.sample_shape), torch.randint(0, 1000, (BATCH,))
    labels = torch.randint(0, 1000, (BATCH,))
    hidden = torch.randn(BATCH, *backbone.list_blocks()[0].hidden_shape)
    vector = backbone.gate_vector(timesteps).detach()

    def alone() -> None:
        # twenty at a time, as one is too short for the clock
        with torch.inference_mode():
            for _ in range(20):
                weights = patch(vector).weights.unsqueeze(-1).unbind(1)
                for block, prompts in enumerate(patch.prompts):
                    add_mixture(hidden, weights=weights[block], prompts=prompts)

    def forward() -> None:
        with torch.inference_mode():
            backbone(x, timesteps, labels)

    found = ratios({"forward": forward, "alone": alone}, base="forward", rounds=rounds)
    return f"{name}: patch alone / forward", summary([ratio / 20 for ratio in found["alone"]]), "0.003"


def patched_forward(name: str, *, rounds: int) -> Row:
    """A patched forward over a bare one, end to end. The difference is mostly measurement noise."""
    backbone = backbone_of(name)
    patched = attach(backbone, create_patch(backbone, PatchConfig(), codec=CodecRecord(), image_size=256))
    x, timesteps = torch.randn(BATCH, *backbone.sample_shape), torch.randint(0, 1000, (BATCH,))
    labels = torch.randint(0, 1000, (BATCH,))

    def with_patch() -> None:
        with torch.inference_mode():
            patched(x, timesteps, labels)

    def bare() -> None:
        with torch.inference_mode(), patched.disabled():
            patched(x, timesteps, labels)

    found = ratios({"bare": bare, "patched": with_patch}, base="bare", rounds=rounds)
    return f"{name}: patched forward / bare forward", summary(found["patched"]), "1 (noise)"


def training_step(name: str, *, rounds: int) -> Row:
    """A whole step of DMP over a whole step of full fine-tuning: loss, backward, optimizer, on the same latents."""
    loops = {}
    for method in ("full", "dmp"):
        config = TrainConfig(method=method, data=Path("latents"), batch_size=BATCH)
        trainee = prepare(config, backbone=backbone_of(name), codec=PixelCodec(4))
        loops[method] = TrainingLoop(trainee, config)
    works = {method: step_of(loop) for method, loop in loops.items()}
    found = ratios(works, base="full", rounds=rounds)
    return f"{name}: DMP step / full fine-tuning step", summary(found["dmp"]), "0.78"


def wall_seconds(arguments: list[str], *, rounds: int) -> float:
    """Median wall time of a whole command. A first run, which fills the file cache, is not counted."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "dmp_cli", *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def start_up() -> list[Row]:
    """How long a user waits for the shortest commands."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "patch.safetensors"
        save_patch(path, create_patch(backbone_of("dit-b2"), PatchConfig(), codec=CodecRecord(), image_size=256))
        rows = [("dmp --help, seconds", f"{wall_seconds(['--help'], rounds=7):.2f}", "0.5")]
        info = wall_seconds(["patch", "--info", str(path)], rounds=7)
        return [*rows, ("dmp patch --info of a B/2 patch, seconds", f"{info:.2f}", "1.0")]


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, S/2 only")
    parser.add_argument(
        "part",
        nargs="?",
        choices=["engine", "training", "sampling", "guidance", "peers", "compiled"],
        help="one table alone",
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="compiled: networks whose name has this in it")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    if given.part in (None, "engine"):
        show(f"{machine}, one thread, float32, batch {BATCH}", engine(quick=given.quick))
    if given.part in (None, "training"):
        setting = cpu(quick=given.quick)
        show(f"{machine}, one thread, {setting.backbone}, float32, batch {setting.batch}", training.table(setting))
    if given.part in (None, "training") and torch.cuda.is_available():
        setting = gpu(quick=given.quick)
        show(
            f"{torch.cuda.get_device_name()}, {setting.backbone}, bf16, batch {setting.batch}", training.table(setting)
        )
    if given.part in (None, "sampling"):
        show(f"{machine}, one thread, float32", sampling.table(quick=given.quick))
    if given.part == "peers":
        setting = replace(cpu(quick=True), rounds=3 if given.quick else 9)
        show_peers(f"{machine}, one thread, float32, batch {BATCH}", peers.table(setting, quick=given.quick))
    if given.part == "compiled":
        show_peers(f"{machine}, one thread, float32, batch {BATCH}", compiled.table(quick=given.quick, only=given.only))
    if given.part in (None, "guidance"):
        for setting in guided(quick=given.quick):
            where = torch.cuda.get_device_name() if setting.device.type == "cuda" else f"{machine}, one thread"
            title = f"{where}, {setting.dtype}, batch {setting.batch}: over classifier-free guidance"
            show(title, guidance.table(setting))


def show_peers(title: str, rows: Iterable[Pair]) -> None:
    """Print the table of what stands beside dmp, each row as soon as it is measured."""
    print(f"\n{title}\n\n| what | median (quartiles) |\n|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def guided(*, quick: bool) -> list[Setting]:
    """The settings that guidance between versions is measured on."""
    small = replace(cpu(quick=True), rounds=3 if quick else 15)
    return [small, *([gpu(quick=quick)] if torch.cuda.is_available() else [])]


def engine(*, quick: bool) -> Iterator[Row]:
    """Yield the rows on what a patch costs, and on how soon a command answers."""
    rounds, sizes = (3, ["dit-s2"]) if quick else (11, ["dit-s2", "dit-b2"])
    yield from start_up()
    for name in sizes:
        yield patch_alone(name, rounds=rounds)
        yield patched_forward(name, rounds=rounds)
        yield training_step(name, rounds=rounds)


def show(title: str, rows: Iterable[Row]) -> None:
    """Print a table, each row as soon as it is measured."""
    print(f"\n{title}\n\n| what | median (quartiles) | at most |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        from .memory import main as measure_memory

        measure_memory(sys.argv[2:])
        sys.exit()
    if sys.argv[1:2] == ["gpu"]:
        from .gpu import main as measure_gpu

        sys.exit(measure_gpu(sys.argv[2:]))
    main()
