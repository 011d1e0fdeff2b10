"""The arms of an ablation, which are the ways to train that it compares: from a named table or from a TOML file."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import nearest
from ..errors import ConfigError
from ..storage import read_toml

_BALANCE = ((0, 0), (0, 1), (1, 0), (1, 2), (2, 1))  # (importance, load) of Table 4f besides the default (1, 1)
_DECAYED = {"lr_schedule": "cosine", "ema": 0.999}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
OWN = "own_samples"  # the option of an arm that learns from so many samples of the backbone, and is sampled against
TABLES = ("table2", "table3", "table4", "controls", "guidance")


@dataclass(frozen=True)
class Arm:
    """One way to train: its name in folders, its title in tables, and its options of ``dmp train``."""

    name: str
    title: str
    options: Mapping[str, Any] = field(default_factory=dict)
    line: int | None = None  # line of its file where it begins; None: an arm of a named table

    @property
    def method(self) -> str:
        """The training method."""
        return str(self.options.get("method", "dmp"))

    @property
    def own_samples(self) -> int | None:
        """How many samples of the backbone it learns from, to be sampled against; None: it learns from the data."""
        return self.options.get(OWN)

    @property
    def averages(self) -> bool:
        """Whether its running average (EMA) is scored instead of its last weights."""
        return bool(self.options.get("ema"))

    @property
    def starts_as_base(self) -> bool:
        """Whether it equals the base before training, so that its curve can start at the base."""
        starts = self.options.get("position", "add") == "add" and self.options.get("init", "zero") == "zero"
        return starts and self.own_samples is None

    @property
    def decays(self) -> bool:
        """Whether its learning rate depends on the number of steps; then only its last step is scored."""
        return self.options.get("lr_schedule", "constant") != "constant"


def arms_of(
    table: str, *, num_blocks: int, num_prompts: int, tokens: bool = True, reads_text: bool = False
) -> list[Arm]:
    """The arms of a named table, for a backbone with ``num_blocks`` blocks and ``num_prompts`` prompts (N in titles).

    ``tokens`` says whether prompts are tokens; variants that exist only for tokens are left out otherwise. So are, for
    a backbone that ``reads_text``, arms that would be sampled against a second one.
    """
    if table in ("table2", "table3"):
        return _METHODS
    if table == "controls":
        return _controls(num_prompts)
    if table == "guidance":
        return [arm for arm in _guidance() if not (reads_text and arm.method == "full")]
    return [arm for arm in _table4(num_blocks) if tokens or arm.name not in _TOKENS_ONLY]


_METHODS = [
    Arm("full", "full fine-tuning", {"method": "full"}),
    Arm("prompt-tuning", "prompt tuning", {"method": "prompt-tuning"}),
    Arm("dmp", "DMP"),
]
_TOKENS_ONLY = {"4a-attention", "4b-hard", "4d-prepend"}


def _guidance() -> list[Arm]:
    """Every method as the version that is sampled against, with the defaults of ``dmp improve``."""
    from ..config import NegativeOptions, default_of

    rate, count = (default_of(NegativeOptions, name) for name in ("lr", OWN))
    shared = {OWN: count, "lr": rate}
    rank = {"lora_rank": default_of(NegativeOptions, "lora_rank")}
    own: dict[str, tuple[str, dict[str, Any]]] = {
        "lora": ("LoRA", rank),
        "dmp": ("DMP", {"gate_lr": rate}),
        "prompt-tuning": ("prompt tuning", {}),
        "full": ("full fine-tuning", {}),
    }
    return [
        Arm(f"against-{method}", f"against own samples, {title}", {"method": method, **shared, **more})
        for method, (title, more) in own.items()
    ]


def _table4(num_blocks: int) -> list[Arm]:
    """Table 4 of the paper: the default, and variants that each differ from it in one respect."""
    depths = [depth for depth in sorted({1, num_blocks // 2}) if 0 < depth < num_blocks]
    return [
        Arm("dmp", "DMP: linear, soft, distinct, add"),
        Arm("4a-attention", "4a attention gate", {"gate": "attention"}),
        Arm("4b-hard", "4b hard selection", {"selection": "hard"}),
        Arm("4c-uniform", "4c uniform scope", {"scope": "uniform"}),
        Arm("4d-prepend", "4d prepend", {"position": "prepend"}),
        *(Arm(f"4e-depth-{depth}", f"4e depth {depth} of {num_blocks}", {"depth": depth}) for depth in depths),
        *(
            Arm(f"4f-{i}-{load}", f"4f importance {i}, load {load}", {"balance_importance": i, "balance_load": load})
            for i, load in _BALANCE
        ),
    ]


def _controls(num_prompts: int) -> list[Arm]:
    """Arms that separate the effects of mixture, step size and learning-rate schedule.

    Each arm comes with a constant rate, and with a cosine schedule and a running average (EMA). In one step of Adam,
    the mixture of a softmax over N prompts moves 1/N as far as the prompt in prompt tuning. A gate scale of N, or
    prompt tuning at 1/N of the rate, makes the steps equal.
    """
    from ..config import TrainConfig

    rate = TrainConfig.model_fields["lr"].get_default() / num_prompts
    plain = [
        Arm("dmp", "DMP"),
        Arm("constant", "constant gate 1/N", {"gate": "constant"}),
        Arm("scaled", f"gate scale {num_prompts}", {"gate_scale": num_prompts}),
        Arm("prompt-tuning", "prompt tuning", {"method": "prompt-tuning"}),
        Arm("prompt-tuning-slow", "prompt tuning, rate / N", {"method": "prompt-tuning", "lr": rate}),
        Arm("full", "full fine-tuning", {"method": "full"}),
    ]
    decayed = [Arm(f"{arm.name}-cosine", f"{arm.title}, cosine + EMA", {**arm.options, **_DECAYED}) for arm in plain]
    return plain + decayed


def read_arms(path: Path, *, known: Collection[str], reserved: Collection[str]) -> list[Arm]:
    """Read the arms of a TOML file: ``[[arm]]`` tables with ``name``, perhaps ``title``, and options of ``dmp train``.

    Options above the first arm apply to all arms. ``known`` are the names of all options, ``reserved`` of those that
    the ablation sets itself.

    Raises:
        ConfigError: the file cannot be read, is not TOML or has no arms, a name is invalid or occurs twice, or an
            option is unknown or reserved. The message names the line, and the known option with the nearest name.
    """
    text, content = read_toml(Path(path))
    lines = _Lines(text)
    tables = content.pop("arm", None)
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{path} holds no arms", hint='Write one as [[arm]], with name = "..." and options below it.')
    shared = _options(
        content, place=lambda key: f"{path}, line {lines.find(key, arm=-1)}", known=known, reserved=reserved
    )
    arms = []
    for number, table in enumerate(tables):

        def place(key: str, number: int = number) -> str:
            return f"{path}, line {lines.find(key, arm=number)}"

        name, title = str(table.pop("name", "")), table.pop("title", None)
        if not _NAME.fullmatch(name) or name == "base":
            raise ConfigError(
                f"{place('name')}: {name!r} is not a valid name for an arm",
                hint="Use letters, digits, dots, dashes and underscores, a letter or digit first; base is reserved.",
            )
        options = {**shared, **_options(table, place=place, known=known, reserved=reserved)}
        arms.append(Arm(name, str(title or name), options, line=lines.find("", arm=number)))
    names = [arm.name for arm in arms]
    for arm in arms:
        if names.count(arm.name) > 1:
            raise ConfigError(f"{path}, line {arm.line}: two arms are called {arm.name}")
    return arms


def _options(
    given: Mapping[str, Any], *, place: Any, known: Collection[str], reserved: Collection[str]
) -> dict[str, Any]:
    options = {}
    for key, value in given.items():
        name = key.replace("-", "_")
        if name in reserved:
            raise ConfigError(f"{place(key)}: {key} is the same for all arms", hint="Give it to dmp ablate itself.")
        if name not in known:
            raise ConfigError(f"{place(key)}: dmp train has no option {key}", hint=nearest(name, known))
        options[name] = value
    return options


class _Lines:
    """Finds the lines of keys in the text of a TOML file, for messages."""

    def __init__(self, text: str) -> None:
        self._rows = text.splitlines()
        self._arms = [number for number, row in enumerate(self._rows) if re.match(r"\s*\[\[\s*arm\s*\]\]", row)]

    def find(self, key: str, *, arm: int) -> int:
        """The line of ``key`` in an arm (-1: above the first arm); the first line of the arm if it is not found."""
        start = 0 if arm < 0 else self._arms[arm]
        end = (
            next((number for number in self._arms if number > start), len(self._rows)) if arm >= 0 else len(self._rows)
        )
        pattern = re.compile(rf"""\s*["']?{re.escape(key)}["']?\s*=""")
        rows = range(start, end)
        return next((number + 1 for number in rows if key and pattern.match(self._rows[number])), start + 1)
