"""Which mixture of prompts a patch is."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from .base import Frozen, option

GateKind = Literal["linear", "attention", "constant", "none"]
Selection = Literal["soft", "hard"]
Scope = Literal["distinct", "uniform"]
GateInput = Literal["timestep", "conditioning"]
Position = Literal["add", "prepend"]
Init = Literal["zero", "random"]

DEAD_SHARE = 0.1  # a prompt is dead if its weight never exceeds this share of the uniform weight 1/N


class PatchConfig(Frozen):
    """Which mixture of prompts a patch is (paper, Section 3 and Table 4)."""

    panel: ClassVar[str | None] = "Variant"

    gate: GateKind = option(
        "The gate, the network that weighs the prompts of a block by the timestep. constant gives each the weight 1/N, "
        "a control; none gives each the weight 1, which is prompt tuning (Eq. 2).",
        default="linear",
    )
    scope: Scope = option(
        "Whether the gate reads the block's depth too (distinct), or the timestep alone (uniform, Table 4c).",
        default="distinct",
    )
    selection: Selection = option(
        "Use all prompts by their weights (soft), or the top k alone, each with weight 1 (hard, Table 4b).",
        default="soft",
    )
    top_k: int | None = option("How many prompts --selection hard keeps.", shown="75 % of them", ge=1)
    position: Position = option(
        "Add the prompts to the tokens, or put them in front as tokens of their own (prepend, Table 4d).",
        default="add",
    )
    num_prompts: int | None = option("How many prompts --position prepend gives a block.", shown="50", ge=1)
    depth: int | None = option(
        "Give prompts to the first K blocks only (Table 4e).", metavar="K", shown="all blocks", ge=0
    )
    gate_input: GateInput = option(
        "What the gate reads: the timestep embedding, as the paper says, or its sum with the class embedding, as the "
        "authors' code does (conditioning).",
        default="timestep",
    )
    gate_scale: float = option(
        "Factor on the gate's weights, a control: N undoes the softmax's mean weight of 1/N.", default=1.0, gt=0
    )
    init: Init = option(
        "How prompts start: at zero, so that a fresh patch changes nothing, or Xavier uniform (random).",
        default="zero",
    )

    @model_validator(mode="after")
    def _combination_makes_sense(self) -> PatchConfig:
        if self.gate in ("constant", "none"):
            for field, default in (("scope", "distinct"), ("selection", "soft"), ("gate_input", "timestep")):
                if getattr(self, field) != default:
                    option = f"--{field.replace('_', '-')} {getattr(self, field)}"
                    raise ValueError(
                        f"{option} is about a gate that reads something, and --gate {self.gate} reads nothing"
                    )
        if self.num_prompts is not None and self.position == "add":
            raise ValueError("--num-prompts is for --position prepend; added prompts are as many as the tokens")
        if self.top_k is not None and self.selection == "soft":
            raise ValueError("--top-k is for --selection hard; soft selection uses all prompts")
        if self.gate_scale != 1 and (self.selection == "hard" or self.gate == "none"):
            raise ValueError(
                "--gate-scale is a factor on soft weights or on a constant gate; here all weights are 1 or 0"
            )
        return self
