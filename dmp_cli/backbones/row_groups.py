"""Rows of a batch that run in forwards of their own, where a model takes captions of one length alone.

What goes with each row of a batch, such as a factor on its mixture, is cut to the rows of the running forward here.

Letters: B rows of a batch, b of them in a forward, S tokens of a caption, E width of a token's state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..runtime import Ambient

running_rows: Ambient[Tensor] = Ambient()  # which rows of a thread's batch its running forward holds, (b,); None: all

Predict = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]


def own_rows(values: Tensor) -> Tensor:
    """``values`` (B, ...) of the rows that the running forward holds, (b, ...)."""
    rows = running_rows.value
    return values if rows is None else values[rows.to(values.device)]


# The forwards are compiled, one graph for each b and S. torch.compiler.disable would import the whole compiler at once.
@torch._disable_dynamo(recursive=False)
def predict_in_groups(
    predict: Predict, x: Tensor, timesteps: Tensor, text: Mapping[str, Tensor], lengths: Sequence[int]
) -> Tensor:
    """Predictions for ``x`` (B, C, H, W), where a row is computed beside rows of its caption's length alone.

    ``lengths`` has the tokens of each caption. In ``text``, ``states`` (B, S, E) and ``mask`` (B, S) are padded behind.
    """
    groups: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        groups.setdefault(length, []).append(row)
    if len(groups) == 1:
        return predict(x, timesteps, text)
    parts = []
    for length, rows in groups.items():
        own = torch.tensor(rows, device=x.device)
        told = {name: part[own, :length] if name in ("states", "mask") else part[own] for name, part in text.items()}
        with running_rows.given(own):
            parts.append(predict(x[own], timesteps[own], told))
    order = torch.tensor([row for rows in groups.values() for row in rows], device=x.device)
    return torch.cat(parts)[order.argsort()]
