"""The held-out loss: pairs, bands and intervals against slow formulas, the split, and what ends a run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dmp_cli.config import PatchConfig, ScheduleConfig, TrainConfig, build
from dmp_cli.data import LiveReader, find_images
from dmp_cli.diffusion import Schedule
from dmp_cli.errors import ConfigError
from dmp_cli.latents.codec import PixelCodec, VAECodec
from dmp_cli.latents.loading import load_vae
from dmp_cli.runtime import World, randomness
from dmp_cli.training.held_out import BANDS, HeldOut, HeldOutLoss, Paired, chosen_images
from dmp_cli.training.loop import TrainingLoop
from dmp_cli.training.methods import Trainee, prepare
from dmp_cli.training.run_folder import RunFolder
from dmp_cli.training.validation import Validation
from tests.backbones.pipelines import tiny_vae
from tests.builders import tiny_dit, write_images


class Measured:
    """The held-out loss of a trainee that begins now."""

    def __init__(self, trainee: Trainee, config: TrainConfig, source: Any) -> None:
        self.draws = HeldOut(trainee.backbone, trainee.codec, source=source, draws=config.val_draws)
        self.trainee, loop = trainee, TrainingLoop(trainee, config)
        self.base = Validation(loop, run=RunFolder(Path("unused")), held_out=self.draws).base

    def measure(self) -> HeldOutLoss:
        return self.draws.compare(self.draws.losses(self.trainee.denoiser), base=self.base)


def held_out(tmp_path: Path, method: str = "dmp", draws: int = 70, **patch: Any) -> tuple[Trainee, Measured]:
    data = tmp_path / "images"
    if not data.exists():
        write_images(data)
    images = find_images(data)
    config = TrainConfig(data=data, method=method, val_data=data, val_draws=draws, lora_rank=2)
    patch_config = PatchConfig(**patch) if method in ("dmp", "prompt-tuning") else None
    trainee = prepare(config, backbone=tiny_dit(), codec=PixelCodec(3), patch_config=patch_config)
    reader = LiveReader(images, image_size=8, channels=3)
    return trainee, Measured(trainee, config, (images, reader))


def disturb(trainee: Trainee) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trainee.learnt.values():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)


@pytest.mark.parametrize("method", ["dmp", "prompt-tuning", "lora", "dora", "bitfit", "difffit", "full"])
def test_before_the_first_step_there_is_no_difference(tmp_path: Path, method: str) -> None:
    trainee, measured = held_out(tmp_path, method)
    first = measured.measure()
    for pair in (first.whole, *first.bands):
        assert pair.difference == 0
        assert pair.interval == (0, 0)
        assert pair.loss == pair.base
    disturb(trainee)
    assert measured.measure().whole.difference != 0
    assert measured.measure() == measured.measure()


def test_prompts_in_front_of_the_tokens_differ_at_once(tmp_path: Path) -> None:
    _, measured = held_out(tmp_path, position="prepend", depth=2)
    assert measured.measure().whole.difference != 0


def test_training_from_scratch_has_no_bare_network(tmp_path: Path) -> None:
    _, measured = held_out(tmp_path, "scratch")
    assert measured.measure().whole.base is None
    assert measured.measure().bands[0].interval is None


def test_against_a_slow_formula(tmp_path: Path) -> None:
    """Draw by draw, one image a call, in plain loops."""
    trainee, measured = held_out(tmp_path)
    disturb(trainee)
    found = measured.measure()
    images, schedule = find_images(tmp_path / "images"), Schedule(trainee.backbone.schedule)
    reader = LiveReader(images, image_size=8, channels=3)
    from dmp_cli.runtime import randomness

    differences: dict[int, list[float]] = {band: [] for band in range(BANDS)}
    losses = []
    for draw in range(70):
        timestep = measured.draws.timesteps[draw : draw + 1]
        assert draw * 1000 / 70 - 1 <= int(timestep) <= (draw + 1) * 1000 / 70
        index = int(measured.draws.images[draw])
        x0 = torch.from_numpy(reader.read(index, mirrored=False))[None].float() / 127.5 - 1
        noise = randomness.normal("held-out-noise", (3, 8, 8), seed=0, step=0, indices=[draw])
        xt = schedule.add_noise(x0, noise=noise, timesteps=timestep)
        label = torch.tensor([images.labels[index]])
        pair = []
        with torch.no_grad():
            for denoiser in (trainee.denoiser, tiny_dit()):
                prediction = denoiser(xt, timestep, label)[:, :3]
                pair.append(float((prediction - noise).square().mean()))
        losses.append(pair[0])
        differences[int(timestep) // 100].append(pair[0] - pair[1])
    assert found.whole.loss == pytest.approx(sum(losses) / 70, rel=1e-5)
    everyone = [one for band in differences.values() for one in band]
    assert found.whole.difference == pytest.approx(sum(everyone) / 70, rel=1e-3)
    for band, pair in enumerate(found.bands):
        own = np.array(differences[band])
        assert pair.difference == pytest.approx(own.mean(), rel=1e-3, abs=5e-7)  # losses near 1 in float32
        assert pair.interval is not None
        half = (pair.interval[1] - pair.interval[0]) / 2
        student = 2.4469  # t of 6 degrees of freedom
        assert half == pytest.approx(student * own.std(ddof=1) / math.sqrt(len(own)), rel=1e-2)
    variance = sum((len(own) / 70) ** 2 * np.var(own, ddof=1) / len(own) for own in differences.values())
    assert found.whole.interval is not None
    half = (found.whole.interval[1] - found.whole.interval[0]) / 2
    assert half == pytest.approx(2.0003 * math.sqrt(variance), rel=1e-2)  # t of 60 degrees of freedom


def test_every_image_is_drawn_equally_often() -> None:
    counts = np.bincount(chosen_images(7, 70).numpy())
    assert counts.tolist() == [10] * 7
    assert chosen_images(100, 5).unique().numel() == 5


def test_too_few_draws_for_a_band(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--val-draws 19 are too few for 10 bands"):
        build(TrainConfig, data=tmp_path, val_data=tmp_path, val_draws=19)


def test_a_measurement_is_a_line_of_json(tmp_path: Path) -> None:
    _, measured = held_out(tmp_path)
    line = json.loads(json.dumps(measured.measure().line()))
    assert [(band["from"], band["to"]) for band in line["bands"]] == [(k * 100, k * 100 + 99) for k in range(10)]
    assert set(line) == {"loss", "base", "difference", "interval", "bands"}


class Ready:
    """What a Validation sees of a training loop and of the draws, with losses as they are told."""

    def __init__(self, losses: list[float], **options: Any) -> None:
        self.told, self.step, self.world = losses, 0, World()
        self.config = TrainConfig(data=Path("d"), val_data=Path("v"), val_every=1, method="scratch", **options)
        self.trainee = self
        self.denoiser = None

    def losses(self, denoiser: None) -> float:
        return self.told[self.step]

    def compare(self, losses: float, *, base: None) -> HeldOutLoss:
        return HeldOutLoss(Paired(losses, None, None, None), (), (0,))


def test_what_is_best_and_when_it_is_over(tmp_path: Path) -> None:
    losses = [5.0, 4.0, 6.0, 3.0, 3.0, 7.0, 8.0]
    ready, run, told = Ready(losses, patience=3), RunFolder(tmp_path), []
    validation = Validation(ready, run=run, held_out=ready)  # type: ignore[arg-type]
    validation.begin()
    for step in range(1, 7):
        ready.step = step
        validation.see(last=False)
        told.append((validation.improved, validation.is_over))
    improved = [True, False, True, False, False, False]
    assert told == [(better, step == 5) for step, better in enumerate(improved)]
    assert validation.best == (3.0, 3)
    assert "3 measurements in a row did not lower the held-out loss of step 3, 3.000000" in validation.reason
    # a run that goes on from step 4 counts on from what its log says
    run.cut_log(after=4)
    ready.step = 4
    again = Validation(ready, run=run, held_out=ready)  # type: ignore[arg-type]
    again.begin()
    assert again.best == (3.0, 3)
    for step in (5, 6):
        ready.step = step
        again.see(last=False)
    assert again.is_over


def test_a_vae_encodes_every_image_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_vae().save_pretrained(tmp_path / "vae")
    codec = load_vae(str(tmp_path / "vae"), device="cpu")
    counts: list[int] = []
    measure = VAECodec.measure
    monkeypatch.setattr(VAECodec, "measure", lambda self, images: counts.append(len(images)) or measure(self, images))
    side = 8 * codec.factor
    images = find_images(write_images(tmp_path / "images", count=5, size=side))
    backbone = tiny_dit(in_channels=4)
    reader = LiveReader(images, image_size=side, channels=3)
    draws = HeldOut(backbone, codec, source=(images, reader), draws=40)
    first = draws.losses(backbone)
    assert (draws.losses(backbone) == first).all()
    assert sum(counts) == 5


@pytest.mark.parametrize("flow", ["sit", "repa"])
def test_levels_of_a_flow_against_a_slow_formula(tmp_path: Path, flow: str) -> None:
    backbone = tiny_dit()
    backbone.schedule = ScheduleConfig(flow=flow, prediction="velocity")  # type: ignore[arg-type]
    images = find_images(write_images(tmp_path / "images"))
    source: Any = images, LiveReader(images, image_size=8, channels=3)
    draws = HeldOut(backbone, PixelCodec(3), source=source, draws=70)
    shares = [1 - t if flow == "sit" else t for t in draws.timesteps.tolist()]
    for draw, share in enumerate(shares):  # one of each of 70 equal parts, low noise first
        assert draw / 70 - 1e-6 <= share <= (draw + 1) / 70 + 1e-6
    found = draws.compare(draws.losses(backbone), base=None)
    losses = []
    with torch.no_grad():
        for draw, level in enumerate(draws.timesteps):
            pixels = source[1].read(int(draws.images[draw]), mirrored=False)
            x0 = torch.from_numpy(pixels).double()[None] / 127.5 - 1
            noise = randomness.normal("held-out-noise", (3, 8, 8), seed=0, step=0, indices=[draw]).double()
            t, label = level.double(), torch.from_numpy(images.labels)[draws.images[draw], None]
            a, s, velocity = (t, 1 - t, x0 - noise) if flow == "sit" else (1 - t, t, noise - x0)
            predicted = backbone((a * x0 + s * noise).float(), level[None], label)[:, :3]
            losses.append(float((predicted.double() - velocity).square().mean()))
    assert found.whole.loss == pytest.approx(np.mean(losses), rel=1e-5)
    for band, pair in enumerate(found.bands):
        assert pair.loss == pytest.approx(np.mean(losses[7 * band : 7 * band + 7]), rel=1e-5)
