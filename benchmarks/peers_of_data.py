"""The peers of scoring, encoding and reading; see ``peers``. In wall time, as threads read ahead, but for distances."""

from __future__ import annotations

import io
import random
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dmp_cli.config import CodecRecord
from dmp_cli.data import CROP, decode, find_images
from dmp_cli.evaluation.distances import fit_gaussian, frechet_distance, kernel_distances
from dmp_cli.evaluation.extract import measure
from dmp_cli.evaluation.features import Extractor
from dmp_cli.latents.codec import VAECodec
from dmp_cli.latents.fill import encode_missing
from dmp_cli.latents.store import LatentStore, StoreRecord

from .paired import Pair, ratios, summary
from .sampling import _resize

CLASSES, WIDTH, BATCH = 10, 2048, 32  # class folders, features of Inception, images in a batch


def write_pictures(folder: Path, count: int, *, side: int) -> Path:
    """``count`` JPEGs in class folders: noise that is smooth enough to compress as photographs do."""
    source = np.random.default_rng(0)
    for index in range(count):
        coarse = source.integers(0, 256, (side // 8, side // 8, 3), np.uint8)
        path = folder / f"{index % CLASSES}" / f"{index:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(path, quality=90)
    return folder


def features(folder: Path, *, rounds: int) -> Pair:
    """Files to features by clean-fid's own function over ours: the same network, of Inception's size."""
    from cleanfid import fid
    from torchvision.models import inception_v3

    network = inception_v3(weights=None, aux_logits=False, init_weights=False).eval()
    network.fc = torch.nn.Identity()
    extractor = Extractor("random", WIDTH, "none", _resize, network)

    def theirs() -> None:
        how: dict[str, Any] = {"num_workers": 0, "batch_size": BATCH, "device": torch.device("cpu"), "verbose": False}
        with torch.inference_mode():
            fid.get_folder_features(str(folder), model=network, **how)

    works = {"ours": lambda: measure(folder, extractor, batch_size=BATCH), "theirs": theirs}
    found = ratios(works, base="ours", rounds=rounds, clock=time.perf_counter)
    return "files to features of Inception's size: clean-fid / ours", summary(found["theirs"])


def distances(*, count: int, width: int, rounds: int) -> Iterator[Pair]:
    """Both distances of the same features by clean-fid's and torch-fidelity's own functions over ours.

    In processor time, as no threads read ahead here.
    """
    from cleanfid import fid
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    source = np.random.default_rng(0)
    ours, real = (source.normal(size=(count, width)).astype(np.float32) for _ in range(2))
    tensors = torch.from_numpy(ours), torch.from_numpy(real)

    def clean() -> None:
        moments = [(one.mean(0), np.cov(one, rowvar=False)) for one in (ours, real)]
        fid.frechet_distance(*moments[0], *moments[1])

    def fidelity() -> None:
        fid_statistics_to_metric(*map(fid_features_to_statistics, tensors), verbose=False)

    works = {
        "ours": lambda: frechet_distance(fit_gaussian(ours), reference=fit_gaussian(real)),
        "clean-fid": clean,
        "torch-fidelity": fidelity,
    }
    what = f"{count:,} features of {width}"
    found = ratios(works, base="ours", rounds=rounds)
    for name in ("clean-fid", "torch-fidelity"):
        yield f"Frechet distance of {what}: {name} / ours", summary(found[name])
    size, subsets = min(1000, count), 20
    once = np.ones((1, count), np.int64)
    kernels = {
        "ours": lambda: kernel_distances(ours, reference=real, counts=once, subsets=subsets, subset_size=size, seed=0),
        "clean-fid": lambda: fid.kernel_distance(ours, real, num_subsets=subsets, max_subset_size=size),
        "torch-fidelity": lambda: kid_features_to_metric(
            *tensors, kid_subsets=subsets, kid_subset_size=size, verbose=False
        ),
    }
    found = ratios(kernels, base="ours", rounds=rounds)
    for name in ("clean-fid", "torch-fidelity"):
        yield f"kernel distance of {what}, {subsets} subsets: {name} / ours", summary(found[name])


def encoding(folder: Path, *, side: int, rounds: int, quick: bool) -> Pair:
    """Both moments of images and their mirror images: diffusers' VAE in a plain loop over filling a latent store."""
    from diffusers import AutoencoderKL
    from torchvision.transforms import functional

    widths = (32, 32, 64, 64) if quick else (64, 128, 256, 256)
    sizes: dict[str, Any] = {"block_out_channels": widths, "layers_per_block": 1, "latent_channels": 4}
    down, up = ("DownEncoderBlock2D",) * len(widths), ("UpDecoderBlock2D",) * len(widths)
    vae = AutoencoderKL(down_block_types=down, up_block_types=up, sample_size=side, **sizes).eval()
    codec = VAECodec(vae.requires_grad_(False), CodecRecord(kind="vae", digest="0" * 64))
    images = find_images(folder)
    paths = sorted(folder.rglob("*.jpg"))
    latent = side // codec.factor

    def theirs() -> None:
        with torch.inference_mode():
            for start in range(0, len(paths), BATCH):
                pixels = torch.stack(
                    [functional.to_tensor(Image.open(path).convert("RGB")) for path in paths[start : start + BATCH]]
                )
                for one in (pixels, pixels.flip(-1)):
                    found = vae.encode(2 * one - 1).latent_dist
                    torch.cat([found.mean, found.std], 1).numpy()

    def ours() -> None:
        with tempfile.TemporaryDirectory() as place:
            record = StoreRecord(
                codec="vae",
                codec_digest="0" * 64,
                image_size=side,
                channels=3,
                crop=CROP,
                data=folder.name,
                fingerprint=images.fingerprint,
                count=len(images),
                shape=(2, 8, latent, latent),
                dtype="float32",
                rows=len(images),
            )
            store = LatentStore(Path(place) / "store", record)
            store.claim()
            for _ in encode_missing(store, images=images, codec=codec, device=torch.device("cpu"), max_bad=0):
                pass

    found = ratios({"ours": ours, "theirs": theirs}, base="ours", rounds=rounds, clock=time.perf_counter)
    return f"moments of {side} px images and their mirror images: diffusers' VAE in a loop / ours", summary(
        found["theirs"]
    )


def reading(folder: Path, *, rounds: int) -> Iterator[Pair]:
    """Listing a folder and decoding all of it in a random order; and a tar in its own order."""
    import datasets
    import webdataset

    datasets.disable_progress_bars()

    def ours() -> None:
        images = find_images(folder)
        order = list(range(len(images)))
        random.Random(0).shuffle(order)
        for index in order:
            np.asarray(decode(images.read(index), channels=3, name=images.name(index)))

    def theirs() -> None:
        with tempfile.TemporaryDirectory() as cache:
            table = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=cache)
            for row in table.shuffle(seed=0):
                np.asarray(row["image"].convert("RGB"))

    found = ratios({"ours": ours, "theirs": theirs}, base="ours", rounds=rounds, clock=time.perf_counter)
    yield "a folder, listed and decoded in random order: datasets' imagefolder / ours", summary(found["theirs"])
    tar = _pack(folder, folder.parent / "train-000.tar")

    def our_tar() -> None:
        images = find_images(tar)
        for index in range(len(images)):
            np.asarray(decode(images.read(index), channels=3, name=images.name(index)))

    def their_tar() -> None:
        for pixels, _ in webdataset.WebDataset(str(tar), shardshuffle=False).decode("rgb8").to_tuple("jpg", "cls"):
            np.asarray(pixels)

    found = ratios({"ours": our_tar, "theirs": their_tar}, base="ours", rounds=rounds, clock=time.perf_counter)
    yield "a tar, listed and decoded in its order: webdataset / ours", summary(found["theirs"])


def _pack(folder: Path, path: Path) -> Path:
    """The same images as a shard, with their classes."""
    with tarfile.open(path, "w") as tar:
        for image in sorted(folder.rglob("*.jpg"), key=lambda one: one.name):
            for suffix, data in (("jpg", image.read_bytes()), ("cls", image.parent.name.encode())):
                member = tarfile.TarInfo(f"{image.stem}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def table(*, quick: bool) -> Iterator[Pair]:
    """Yield the rows of the table, each as soon as it is measured."""
    rounds = 3 if quick else 5
    with tempfile.TemporaryDirectory() as name:
        folder = write_pictures(Path(name) / "large", 32 if quick else 96, side=256)
        yield features(folder, rounds=rounds)
        yield from distances(count=500 if quick else 10_000, width=128 if quick else WIDTH, rounds=3)
        yield encoding(write_pictures(Path(name) / "middle", 32, side=128), side=128, rounds=3, quick=quick)
        yield from reading(write_pictures(Path(name) / "small", 200 if quick else 5_000, side=64), rounds=rounds)
