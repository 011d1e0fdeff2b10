"""Which mixture of prompts a patch is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from .base import Frozen

GateKind = Literal["linear", "attention", "constant", "none"]
Selection = Literal["soft", "hard"]
Scope = Literal["distinct", "uniform"]
GateInput = Literal["timestep", "conditioning"]
Position = Literal["add", "prepend"]
Init = Literal["zero", "random"]


class PatchConfig(Frozen):
    """Which mixture of prompts a patch is (paper, Section 3 and Table 4)."""

    gate: GateKind = "linear"  # none = prompt tuning (Eq. 2), constant = 1/N (a control)
    scope: Scope = "distinct"  # the gate reads [t; i], or t alone (Table 4c)
    selection: Selection = "soft"  # hard: weight exactly 1 for the top k prompts, 0 for the others (Table 4b)
    top_k: int | None = Field(None, ge=1)  # prompts that hard selection keeps; None: 75 % of them, 192 of 256
    position: Position = "add"  # to the tokens, or as tokens of their own in front of them (Table 4d)
    num_prompts: int | None = Field(None, ge=1)  # of a block, when prepended; None: 50
    depth: int | None = Field(None, ge=0)  # the first blocks that get prompts (Table 4e); None: all of them
    gate_input: GateInput = "timestep"  # conditioning: timestep + class embedding, as in the authors' code
    gate_scale: float = Field(1.0, gt=0)  # factor on soft weights; N undoes the softmax's mean of 1/N (a control)
    init: Init = "zero"  # of the prompts; random is Xavier uniform on (N, D)

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
