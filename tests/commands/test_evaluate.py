"""``dmp eval``: the report, and what it refuses. The numbers themselves are tested beside their rooms."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.builders import write_images

from .conftest import Run, files_in, parse


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A reference and two sets of samples of it, 24 images of 3x3 pixels each."""
    names = ("real", "a", "b")
    real, a, b = (write_images(tmp_path / n, count=24, size=3, classes=0, seed=s) for s, n in enumerate(names))
    return real, a, b


def test_a_report_of_two_folders(run: Run, folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    real, a, b = folders
    options = ["--reference", real, "--features", "pixels", "--metrics", "fid,kid", "--kid-subset-size", 10]
    options += ["-o", "out"]
    result = parse(run("eval", "--samples", a, "--samples", b, *options, "--json"))
    assert files_in(tmp_path / "out") == {"report.json", "report.md", "report.html"}
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == result
    first, second = (row["scores"] for row in result["rows"])
    assert first["fid"]["difference"] is None
    difference = second["fid"]["value"] - first["fid"]["value"]
    assert second["fid"]["difference"] == pytest.approx(difference)
    assert second["fid"]["difference_spread"] > 0
    # mean and covariance of the pixels, in float64
    pixels = [np.stack([read(path) for path in sorted(folder.glob("*.png"))]) for folder in (real, a)]
    assert first["fid"]["value"] == pytest.approx(frechet(*pixels), rel=1e-6)
    report = (tmp_path / "out" / "report.md").read_text()
    assert "| samples | images | FD (pixels) |" in report
    assert "±" in report


def read(path: Path) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(path)).reshape(-1).astype(np.float64) / 255


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """||m_a - m_b||^2 + tr(A + B - 2 sqrt(A B)), the square root through eigenvalues."""
    covariance_a, covariance_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(covariance_a @ covariance_b).astype(complex)).real.sum()
    gap = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return float(gap + np.trace(covariance_a) + np.trace(covariance_b) - 2 * roots)


def test_saved_statistics_give_the_same_score(run: Run, folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    real, a, _ = folders
    common = ["eval", "--samples", a, "--features", "pixels", "--json"]
    measured = parse(run(*common, "--reference", real, "--save-stats", "real.npz", "-o", "x"))
    loaded = parse(run(*common, "--reference", "real.npz", "-o", "y"))
    assert loaded["rows"][0]["scores"] == measured["rows"][0]["scores"]
    assert loaded["reference_provenance"] == measured["reference_provenance"]


def test_bad_input(run: Run, folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    real, a, _ = folders
    (tmp_path / "empty").mkdir()
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "0.png").write_bytes((a / "0000.png").read_bytes())
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "0.png").write_bytes(b"no picture")
    pixels = ["--features", "pixels"]
    cases = [
        ([], "nothing to score"),
        (["--samples", "empty", "--reference", real, *pixels], "no image"),
        (["--samples", "one", "--reference", real, *pixels], "one"),
        (["--samples", "bad", "--reference", real, *pixels], "bad"),
        (["--samples", a, "--reference", "none.npz", *pixels], "none.npz"),
        (["--samples", a, "--reference", real], "inception-2015-12-05.pt"),
        (["--samples", a, "--reference", real, "--inception-weights", a / "0000.png"], "sha-256"),
        (["--samples", a, "--reference", real, "--features", "nothing.pt"], "nothing.pt"),
        (["--samples", a, "--reference", real, "--metrics", "fidelity"], "--metrics"),
        (["--samples", a, "--reference", real, *pixels, "--dtype", "bf16"], "fp32"),
        (["--samples", a, "--reference", real, *pixels, "--crop", "big"], "--crop big"),
        (["--samples", a, "--reference", real, *pixels, "--metrics", "is"], "have none"),
        (["--samples", a, "--reference", real, "--features", "clip"], "--feature-weights"),
    ]
    for options, message in cases:
        result = run("eval", *options, "-o", "out", code=1)
        assert message in result.stderr.lower(), (options, result.stderr)
        assert "Traceback" not in result.stderr
        assert not (tmp_path / "out").exists()


def test_an_existing_report_is_kept(run: Run, folders: tuple[Path, Path, Path]) -> None:
    real, a, _ = folders
    common = ["eval", "--samples", a, "--reference", real, "--features", "pixels", "-o", "out"]
    run(*common)
    assert "exists already" in run(*common, code=1).stderr
    run(*common, "--force")


@pytest.mark.slow
def test_killed_anywhere_it_leaves_whole_files_and_runs_again(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    real, a, b = folders
    options = ["--samples", a, "--samples", b, "--reference", real, "--features", "pixels", "--save-stats", "real.npz"]
    command = [sys.executable, "-m", "dmp_cli", "eval", *map(str, options), "--bootstrap", "4", "-q"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "-o", "straight"], cwd=tmp_path, env=environment, check=True)
    expected = {name: (tmp_path / "straight" / name).read_bytes() for name in files_in(tmp_path / "straight")}
    (tmp_path / "real.npz").unlink()
    for name in ("report.html", "report.md", "report.json"):  # killed in front of each file that appears
        killed = f"""
import os, pathlib, sys
rename = os.replace
def replace(source, target, **options):
    if pathlib.Path(target).name == {name!r}:
        os.kill(os.getpid(), 9)
    rename(source, target, **options)
os.replace = replace
from dmp_cli.cli import main
sys.argv = ["dmp", *{[*map(str, options), "--bootstrap", "4", "-q", "-o", "out"]!r}]
sys.argv.insert(1, "eval")
main()
"""
        done = subprocess.run([sys.executable, "-c", killed], cwd=tmp_path, env=environment)
        assert done.returncode == -9, name
        left = files_in(tmp_path / "out") - {".owner.lock", ".owner.json"}
        whole = {inner for inner in left if not inner.endswith(".partial")}
        assert whole < set(expected)
        assert all((tmp_path / "out" / inner).read_bytes() == expected[inner] for inner in whole)
    subprocess.run([*command, "-o", "out"], cwd=tmp_path, env=environment, check=True)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in files_in(tmp_path / "out")} == expected


def test_grey_references_are_read_and_broken_ones_named(
    run: Run, folders: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    real, a, _ = folders
    grey = tmp_path / "grey"
    grey.mkdir()
    for path in sorted(real.glob("*.png")):
        Image.open(path).convert("L").save(grey / path.name)
    colour = tmp_path / "colour"
    colour.mkdir()
    for path in sorted(grey.glob("*.png")):
        Image.open(path).convert("RGB").save(colour / path.name)
    common = ["eval", "--samples", a, "--features", "pixels", "--json"]
    found = [
        parse(run(*common, "--reference", folder, "-o", folder.name))["rows"][0]["scores"] for folder in (grey, colour)
    ]
    assert found[0] == found[1]
    (grey / "0003.png").write_bytes((grey / "0003.png").read_bytes()[:40])
    said = run(*common, "--reference", grey, "-o", "broken", code=1).stderr
    assert "1 of 24 images cannot be read" in said
    assert "0003.png" in said


def test_samples_that_are_not_as_they_were_drawn_are_not_scored(run: Run, patch: Path, images: Path) -> None:
    run("sample", "--patch", patch, "-n", 6, "--sampler", "ddim", "--steps", 3, "-o", "s", "-q")
    score = ["eval", "--samples", "s", "--reference", images, "--features", "pixels"]
    run(*score, "-o", "sound", "-q")
    image = Path("s/000002.png")
    before = image.read_bytes()
    image.write_bytes(Path("s/000001.png").read_bytes())
    assert "000002.png was changed" in run(*score, "-o", "x", code=1).stderr
    image.unlink()
    assert "000002.png is missing" in run(*score, "-o", "x", code=1).stderr
    image.write_bytes(before)
    Path("s/000099.png").write_bytes(before)
    assert "000099.png does not belong to these samples" in run(*score, "-o", "x", code=1).stderr
    Path("s/000099.png").unlink()
    Path("s/samples.json").write_text('{"made": "by hand", "origin": 3, "num_images": "six"}')
    run(*score, "-o", "by-hand", "-q")  # what another tool wrote is no record of ours
    assert not Path("x").exists()


def test_a_part_of_the_reference(run: Run, folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    real, a, _ = folders
    half = tmp_path / "half"
    half.mkdir()
    for path in sorted(real.glob("*.png"))[1::2]:
        (half / path.name).write_bytes(path.read_bytes())
    common = ["eval", "--samples", a, "--features", "pixels", "--metrics", "fid,kid", "--kid-subset-size", 5, "--json"]
    part = parse(run(*common, "--reference", real, "--reference-part", "2/2", "-o", "x", "--save-stats", "2.npz"))
    whole = parse(run(*common, "--reference", half, "-o", "y"))
    assert part["rows"][0]["scores"] == whole["rows"][0]["scores"]
    assert part["reference_provenance"]["count"] == 12
    assert part["reference_provenance"]["part"] == [1, 2]
    assert "part" not in whole["reference_provenance"]
    assert "real, part 2 of 2, 12 images" in (tmp_path / "x" / "report.md").read_text()
    assert "--reference-part 2/2" in (tmp_path / "x" / "report.html").read_text()
    loaded = parse(run(*common, "--reference", "2.npz", "-o", "z"))
    assert loaded["rows"][0]["scores"] == part["rows"][0]["scores"]
    saved = ["--reference", "2.npz", "--reference-part", "1/2"]
    assert "--reference-part cannot take some" in run(*common, *saved, "-o", "r", code=1).stderr
    assert (
        "part 20 of 23 holds 1 images" in run(*common, "--reference", real, "--reference-part", "20/23", code=1).stderr
    )
    assert (
        "--reference-part 0/2: give the number"
        in run(*common, "--reference", real, "--reference-part", "0/2", code=1).stderr
    )


def test_how_far_samples_were_led_away_stands_beside_the_score(
    run: Run, folders: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, a, b = folders
    made = {"against": "base", "sample": {"against_scale": 1.5}}
    (b / "samples.json").write_text(json.dumps({"num_images": 24, "made": made, "origin": {}}))
    common = ["eval", "--samples", a, "--samples", b, "--reference", real, "--features", "pixels"]
    report = parse(run(*common, "--json", "-o", "x"))
    assert set(report["rows"][1]["scores"]) == {"fid", "precision", "recall"}
    text = (tmp_path / "x" / "report.md").read_text()
    assert "| samples | images | W | FD (pixels) |" in text
    assert "| 24 | 1.5 |" in text
    assert "| 24 | – |" in text
    assert "W is how far samples were led away" in text
    page = (tmp_path / "x" / "report.html").read_text()
    assert "scored against" in page
    assert "real, 24 images. Differences" in page
    assert "against_scale" in page
    alone = parse(run(*common, "--json", "--metrics", "fid", "-o", "y"))
    assert set(alone["rows"][1]["scores"]) == {"fid"}
    assert any("rewards a scale that loses variety" in warning for warning in alone["warnings"])
    monkeypatch.setattr("dmp_cli.evaluation.led_away._EXTRA", "no_such_library")
    assert set(parse(run(*common, "--json", "-o", "z"))["rows"][1]["scores"]) == {"fid"}


def test_without_named_metrics_the_statistics_of_other_tools_are_scored_against(
    run: Run, folders: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    _, a, b = folders
    made = {"created": "now", "num_images": 24, "made": {"against": "base", "sample": {"against_scale": 1.5}}}
    (b / "samples.json").write_text(json.dumps(made))
    np.savez(tmp_path / "theirs.npz", mu=np.full(27, 0.5), sigma=np.eye(27))
    common = ["eval", "--samples", a, "--samples", b, "--features", "pixels", "--reference", "theirs.npz", "--json"]
    assert set(parse(run(*common, "-o", "x"))["rows"][1]["scores"]) == {"fid"}
    assert "holds no features" in run(*common, "--metrics", "fid,prc", "-o", "y", code=1).stderr


def test_a_part_of_shards_has_its_share_of_every_class(run: Run, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 3, 3, 3), np.uint8)
    half = tmp_path / "half"
    for place, index in enumerate(range(12)):
        label = place % 2  # classes in turn
        if (place // 2) % 2 == 0:  # every second image of each class
            (half / str(label)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[index]).save(half / str(label) / f"{index:02d}.png")
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "real-000.tar", "w") as tar:
        for index in range(12):
            png = io.BytesIO()
            Image.fromarray(pixels[index]).save(png, "PNG")
            for name, data in ((f"{index:02d}.png", png.getvalue()), (f"{index:02d}.cls", str(index % 2).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    samples = write_images(tmp_path / "samples", count=6, size=3, classes=0)
    common = ["eval", "--samples", samples, "--features", "pixels", "--json"]
    part = parse(run(*common, "--reference", "shards/real-{000..000}.tar", "--reference-part", "1/2", "-o", "x"))
    whole = parse(run(*common, "--reference", half, "-o", "y"))
    assert part["rows"][0]["scores"]["fid"]["value"] == pytest.approx(whole["rows"][0]["scores"]["fid"]["value"])
