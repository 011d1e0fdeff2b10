"""How many prompts are chosen, also with ties. Gates against formulas: ``test_prompts``, ``test_attention_gate``."""

from __future__ import annotations

import torch

from dmp_cli.patching.gates import default_top_k, select_hard


def test_three_quarters_of_the_prompts_are_chosen_by_default() -> None:
    assert [default_top_k(n) for n in (256, 50, 16, 2, 1)] == [192, 37, 12, 1, 1]


def test_equal_weights_still_choose_k() -> None:
    assert select_hard(torch.full((2, 8), 0.125), top_k=3).sum(-1).tolist() == [3.0, 3.0]
