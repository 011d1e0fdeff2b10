"""Every kind of page that dmp writes, made anew from the embedded digits, and pictures of each in a browser.

python docs/screenshots.py FOLDER            pages and pictures: 400 and 1,200 pixels wide, light and dark
python docs/screenshots.py FOLDER NAME ...   pictures of these pages only, from a folder whose pages are made

It takes a few minutes on a processor and needs Chromium or Chrome. The runs are far too short to mean anything.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTHS = (400, 1200)
TALL = 9000  # pixels; longer pages are cut
PAGES = {  # name -> the file, in the folder of the pages
    "demo": "demo/index.html",
    "scores": "scores/report.html",
    "held-out": "run/held-out.html",
    "loss": "loss/loss.html",
    "gates": "gates/gates.html",
    "ablation": "ablation/report.html",
    "improvement": "improvement/index.html",
    "tuning": "tuning/report.html",
}
_ARMS = '[[arm]]\nname = "dmp"\ntitle = "DMP"\n\n[[arm]]\nname = "tuned"\nmethod = "prompt-tuning"\n'
_RANGES = 'batch_size = 8\nlr = {low = 1e-3, high = 1e-1, log = true}\ngate = ["linear", "constant"]\n'
_TRAIN = ("train", "--backbone", "digits", "--data", "demo/digits", "--batch-size", "16", "--device", "cpu")
_PATCH = "run/patch.safetensors"


def commands() -> Iterator[list[str]]:
    """The commands that write all pages, in their order, in a folder that has the two files of :func:`make_pages`."""
    few = ("-n", "60", "--device", "cpu")
    short = ("--sampling-steps", "3", "--sample-batch-size", "30", "--batch-size", "16", *few)
    draws = ("--val-draws", "200")
    yield ["demo", "--steps", "8", "-n", "60", "-o", "demo"]
    yield [*_TRAIN, "--steps", "40", "--lr", "0.01", "--val-split", "0.1", "--val-every", "10", *draws, "-o", "run"]
    yield [*_TRAIN, "--steps", "4", "--seed", "1", "-o", "other"]
    yield ["inspect-gates", "--patch", _PATCH, "--compare", "other/patch.safetensors", "-o", "gates"]
    both = ("--patch", _PATCH, "--patch", "other/patch.safetensors")
    yield ["eval", "--loss", *both, "--val-data", "demo/digits", *draws, "-o", "loss", "--device", "cpu"]
    sets = [word for name in ("base", "full", "dmp") for word in ("--samples", f"demo/samples/{name}")]
    against = ("--reference", "demo/digits", "--features", "digits", "--gates", "gates")
    yield ["eval", *sets, *against, "-o", "scores", "--device", "cpu"]
    yield [
        "ablate",
        "arms.toml",
        "--backbone",
        "digits",
        "--steps",
        "8",
        "--points",
        "2",
        "--seeds",
        "2",
        *short,
        "-o",
        "ablation",
    ]
    own = ("--own-samples", "60", "--lr", "0.02", "--scales", "0.5,2")
    yield ["improve", "--backbone", "digits", "--steps", "8", *own, *short, "-o", "improvement"]
    search = ("--ranges", "ranges.toml", "--trials", "4", "--final-seeds", "5,7", "--val-split", "0.2", "--no-flip")
    held = ("--backbone", "digits", "--steps", "10", "--val-draws", "60", "--device", "cpu")
    yield ["tune", *search, *held, "-o", "tuning"]


def make_pages(folder: Path) -> dict[str, Path]:
    """Run :func:`commands` in ``folder``, which may not exist yet; the page of each kind, by its name."""
    from dmp_cli.cli import app

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "arms.toml").write_text(_ARMS, encoding="utf-8")
    (folder / "ranges.toml").write_text(_RANGES, encoding="utf-8")
    with working_in(folder):
        for command in commands():
            if (Path(command[-1]) if command[-2] == "-o" else Path(command[command.index("-o") + 1])).exists():
                continue  # made by an earlier call
            print("dmp", *command, file=sys.stderr)
            with contextlib.redirect_stdout(io.StringIO()):
                if app([*command, "--quiet"], standalone_mode=False):
                    raise SystemExit(f"failed: dmp {' '.join(command)}")
    return {name: folder / file for name, file in PAGES.items()}


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Context with ``folder`` as the working folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def photograph(page: Path, picture: Path, *, width: int, dark: bool, browser: str) -> None:
    """Write a PNG of the whole page, ``width`` pixels wide."""
    from PIL import Image, ImageChops

    # A window is never as narrow as a phone; a frame is.
    frame = page.with_name(f".{page.stem}-{width}.html")
    style = f"width: {width}px; height: {TALL}px; border: 0; display: block"
    frame.write_text(
        f'<!doctype html><body style="margin: 0"><iframe src="{page.name}" style="{style}"></iframe></body>'
    )
    scheme = 0 if dark else 1
    try:
        subprocess.run(
            [
                *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *(f"--blink-settings=preferredColorScheme={scheme}", f"--window-size={max(width, 600)},{TALL}"),
                *(f"--screenshot={picture}", f"--user-data-dir={picture.parent / '.profile'}", frame.as_uri()),
            ],
            capture_output=True,
            timeout=120,
            check=True,
        )
    finally:
        frame.unlink()
    with Image.open(picture) as shot:
        whole = shot.convert("RGB").crop((0, 0, width, TALL))
    paper = Image.new("RGB", whole.size, whole.getpixel((width - 1, TALL - 1)))
    drawn = ImageChops.difference(whole, paper).getbbox()
    whole.crop((0, 0, width, min(TALL, drawn[3] + 40) if drawn else TALL)).save(picture)


def main(folder: Path, names: list[str]) -> None:
    """Make the pages, and a picture of each at every width in both schemes, in ``folder/pictures``."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise SystemExit(f"needs one of {', '.join(BROWSERS)}")
    folder = folder.resolve()
    pages = make_pages(folder)
    (folder / "pictures").mkdir(exist_ok=True)
    for name in names or pages:
        for width in WIDTHS:
            for scheme in ("light", "dark"):
                picture = folder / "pictures" / f"{name}-{width}-{scheme}.png"
                photograph(pages[name], picture, width=width, dark=scheme == "dark", browser=browser)
                print(picture)
    shutil.rmtree(folder / "pictures" / ".profile", ignore_errors=True)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])
