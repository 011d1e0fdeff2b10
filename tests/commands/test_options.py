"""From the options that records declare to a command, and from what was typed to records."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import typer
from typer.testing import CliRunner, Result

from dmp_cli.commands.options import Given, takes
from dmp_cli.config import Frozen, Options, TrainConfig
from dmp_cli.config.base import option, same_option
from dmp_cli.config.typed import Words
from dmp_cli.errors import ConfigError


class Recipe(Frozen):
    """A record of the library: its ranges are checked when it is built."""

    rate: float = option("How fast.", default=0.5, gt=0)
    mirror: bool = option("Mirror it.", "--mirror/--no-mirror", default=True)
    layers: Words | None = option("Which layers.")
    kind: Literal["a", "b"] = option("Which kind.", default="a")
    plain: int = 3  # no option of the command line


class Door(Options):
    """Options of one command: their ranges are checked as they are typed."""

    output: Path | None = option("Where.", "--output", "-o", shown="somewhere")
    count: int = option("How many.", default=4, ge=1)
    force: bool = option("Overwrite.", "--force", default=False)
    speed: float | None = same_option(Recipe, "rate", help="The same under another name.")


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Type options; what the command was given, or the result where it ended with ``code``."""
    monkeypatch.chdir(tmp_path)
    seen: list[Given] = []
    app = typer.Typer()

    @app.command("try")
    @takes(Recipe, Door)
    def command(ctx: typer.Context, given: Given) -> None:
        """Try it."""
        seen.append(given)

    def run(*arguments: str, code: int = 0) -> Given | Result:
        result = CliRunner().invoke(app, list(arguments))
        if code:
            assert result.exit_code == code, result.output
            return result
        assert result.exit_code == 0, result.output or result.exception
        return seen[-1]

    return run


def test_what_is_not_typed_is_not_given(typed) -> None:
    assert typed().values == {}
    assert typed().make(Recipe) == Recipe()
    assert typed().make(Door) == Door()


def test_what_is_typed_makes_the_records(typed) -> None:
    given = typed("--rate", "2", "--no-mirror", "--layers", "q, v", "-o", "out", "--force", "--seed", "7")
    assert given.make(Recipe) == Recipe(rate=2, mirror=False, layers=("q", "v"))
    assert given.make(Door) == Door(output=Path("out"), force=True)
    assert given.of(Recipe) == ["rate", "mirror", "layers"]
    assert given.make(Recipe, rate=3).rate == 3
    assert given.typed(("output", "speed", "force")) == {"output": "out", "force": True}


def test_what_is_given_now_wins_over_what_was_given_before() -> None:
    whole = Given({"rate": 1.0}).over({"rate": 2.0, "kind": "b"})
    assert whole.make(Recipe) == Recipe(rate=1.0, kind="b")
    assert list(whole.values) == ["rate", "kind"]


def test_a_range_of_the_door_is_wrong_usage_and_one_of_the_library_a_config_error(typed) -> None:
    assert "Invalid value" in typed("--count", "0", code=2).output
    assert "Invalid value" in typed("--kind", "c", code=2).output
    with pytest.raises(ConfigError, match=r"--rate -1.0: Input should be greater than 0"):
        typed("--rate", "-1").make(Recipe)


def test_help_shows_each_default(typed) -> None:
    shown = " ".join(CliRunner(env={"COLUMNS": "200"}).invoke(_app_of(Recipe, Door), ["--help"]).output.split())
    for words in ("How fast. [default: (0.5)]", "Mirror it. [default: (on)]", "Where. [default: (somewhere)]"):
        assert words in shown
    assert "The same under another name. [default: (0.5)]" in shown
    assert "How many. [default: (4)" in shown
    assert "--plain" not in shown


def _app_of(*records: type[Frozen]) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    @takes(*records)
    def command(ctx: typer.Context, given: Given) -> None:
        """Try it."""

    return app


def test_a_file_of_options_gives_what_was_not_typed(typed, tmp_path: Path) -> None:
    (tmp_path / "options.toml").write_text('rate = 2.0\nmirror = false\n[try]\nkind = "b"\n')
    given = typed("--config", "options.toml", "--rate", "3")
    assert given.make(Recipe) == Recipe(rate=3, mirror=False, kind="b")


def test_every_field_of_a_training_run_is_an_option_or_common() -> None:
    from dmp_cli.config import options_of

    assert set(TrainConfig.model_fields) - set(options_of(TrainConfig)) == {"seed", "dtype"}
