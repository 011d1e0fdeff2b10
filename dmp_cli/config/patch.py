"""Which mixture a patch is: of prompts, of low-rank experts, or of both."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import field_validator, model_validator

from .base import Growing, Spoken, option
from .typed import PromptGrid, Words

GateKind = Literal["linear", "attention", "constant", "none"]
Selection = Literal["soft", "hard"]
Scope = Literal["distinct", "uniform"]
GateInput = Literal["timestep", "conditioning"]
Position = Literal["add", "prepend"]
Init = Literal["zero", "random"]
Experts = Literal["prompts", "lora", "both"]

_NUM_EXPERTS, _EXPERT_RANK = 4, 4  # 16 in all: as many parameters as 256 prompts where the MLP is 4 times as wide
_OF_EXPERTS = ("num_experts", "expert_rank", "expert_targets")
_OF_PROMPTS = {"position": "add", "num_prompts": None, "prompt_grid": None, "init": "zero"}  # and their defaults

DEAD_SHARE = 0.1  # a prompt is dead if its weight never exceeds this share of the uniform weight 1/N


class PatchConfig(Growing, metaclass=Spoken):
    """Which mixture a patch is (paper, Section 3 and Table 4). Low-rank experts under the gate are ours."""

    panel: ClassVar[str | None] = "Variant"
    later: ClassVar[frozenset[str] | None] = frozenset({"experts", "prompt_grid", *_OF_EXPERTS})

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
    prompt_grid: PromptGrid = option(
        "Give each block so many rows and columns of prompts, which are resized to its tokens; tokens gives one for "
        "each token, of which large images have thousands.",
        metavar="16x16|tokens",
        shown="tokens; 16x16 where these would be over 2 % of the model",
    )
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
    experts: Experts | None = option(
        "What the gate weighs: prompts, as the paper does; lora, low-rank updates of attention and MLP layers, each "
        "expert a small LoRA; or both, with one gate.",
        shown="prompts",
    )
    num_experts: int | None = option("How many low-rank experts a block has.", shown=str(_NUM_EXPERTS), ge=1, le=4096)
    expert_rank: int | None = option("Rank of each low-rank expert.", shown=str(_EXPERT_RANK), ge=1, le=4096)
    expert_targets: Words | None = option(
        "Linear layers of every block that the experts update, by name, such as qkv,proj.",
        shown="attention and MLP layers",
    )

    @field_validator("experts", mode="before")
    @classmethod
    def _prompts_are_the_default(cls, experts: Any) -> Any:
        return None if experts == "prompts" else experts

    @property
    def has_prompts(self) -> bool:
        """Whether the patch has prompts."""
        return self.experts != "lora"

    @property
    def experts_per_block(self) -> int:
        """How many low-rank experts a block has; 0 without experts."""
        return 0 if self.experts is None else self.num_experts or _NUM_EXPERTS

    @property
    def rank(self) -> int:
        """Rank of each low-rank expert."""
        return self.expert_rank or _EXPERT_RANK

    @model_validator(mode="after")
    def _experts_make_sense(self) -> PatchConfig:
        given = [field for field in _OF_EXPERTS if getattr(self, field) is not None]
        if self.experts is None and given:
            raise ValueError(f"{_flag(given[0])} is about low-rank experts; ask for them with --experts lora or both")
        if self.experts is None:
            return self
        if self.gate == "attention":
            raise ValueError("--gate attention compares prompts with the timestep; low-rank experts have no vector")
        for field, default in _OF_PROMPTS.items():
            if not self.has_prompts and getattr(self, field) != default:
                raise ValueError(f"{_flag(field)} is about prompts, and a patch with --experts lora has none")
        if self.experts == "both" and self.top_k is not None:
            raise ValueError("--top-k counts prompts or experts; with --experts both, 75 % of each are kept")
        return self

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
        if self.prompt_grid is not None and self.position == "prepend":
            raise ValueError("--prompt-grid lays prompts on the image; prepended ones have no place on it")
        if self.prompt_grid is not None and len(set(self.prompt_grid)) > 1:
            raise ValueError("--prompt-grid must have as many rows as columns, as images have")
        if self.top_k is not None and self.selection == "soft":
            raise ValueError("--top-k is for --selection hard; soft selection uses all prompts")
        if self.gate_scale != 1 and (self.selection == "hard" or self.gate == "none"):
            raise ValueError(
                "--gate-scale is a factor on soft weights or on a constant gate; here all weights are 1 or 0"
            )
        return self


def _flag(field: str) -> str:
    return f"--{field.replace('_', '-')}"
