"""Numbers that describe a gate, from its weights over timesteps. T timesteps, L blocks, N prompts of one block."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..config import DEAD_SHARE
from ..errors import PatchError
from ..storage import write_bytes, write_json, write_text

DEFINITIONS = {
    "weights": "gate weights divided by their sum over the prompts, so that every row sums to one",
    "entropy": "H = -sum_n w_n log w_n in nats, mean over the timesteps; entropy_share is H / log N",
    "effective_prompts": "exp(H) of each timestep's weights, mean over the timesteps: 1 for one-hot, N for uniform",
    "effective_prompts_of_mean": "exp(H) of the weights averaged over the timesteps",
    "dead_prompts": f"prompts whose weight exceeds {DEAD_SHARE:g}/N at no timestep",
    "time_specialisation": "mutual information of timestep (uniform) and prompt in nats: "
    "H(mean over timesteps) - mean over timesteps of H; 0 when the gate ignores the timestep",
    "block_specialisation": "the same with blocks for timesteps, at each timestep, then the mean over the timesteps; "
    "0 when all blocks share one weighting",
    "importance_cv2": "variance / (mean^2 + 1e-10) over the prompts of the weights summed over the timesteps; "
    "population variance",
}


@dataclass(frozen=True, kw_only=True)
class BlockStudy:
    """The numbers of one block's gate. ``DEFINITIONS`` says what each of them means."""

    block: int
    entropy: float  # nats
    entropy_share: float  # entropy / log N
    effective_prompts: float
    effective_prompts_of_mean: float
    dead_prompts: int
    time_specialisation: float  # nats
    importance_cv2: float


@dataclass(frozen=True, kw_only=True)
class GateStudy:
    """The weights of a gate over timesteps and blocks, and the numbers measured from them."""

    weights: np.ndarray  # (T, L, N) as given
    timesteps: np.ndarray  # (T,)
    entropy: np.ndarray  # (T, L) nats
    effective_prompts: np.ndarray  # (T, L)
    block_specialisation: np.ndarray  # (T,) nats
    blocks: tuple[BlockStudy, ...]

    COLUMNS = ("block", "entropy", "effective prompts", "of the mean", "dead", "time, nats", "importance CV²")

    def rows(self) -> list[list[str]]:
        """The rows of a table: one row of strings per block, in the order of ``COLUMNS``."""
        return [
            [
                str(b.block),
                f"{100 * b.entropy_share:.1f} %",
                f"{b.effective_prompts:.1f}",
                f"{b.effective_prompts_of_mean:.1f}",
                str(b.dead_prompts),
                f"{b.time_specialisation:.3f}",
                f"{b.importance_cv2:.3f}",
            ]
            for b in self.blocks
        ]

    def to_json(self) -> dict[str, Any]:
        """All numbers except the weights themselves, with their definitions."""
        num_timesteps, num_blocks, num_prompts = self.weights.shape
        return {
            "num_timesteps": num_timesteps,
            "num_blocks": num_blocks,
            "num_prompts": num_prompts,
            "block_specialisation": float(self.block_specialisation.mean()),
            "blocks": [asdict(block) for block in self.blocks],
            "definitions": DEFINITIONS,
        }

    def save(self, folder: Path) -> list[Path]:
        """Write ``gates.npz`` (weights float32, timesteps), ``gates.csv``, ``summary.json``; return the paths."""
        paths = [Path(folder) / name for name in ("gates.npz", "gates.csv", "summary.json")]
        write_bytes(paths[0], self._as_npz())
        write_text(paths[1], self._as_csv())
        write_json(paths[2], self.to_json())
        return paths

    def _as_npz(self) -> bytes:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, weights=self.weights.astype(np.float32), timesteps=self.timesteps)
        return buffer.getvalue()

    def _as_csv(self) -> str:
        # One line per block and timestep: with one line per weight, a large backbone would need hundreds of megabytes.
        weights = shares(self.weights)
        top = weights.argmax(-1)  # (T, L)
        top_weight = weights.max(-1)
        buffer = io.StringIO()
        table = csv.writer(buffer, lineterminator="\n")
        table.writerow(["block", "timestep", "entropy", "effective_prompts", "top_prompt", "top_weight"])
        for block in range(weights.shape[1]):
            for row, timestep in enumerate(self.timesteps):
                numbers = (self.entropy[row, block], self.effective_prompts[row, block], top_weight[row, block])
                entropy, effective, weight = (f"{number:.7g}" for number in numbers)
                table.writerow([block, timestep_in_words(timestep), entropy, effective, int(top[row, block]), weight])
        return buffer.getvalue()


def timestep_in_words(timestep: float) -> str:
    """A whole timestep as it is; a level of a flow to four digits, as a grid of levels needs."""
    return str(int(timestep)) if isinstance(timestep, int | np.integer) else f"{timestep:.4g}"


def noisiest_first(timesteps: np.ndarray) -> np.ndarray:
    """The order (T,) of ``timesteps`` (T,) from noise to image. Levels of a flow are given with low noise first."""
    if timesteps.dtype.kind == "f":
        return np.arange(len(timesteps))[::-1]
    return np.argsort(-timesteps, kind="stable")


def study(weights: np.ndarray, *, timesteps: np.ndarray) -> GateStudy:
    """Measure a gate from its non-negative weights (T, L, N) at ``timesteps`` (T,), timesteps or levels in any order.

    Each row is first divided by its sum, which leaves softmax weights as they are. A constant gate has entropy share 1
    and specialisation 0; a gate with equal rows for all blocks (scope ``uniform``) has block specialisation 0.

    Raises:
        PatchError: the weights are not valid; see :func:`shares`.
    """
    assert timesteps.shape == weights.shape[:1], "one timestep per row of weights"
    normalised = shares(weights)  # (T, L, N)
    entropy = entropy_of(normalised)  # (T, L)
    return GateStudy(
        weights=weights,
        timesteps=np.asarray(timesteps),
        entropy=entropy,
        effective_prompts=np.exp(entropy),
        block_specialisation=_information(normalised.swapaxes(0, 1)),
        blocks=tuple(_study_block(normalised[:, i], block=i) for i in range(weights.shape[1])),
    )


def shares(weights: np.ndarray) -> np.ndarray:
    """The weights (T, L, N) in float64, divided by their sum over the prompts.

    Raises:
        PatchError: there are no weights, a weight is negative or not finite, or a row has only zeros.
    """
    assert weights.ndim == 3, "weights are (timesteps, blocks, prompts)"
    if weights.size == 0:
        raise PatchError(
            "there are no gate weights to measure: the patch has no prompted block", hint="Its depth is 0."
        )
    exact = weights.astype(np.float64)
    totals = exact.sum(-1, keepdims=True)  # (T, L, 1)
    valid = np.isfinite(exact).all(-1) & (exact >= 0).all(-1) & (totals[..., 0] > 0)  # (T, L)
    if not valid.all():
        row, block = np.argwhere(~valid)[0]
        raise PatchError(
            f"the gate of block {block} has invalid weights at timestep row {row}: negative, not finite or all zero",
            hint="The training that made this patch has diverged. Take an earlier checkpoint.",
        )
    return exact / totals


def entropy_of(distributions: np.ndarray) -> np.ndarray:
    """Shannon entropy in nats over the last axis, with 0 log 0 = 0."""
    logs = np.log(distributions, where=distributions > 0, out=np.zeros_like(distributions))
    # + 0.0 turns the -0.0 of a one-hot row into 0.0
    return -(distributions * logs).sum(-1) + 0.0


def _information(conditional: np.ndarray) -> np.ndarray:
    """Mutual information in nats between the first axis (uniform) and the last (a distribution given the first)."""
    gain = entropy_of(conditional.mean(0)) - entropy_of(conditional).mean(0)
    # The exact value is never negative, but rounding can make it so.
    return np.maximum(gain, 0.0)


def _study_block(weights: np.ndarray, *, block: int) -> BlockStudy:
    num_prompts = weights.shape[1]  # weights are (T, N)
    entropy = entropy_of(weights)  # (T,)
    importance = weights.sum(0)  # (N,)
    largest = np.log(num_prompts)
    return BlockStudy(
        block=block,
        entropy=float(entropy.mean()),
        # With a single prompt the share would be 0 / 0. Its use is as even as possible, so the share is 1.
        entropy_share=float(entropy.mean() / largest) if num_prompts > 1 else 1.0,
        effective_prompts=float(np.exp(entropy).mean()),
        effective_prompts_of_mean=float(np.exp(entropy_of(weights.mean(0)))),
        dead_prompts=int((weights.max(0) <= DEAD_SHARE / num_prompts).sum()),
        time_specialisation=float(_information(weights)),
        importance_cv2=float(importance.var() / (importance.mean() ** 2 + 1e-10)),
    )
