"""``dmp tune``: a whole search by hand, killed and continued, shared with another process, and bad input."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import t
from typer.testing import CliRunner

from dmp_cli.cli import app
from dmp_cli.commands.train import watchers
from dmp_cli.commands.tune import worker
from dmp_cli.config import TrainConfig
from dmp_cli.storage import own
from tests.builders import write_images

from .conftest import Run, files_in, parse

RANGES = """
batch_size = 4
lr = {low = 1e-3, high = 1e-1, log = true}
gate = ["linear", "constant"]
"""
TINY = ["--trials", 3, "--steps", 3, "--val-draws", 40, "--val-split", 0.4, "--no-flip", "--device", "cpu"]


@pytest.fixture(autouse=True)
def without_pages_of_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages of the runs take longer than these runs; test_train_held_out has them."""
    monkeypatch.setattr(watchers.Watchers, "_write_page", lambda self: None)


@pytest.fixture
def how(run: Run, backbone: list[str], tmp_path: Path) -> list[Any]:
    Path("ranges.toml").write_text(RANGES)
    data = write_images(tmp_path / "data", count=40)
    return ["tune", *backbone, "--data", data, "--ranges", "ranges.toml", "--final-seeds", "5,7", *TINY]


def losses_of(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [line["held_out"]["loss"] for line in lines if "held_out" in line]


def test_the_gain_by_hand_and_the_files(run: Run, how: list[Any]) -> None:
    report = parse(run(*how, "--no-prune", "-o", "out", "--json"))
    folder = Path("out")
    assert {name for name in files_in(folder) if "/" not in name} == {
        *("journal.jsonl", "ranges.toml", "winner.toml", "trials.png", ".owner-journal.lock"),
        *("report.html", "report.json", "report.md"),
    }
    assert {path.name for path in (folder / "trials").iterdir()} == {"0000", "0001", "0002"}
    trials = report["trials"]
    # the first one has the defaults that lie in the ranges; what it is worth is the last loss of its run
    assert trials[0]["options"] == {"gate": "linear"}
    assert TrainConfig.model_fields["lr"].get_default() < 1e-3
    assert [trial["value"] for trial in trials] == [losses_of(folder / f"trials/000{k}")[-1] for k in range(3)]
    best = min(trials, key=lambda trial: trial["value"])
    assert report["best"] == best["number"] > 0
    assert report["gain_in_search"] == pytest.approx(trials[0]["value"] - best["value"], rel=1e-9)
    # by hand from the draws of the final: K = 2 seeds, 40 draws of 8 images
    name = f"trial-{best['number']:04d}"
    tables = {}
    for who in ("defaults", name):
        for seed in (5, 7):
            with open(folder / f"final/{who}-seed{seed}/held-out.csv", newline="") as table:
                tables[who, seed] = list(csv.DictReader(table))
    gains = np.array(
        [
            [
                float(a["loss"]) - float(b["loss"])
                for a, b in zip(tables["defaults", seed], tables[name, seed], strict=True)
            ]
            for seed in (5, 7)
        ]
    )
    mean = gains.sum() / 80
    images = [int(row["image"]) for row in tables["defaults", 5]]
    assert set(images) == set(range(8))
    shares = [sum(gains[:, k].mean() - mean for k in range(40) if images[k] == image) / 40 for image in range(8)]
    seeds, over_images = (gains[0].mean() - gains[1].mean()) ** 2 / 2 / 2, 8 / 7 * sum(share**2 for share in shares)
    freedom = (seeds + over_images) ** 2 / (seeds**2 / 1 + over_images**2 / 7)
    reach = t.ppf(0.975, freedom) * (seeds + over_images) ** 0.5
    assert report["gain"] == pytest.approx(mean)
    assert report["final"]["interval"] == pytest.approx([mean - reach, mean + reach])
    assert report["final"]["over"] == "seeds and images"
    bare = sum(float(row["bare"]) for row in tables[name, 7]) / 40
    assert report["final"]["bare"] == pytest.approx(bare)
    assert report["added_by_choosing"] == pytest.approx(trials[0]["value"] - best["value"] - mean)
    # the page and the report have the gain after correction, and the options found
    for file in ("report.html", "report.md"):
        text = (folder / file).read_text()
        assert f"its gain is {mean:+.3g}" in text
        added = report["added_by_choosing"]
        assert f"So choosing had added {added:.3g}." in text or (added <= 0 and "had added nothing" in text)
        assert f"lr = {best['options']['lr']}" in text
        assert ("no training at all is as good" in text) == (sum(report["final"]["winner"]) / 2 >= bare)
    assert report["use"] in (folder / "report.html").read_text().replace("&#34;", '"')
    # the final measures on other images, by other draws, and no seed of it is that of the trials
    first, last = (
        json.loads((folder / place / "config.json").read_text())["train"]
        for place in ("trials/0000", f"final/{name}-seed7")
    )
    assert (first["val_part"], last["val_part"]) == ([0, 2], [1, 2])
    assert (first["val_seed"], last["val_seed"], first["seed"], last["seed"]) == (0, 1, 0, 7)
    assert first["batch_size"] == last["batch_size"] == 4
    # run again: nothing is done again; what was found can be trained with
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    assert parse(run(*how, "--no-prune", "-o", "out", "--json")) == report
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")} == stamps
    run("train", *how[1:7], "--data", "data", "--config", "out/winner.toml", "--steps", 1, "-o", "used", "-q")
    assert "is the journal of another search: steps 3, now 5" in run(*how, "--steps", 5, "-o", "out", code=1).stderr


class Killed(BaseException):
    """A kill, as far as this process can take one."""


def test_killed_in_a_trial_and_in_the_final_and_continued(
    run: Run, how: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*how, "--trials", 2, "--final-seeds", 5, "-q"]
    run(*command, "-o", "straight")
    real, judged, ran = worker.Watch.judge, [], []
    inside = worker.run_inside

    def dies_once(self: worker.Watch, step: int, loss: float) -> str:
        if (self.number, step) == (1, 2) and (1, 2) not in judged:
            judged.append((1, 2))
            raise Killed
        judged.append((self.number, step))
        return real(self, step, loss)

    def dies_after(command: list[str], *arguments: Any, **options: Any) -> None:
        inside(command, *arguments, **options)
        ran.append(command)
        if ran.count(command) == 1 and "final" in " ".join(command):
            raise Killed

    monkeypatch.setattr(worker.Watch, "judge", dies_once)
    monkeypatch.setattr(worker, "run_inside", dies_after)
    for _ in range(3):
        with pytest.raises(Killed):
            CliRunner().invoke(app, [*map(str, command), "-o", "killed"], catch_exceptions=False)
    run(*command, "-o", "killed")
    assert judged.count((0, 3)) == 1  # a finished trial is not done again
    straight, killed = (json.loads(Path(folder, "report.json").read_text()) for folder in ("straight", "killed"))
    assert json.dumps(straight).replace("straight", "killed") == json.dumps(killed)
    patches = sorted(Path("straight").rglob("patch.safetensors"))
    assert len(patches) == 4
    for path in patches:
        assert path.read_bytes() == Path("killed", path.relative_to("straight")).read_bytes()
    assert files_in(Path("straight")) == files_in(Path("killed"))


def test_a_trial_of_another_process_is_left_alone_and_taken_over_when_that_is_gone(
    run: Run, how: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*how, "--final-seeds", 5, "-o", "out", "--json"]
    with own(Path("out"), command="dmp tune", part="-trial-1"):  # this process plays another one
        first = run(*command, "--trials", 2)
        assert "holds it" in parse(first)["elsewhere"][0]
        assert not Path("out/report.html").exists()
        assert not Path("out/trials/0001").exists()
    report = parse(run(*command, "--trials", 2))
    assert [trial["state"] for trial in report["trials"]] == ["complete", "complete"]
    # pruned, as a median would tell: the folder says so, and the page
    monkeypatch.setattr("dmp_cli.tuning.Journal.report", lambda self, number, step, loss: step == 2)
    pruned = parse(run(*command, "--trials", 3))["trials"][2]
    assert (pruned["state"], pruned["value"]) == ("pruned", None)
    assert json.loads(Path("out/trials/0002/log.jsonl").read_text().splitlines()[-1])["ended"] == pruned["reason"]
    assert len(losses_of(Path("out/trials/0002"))) == 3
    assert "1 of them ended early" in Path("out/report.md").read_text()


def test_a_part_of_the_final_that_another_process_finishes_last_is_not_forgotten(
    run: Run, how: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*how, "--trials", 2, "--final-seeds", 5, "-o", "out", "--json"]
    report = parse(run(*command))
    assert report["best"] == 1
    path = Path("out/journal.jsonl")
    records = path.read_text().splitlines(keepends=True)
    marks = {key: record for record in records for key in ("defaults", "trial-0001") if f"done: {key}" in record}
    path.write_text("".join(record for record in records if record not in marks.values()))
    Path("out/report.json").unlink()
    with own(Path("out"), command="dmp tune", part="-final-defaults-seed5"):  # another one works on this part
        shown = parse(run(*command))
        assert "holds it" in shown["elsewhere"][0]
        assert marks["trial-0001"].split('"user_attr"')[1] in path.read_text()  # the other part is done meanwhile
    path.write_text("".join(record for record in records if record not in marks.values()))

    def finishes_meanwhile(command: list[str], *arguments: Any, **options: Any) -> None:
        with open(path, "a") as journal:
            journal.write(marks["defaults"])

    monkeypatch.setattr(worker, "run_inside", finishes_meanwhile)
    with own(Path("out"), command="dmp tune", part="-final-defaults-seed5"):
        assert parse(run(*command)) == report


def test_a_trial_that_diverges_is_a_failed_one(run: Run, how: list[Any]) -> None:
    Path("ranges.toml").write_text("max_bad_steps = 0\nbatch_size = 4\nlr = [1e-4, 1e30]\n")
    report = parse(run(*how, "--trials", 3, "--final-seeds", 5, "-o", "out", "--json"))
    states = {trial["options"]["lr"]: trial["state"] for trial in report["trials"]}
    assert states == {1e-4: "complete", 1e30: "failed"}
    assert "not finite" in next(trial["reason"] for trial in report["trials"] if trial["state"] == "failed")
    # the best one has the defaults, so that there is nothing to measure again
    assert (report["best"], report["final"], report["gain"]) == (0, None, None)
    assert "No trial was better than the defaults" in Path("out/report.html").read_text()
    assert not Path("out/final").exists()


@pytest.mark.slow
def test_by_a_score(run: Run, how: list[Any]) -> None:
    score = ["--by", "fid", "--features", "pixels", "-n", 4, "--sampling-steps", 2, "--trials", 2, "--final-seeds", "5"]
    report = parse(run(*how, *score, "-o", "out", "--json"))
    rows = [json.loads(Path(f"out/scores/000{k}/report.json").read_text()) for k in (0, 1)]
    assert [trial["value"] for trial in report["trials"]] == [row["rows"][0]["scores"]["fid"]["value"] for row in rows]
    assert {row["reference_provenance"]["part"][0] for row in rows} == {0}
    if report["best"]:
        final = json.loads(Path("out/scores/trial-0001-seed5/report.json").read_text())
        assert final["reference_provenance"]["part"] == [1, 2]
        before, after = (row["scores"]["fid"]["value"] for row in final["rows"])
        assert report["gain"] == pytest.approx(before - after)
        assert report["final"]["over"] == "the images that were drawn"
        assert {row["made"]["made"]["sample"]["seed"] for row in final["rows"]} == {5}


def test_dry_run(run: Run, how: list[Any], tmp_path: Path) -> None:
    before = files_in(tmp_path)
    shown = parse(run(*how, "--dry-run", "-o", "out", "--json"))
    assert len(shown["commands"]) == 1
    assert "--val-part 1/2" in shown["commands"][0]
    assert (
        shown["ranges"] == 'batch_size = 4\nlr = {low = 0.001, high = 0.1, log = true}\ngate = ["linear", "constant"]\n'
    )
    assert ["--val-part 2/2" in command and "--seed 5" in command for command in shown["final"]] == [True, False]
    assert files_in(tmp_path) == before
    assert parse(run("tune", "--backbone", "digits", "--dry-run", "--json"))["trials"] == 20
    # images of one's own, in halves or apart
    write_images(tmp_path / "third", count=12, seed=3)
    write_images(tmp_path / "fourth", count=12, seed=4)
    other = [*how[: how.index("--val-split")], "--val-data", "third", "--dry-run", "--json"]
    halves, apart = parse(run(*other)), parse(run(*other, "--final-data", "fourth"))
    assert "--val-data third --val-part 1/2" in halves["commands"][0]
    assert "--val-data third --val-part 2/2" in halves["final"][0]
    assert "--val-data third --val-draws" in apart["commands"][0]
    assert "--val-data fourth --val-draws" in apart["final"][0]


def test_bad_input(run: Run, how: list[Any], backbone: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def message(*words: Any, ranges: str = RANGES, command: list[Any] = how) -> str:
        Path("ranges.toml").write_text(ranges)
        shown = run(*command, *words, "-o", "out", code=1).stderr
        assert not Path("out").exists()
        return " ".join(shown.split())

    assert "no backbone given" in message(command=["tune"])
    assert "no data given" in message(command=["tune", *backbone])
    assert "line 1: dmp train has no option leerning_rate" in message(ranges="leerning_rate = [1, 2]")
    assert "Did you mean lr" in message(ranges="rl = [1, 2]")
    assert "line 2: val_split is the same for all trials" in message(ranges="lr = [1, 2]\nval_split = [0.1, 0.2]")
    assert "ranges.toml, line 2: --ema 1.0: Input should be less than 1" in message(
        ranges="\nema = {low = 0.5, high = 1.0}"
    )
    assert "--num-prompts is for --position prepend" in message(ranges="num_prompts = {low = 1, high = 2}")
    assert "--top-k 99: a block of this backbone has" in message(
        ranges='selection = ["hard", "soft"]\n'.replace('", "soft', "").replace('["hard"]', '"hard"')
        + "top_k = [1, 99]"
    )
    assert "--method lora trains no patch, so gate does not apply" in message(ranges=f"method = 'lora'\n{RANGES}")
    same = "would choose and score: it is that of the trials"
    assert "--final-seeds 5,0: seed 0 " + same in message("--final-seeds", "5,0")
    assert same in message("--seed", 7)
    assert "a seed stands twice" in message("--final-seeds", "5,5")
    assert "give whole numbers such as 1,2,3" in message("--final-seeds", "5,x")
    images = [*how[: how.index("--val-split")], "--no-flip"]
    shutil.copytree("data", "other")
    assert "20 held-out images are trained on too: " in message("--val-data", "other", command=images)
    write_images(Path("third"), count=12, seed=3)
    write_images(Path("fourth"), count=12, seed=4)
    (one,) = list(Path("third").rglob("*.png"))[:1]
    shutil.copy(one, Path("fourth") / one.parent.name / "copy.png")
    chosen = ["--val-data", "third", "--final-data", "fourth"]
    found = message(*chosen, command=images)
    assert "1 held-out images are in the search too: " in found
    assert "copy.png" in found
    assert "--final-data needs images that choose" in message("--final-data", "fourth", command=images)
    assert "--val-split 0.99 would hold out all" in message("--val-split", 0.99)
    assert "--val-data and --val-split: give one of both" in message("--val-data", "third")
    few = write_images(Path("few"), count=3, classes=1)
    scored = ["--by", "fid", "--features", "pixels", "--reference", few]
    assert "few holds 3 images: its parts, of which there are 2, need 2 each" in message(*scored)
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "dmp tune needs Optuna pip install 'dmp-cli[tune]'" in message()


def test_a_folder_of_something_else(run: Run, how: list[Any]) -> None:
    Path("out").mkdir()
    Path("out/notes.txt").write_text("years of work")
    for force in ([], ["--force"]):
        assert "exists already" in run(*how, *force, "-o", "out", code=1).stderr
    assert files_in(Path("out")) == {"notes.txt"}
    shutil.copytree("data", "tuned/data")
    Path("tuned/journal.jsonl").touch()
    words = [word if word != Path("data").resolve() else "tuned/data" for word in how]
    words[words.index("--data") + 1] = "tuned/data"
    assert "--force would remove tuned/data" in run(*words, "--force", "-o", "tuned", code=1).stderr
    assert files_in(Path("tuned/data"))


def typed(how: list[Any], folder: str) -> list[str]:
    return [sys.executable, "-m", "dmp_cli", *map(str, how), "-q", "-o", folder]


ALONE: dict[str, Any] = {"env": {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}}


@pytest.mark.slow
def test_two_processes_share_the_trials(run: Run, how: list[Any]) -> None:
    command = typed([*how, "--trials", 6, "--no-prune"], "out")
    workers = [subprocess.Popen(command, **ALONE) for _ in range(2)]
    assert [process.wait(timeout=300) for process in workers] == [0, 0]
    report = json.loads(Path("out/report.json").read_text())
    assert [trial["state"] for trial in report["trials"]] == ["complete"] * 6
    records = [json.loads(line) for line in Path("out/journal.jsonl").read_text().splitlines()]
    begun = [record for record in records if record["op_code"] == 4]
    ended = [record for record in records if record["op_code"] == 6]
    assert sorted(record["trial_id"] for record in ended) == list(range(6))  # each once
    assert len({record["worker_id"] for record in begun}) == 2  # by both of them
    for number in range(6):
        steps = [record["step"] for record in records if record["op_code"] == 7 and record["trial_id"] == number]
        assert steps == [0, 1, 2, 3]


@pytest.mark.slow
def test_rounds_find_the_same_with_two_processes_as_with_one(run: Run, how: list[Any]) -> None:
    rounds = [*how, "--trials", 7, "--round-size", 3]
    run(*rounds, "-q", "-o", "one")
    said = run(*rounds, "--jobs", 2, "-o", "two").stderr
    assert "begin worker 2 on cpu" in said
    one, two = (json.loads(Path(folder, "report.json").read_text()) for folder in ("one", "two"))
    assert two["trials"] == one["trials"]
    assert two["final"] == one["final"]
    records = [json.loads(line) for line in Path("two/journal.jsonl").read_text().splitlines()]
    assert len({record["worker_id"] for record in records if record["op_code"] == 4}) == 2  # both took trials
    learnt = sorted(Path("one").rglob("patch.safetensors"))
    assert len(learnt) == 7 + 4
    for path in learnt:
        assert path.read_bytes() == Path("two", path.relative_to("one")).read_bytes()
    assert "another search: round-size 3, now none" in run(*how, "--trials", 7, "-o", "one", code=1).stderr


@pytest.mark.slow
def test_killed_by_the_system_and_continued(run: Run, how: list[Any]) -> None:
    run(*how, "-q", "-o", "straight")
    process = subprocess.Popen(typed(how, "killed"), **ALONE)
    for _ in range(6000):
        if Path("killed/trials/0001/checkpoints").exists() or process.poll() is not None:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(typed(how, "killed"), check=True, **ALONE)
    for path in sorted(Path("straight").rglob("patch.safetensors")):
        assert path.read_bytes() == Path("killed", path.relative_to("straight")).read_bytes()
    straight, killed = (json.loads(Path(folder, "report.json").read_text()) for folder in ("straight", "killed"))
    assert straight["trials"] == killed["trials"]
    assert straight["final"] == killed["final"]
