"""Pages in a real headless browser: no console message, no request to any host, and working sliders."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmp_cli.report.html import Comparison, Frames, Page, Picture, Section, Table, render
from dmp_cli.report.image_grid import draw_image_grid
from dmp_cli.report.intervals import Interval, Intervals

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="needs chromium")]

PROBE = """
const cut = (f) => getComputedStyle(f.querySelector(".over")).clipPath;
const seen = (f) => [...f.querySelectorAll("img")].filter((i) => i.offsetParent !== null).map((i) => i.alt);
const move = (input, value) => { input.value = value; input.dispatchEvent(new Event("input", {bubbles: true})); };
const compare = document.querySelector(".compare"), frames = document.querySelector(".frames"), found = {};
found.cuts = [cut(compare)];
move(compare.querySelector("input"), 20);
found.cuts.push(cut(compare));
found.seen = [seen(frames)];
move(frames.querySelector("input"), 2);
found.seen.push(seen(frames));
found.said = frames.querySelector("output").textContent;
found.spoken = frames.querySelector("input").getAttribute("aria-valuetext");
const inputs = [...document.querySelectorAll("input")];
found.labels = inputs.map((input) => input.getAttribute("aria-label"));
found.focus = inputs.map((input) => { input.focus(); return document.activeElement === input; });
found.wider = document.documentElement.scrollWidth > window.innerWidth;
const note = document.createElement("pre");
note.id = "found";
note.textContent = JSON.stringify(found);
document.body.append(note);
"""


def picture(seed: int, name: str) -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    return Picture(png=draw_image_grid(list(pixels), rows=1, columns=2), alt=name)


@pytest.fixture
def page() -> str:
    comparison = Comparison(before=picture(0, "bare"), after=picture(1, "patched"), names=("base", "patched"))
    pictures = [picture(seed, f"gates at {seed}") for seed in range(3)]
    frames = Frames(pictures=pictures, names=["0", "500", "999"], what="Timestep")
    section = Section(heading="Pictures", comparisons=[comparison], frames=[frames])
    return render(Page(title="A page", lead="With sliders.", sections=[section]))


def probed(text: str, probe: str = PROBE) -> str:
    """The page with the probe script, which the page's policy allows by its hash."""
    digest = base64.b64encode(hashlib.sha256(probe.encode()).digest()).decode()
    text = text.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    return text.replace("</body>", f"<script>{probe}</script></body>", 1)


def found_in(dom: str) -> Any:
    """What the probe has written into the page."""
    match = re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL)
    assert match, dom[-500:]
    return json.loads(html.unescape(match[1]))


def browse(path: Path, *, width: int) -> tuple[str, str, list[str]]:
    """The page as the browser shows it, its console messages, and the addresses it requested."""
    log = path.with_suffix(".net.json")
    done = subprocess.run(
        [
            *(str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--enable-logging=stderr"),
            *("--virtual-time-budget=2000", f"--window-size={width},800", f"--log-net-log={log}"),
            *("--net-log-capture-mode=Everything", f"--user-data-dir={path.parent / 'profile'}", path.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    text = log.read_text()
    events: list[Any] = json.loads(text if text.rstrip().endswith("}") else text.rstrip().rstrip(",") + "]}")["events"]
    initiated = [e["params"] for e in events if "initiator" in e.get("params", {}) and "url" in e["params"]]
    asked = [params["url"] for params in initiated if params["initiator"] != "not an origin"]
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line), asked


@pytest.mark.parametrize("width", [1280, 400])
def test_sliders_move_pictures(page: str, tmp_path: Path, width: int) -> None:
    path = tmp_path / "page.html"
    path.write_text(probed(page), encoding="utf-8")
    dom, console, asked = browse(path, width=width)
    assert console == ""
    assert asked == []
    found = found_in(dom)
    assert found["cuts"] == ["inset(0px 0px 0px 50%)", "inset(0px 0px 0px 20%)"]
    assert found["seen"] == [["gates at 0"], ["gates at 2"]]
    assert (found["said"], found["spoken"]) == ("999", "999")
    assert found["labels"][1] == "Timestep"
    assert all(found["labels"])
    assert found["focus"] == [True, True]
    assert not found["wider"]


PLACES = """
const seen = [".answer", ".interval", ".dot"].map((name) => document.querySelector(name)).filter((one) => one !== null);
const found = seen.map((one) => one.getBoundingClientRect());
parent.postMessage(JSON.stringify({
  places: found.map((box) => [box.left, box.top, box.right, box.bottom]),
  zero: document.querySelector(".zero")?.getBoundingClientRect().left ?? null,
  answer: document.querySelector(".answer").textContent,
  wider: document.documentElement.scrollWidth > window.innerWidth, width: window.innerWidth,
}), "*");
"""
# A browser's own window is never as narrow as a phone; a frame is.
FRAME = """<!doctype html><script>
addEventListener("message", (event) => {
  const note = document.createElement("pre");
  note.id = "found";
  note.textContent = event.data;
  document.body.append(note);
});
</script><body><iframe src="page.html" style="width: WIDTHpx; height: 800px; border: 0"></iframe></body>"""


def first_screen(folder: Path, text: str, *, width: int) -> dict[str, Any]:
    """Where the answer, the first difference and its dot of a page lie, in a frame of ``width`` x 800 pixels."""
    (folder / "page.html").write_text(probed(text, PLACES), encoding="utf-8")
    (folder / "frame.html").write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    dom, console, asked = browse(folder / "frame.html", width=width)
    assert console == ""
    assert [address for address in asked if not address.startswith(("file:", "data:"))] == []
    found: dict[str, Any] = found_in(dom)
    assert found["width"] == width
    for left, top, right, bottom in found["places"]:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= 700  # of the 800 pixels of a phone
    assert not found["wider"]
    return found


@pytest.mark.parametrize("width", [1200, 400])
def test_the_answer_and_the_first_difference_are_on_the_first_screen(tmp_path: Path, width: int) -> None:
    rows = [Interval(name="patched", value=-0.4, low=-0.5, high=-0.3, text="-0.4 (-0.5 to -0.3)", hover="a/patched")]
    rows.append(Interval(name="other", value=0.1, low=-0.2, high=0.4, text="+0.1 (-0.2 to +0.4)"))
    sections = [Section(heading=f"Section {number}", paragraphs=["Words. " * 80]) for number in range(5)]
    frames = Frames(pictures=[picture(0, "x")], names=["0"], what="Timestep")  # so that the page has a script at all
    sections.append(Section(heading="Frames", frames=[frames]))
    chart = Intervals(rows=rows, caption="Difference of FID from `bare`; left is better.")
    answer = "`patched` is 0.4 better than `bare`, 95 % 0.3 to 0.5 (FID, 5,000 images)."
    text = render(Page(title="Scores", lead="Words. " * 60, sections=sections, answer=answer, intervals=chart))
    found = first_screen(tmp_path, text, width=width)
    assert found["places"][2][2] < found["zero"]  # the dot lies on the side of what is lower


SORT = """
const table = document.querySelector("table"), heads = [...table.tHead.rows[0].cells], found = [];
const column = (index) => [...table.tBodies[0].rows].map((row) => row.cells[index].firstChild.textContent.trim());
const press = (index, times) => {
  for (let time = 0; time < times; time++) heads[index].querySelector("button").click();
  found.push([heads.map((head) => head.getAttribute("aria-sort")), column(index)]);
};
press(1, 1); press(1, 1); press(1, 1); press(0, 1); press(1, 1);
const button = heads[2].querySelector("button");
button.focus();
found.push([document.activeElement === button, button.textContent]);
const note = document.createElement("pre");
note.id = "found";
note.textContent = JSON.stringify(found);
document.body.append(note);
"""


def test_tables_sort_by_their_headers_and_go_back(tmp_path: Path) -> None:
    values = ["29.4 ± 5.7", "–", "1,024", "-3.5 ± 0.1", "1.96e-4"]
    names = ["step 10", "b", "step 9", "a", "c"]
    rows = [[name, value, "x"] for name, value in zip(names, values, strict=True)]
    table = Table(
        columns=["samples", "FID", "note"], rows=rows, caption="", marked=frozenset({(0, 1)}), footnotes=["few"]
    )
    text = render(Page(title="Scores", lead="", sections=[Section(heading="Scores", table=table)]))
    path = tmp_path / "page.html"
    path.write_text(probed(text, SORT), encoding="utf-8")
    dom, console, asked = browse(path, width=800)
    assert (console, asked) == ("", [])
    up, down, back, by_name, again, focus = found_in(dom)
    assert up == [[None, "ascending", None], ["-3.5 ± 0.1", "1.96e-4", "29.4 ± 5.7", "1,024", "–"]]
    assert down == [[None, "descending", None], ["1,024", "29.4 ± 5.7", "1.96e-4", "-3.5 ± 0.1", "–"]]
    assert back == [[None, None, None], values]
    assert by_name == [["ascending", None, None], ["a", "b", "c", "step 9", "step 10"]]
    assert again[0] == [None, "ascending", None]
    assert focus == [True, "note"]


def test_a_foreign_script_does_not_run(page: str, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(page.replace("</body>", "<script>document.title = 'taken'</script></body>"), encoding="utf-8")
    dom, console, _ = browse(path, width=800)
    assert "<title>A page</title>" in dom
    assert "Content Security Policy" in console


def test_without_scripts_every_picture_is_there(page: str) -> None:
    assert page.count("data:image/png") == 5
    assert 'class="control" hidden' in page
    plain = render(Page(title="A page", lead="", sections=[Section(heading="None")]))
    assert "<script" not in plain
    assert "script-src" not in plain
