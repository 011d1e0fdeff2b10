"""Gate studies: numbers calculated by hand for tiny gates, and the files they are written to."""

import csv
import json
import math

import numpy as np
import pytest

from dmp_cli.analysis import gate_weights as gates
from dmp_cli.errors import DMPError, PatchError

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)


def study(rows, *, timesteps=None):
    """One block from rows (T, N), or all blocks from (T, L, N)."""
    weights = np.asarray(rows, np.float32)
    weights = weights[:, None] if weights.ndim == 2 else weights
    return gates.study(weights, timesteps=np.arange(len(weights)) if timesteps is None else np.asarray(timesteps))


def test_uniform_gate():
    result = study(np.full((3, 2, 4), 0.25))
    for number, block in enumerate(result.blocks):
        assert block.block == number
        assert block.entropy == pytest.approx(LN4)
        assert block.entropy_share == pytest.approx(1)
        assert block.effective_prompts == pytest.approx(4)
        assert block.effective_prompts_of_mean == pytest.approx(4)
        assert block.dead_prompts == 0
        assert block.time_specialisation == pytest.approx(0, abs=1e-12)
        assert block.importance_cv2 == pytest.approx(0, abs=1e-12)
    assert result.block_specialisation == pytest.approx(np.zeros(3), abs=1e-12)


def test_another_prompt_at_each_timestep():
    block = study(np.eye(4)).blocks[0]
    assert block.entropy == 0
    assert block.entropy_share == 0
    assert block.effective_prompts == pytest.approx(1)
    assert block.effective_prompts_of_mean == pytest.approx(4)
    assert block.dead_prompts == 0
    assert block.time_specialisation == pytest.approx(LN4)
    assert block.importance_cv2 == pytest.approx(0, abs=1e-12)


def test_one_prompt_at_every_timestep():
    block = study([[1, 0, 0, 0]] * 5).blocks[0]
    assert block.effective_prompts_of_mean == pytest.approx(1)
    assert block.dead_prompts == 3
    assert block.time_specialisation == 0
    # sums (5, 0, 0, 0): mean 5/4, variance 25 * 3/16
    assert block.importance_cv2 == pytest.approx(3)


def test_mixed_weights():
    # H(1/2, 1/4, 1/4, 0) = 3/2 ln 2 at both timesteps; their mean is (3/8, 1/4, 1/4, 1/8)
    block = study([[0.5, 0.25, 0.25, 0], [0.25, 0.25, 0.25, 0.25]]).blocks[0]
    mean_entropy = -(3 / 8 * math.log(3 / 8) + 2 / 4 * math.log(1 / 4) + 1 / 8 * math.log(1 / 8))
    assert block.entropy == pytest.approx((1.5 * LN2 + LN4) / 2)
    assert block.entropy_share == pytest.approx(0.875)
    assert block.effective_prompts == pytest.approx((2**1.5 + 4) / 2)
    assert block.effective_prompts_of_mean == pytest.approx(math.exp(mean_entropy))
    assert block.time_specialisation == pytest.approx(mean_entropy - 1.75 * LN2)
    # sums (3/4, 1/2, 1/2, 1/4): mean 1/2, variance 1/32
    assert block.importance_cv2 == pytest.approx(1 / 8)


def test_blocks_that_choose_different_prompts():
    block0, block1 = [1, 0, 0, 0], [0, 1, 0, 0]
    result = study([[block0, block1], [block0, block0]])
    assert result.block_specialisation == pytest.approx([LN2, 0])
    assert [block.time_specialisation for block in result.blocks] == pytest.approx([0, LN2])
    assert result.to_json()["block_specialisation"] == pytest.approx(LN2 / 2)


def test_information_against_its_definition():
    weights = np.random.default_rng(0).dirichlet([0.3] * 5, size=(7, 2))  # (T, L, N)
    for number, block in enumerate(study(weights).blocks):
        given, marginal = weights[:, number], weights[:, number].mean(0)
        slow = sum(p / 7 * math.log(p / q) for row in given for p, q in zip(row, marginal, strict=True))
        assert block.time_specialisation == pytest.approx(slow, rel=1e-5)


def test_a_prompt_is_dead_when_it_never_exceeds_a_tenth_of_uniform():
    # uniform is 1/4, a tenth of it 0.025
    assert study([[0.024, 0.326, 0.325, 0.325]] * 2).blocks[0].dead_prompts == 1
    assert study([[0.024, 0.326, 0.325, 0.325], [0.026, 0.324, 0.325, 0.325]]).blocks[0].dead_prompts == 0


def test_rows_count_as_shares_whatever_they_sum_to():
    # no gate at all: every prompt weighs 1; hard selection: 1 for the chosen
    result = study([[[1, 1, 1, 1], [1, 1, 1, 0]]])
    assert [block.entropy for block in result.blocks] == pytest.approx([LN4, LN3])


def test_a_single_prompt_does_not_divide_by_zero():
    with np.errstate(all="raise"):
        block = study(np.ones((3, 1))).blocks[0]
    assert (block.entropy, block.entropy_share, block.effective_prompts) == (0, 1, 1)


@pytest.mark.parametrize("bad", [[0.5, math.nan], [0.5, math.inf], [1.5, -0.5], [0, 0]])
def test_weights_of_a_diverged_gate_are_refused(bad):
    with pytest.raises(PatchError, match=r"block 1 .* row 2") as caught:
        study([[[0.5, 0.5]] * 2, [[0.5, 0.5]] * 2, [[0.5, 0.5], bad]])
    assert caught.value.hint


def test_a_patch_of_depth_zero_is_refused():
    with pytest.raises(PatchError, match="no prompted block"):
        gates.study(np.ones((3, 0, 4)), timesteps=np.arange(3))


def test_rows_for_a_table():
    assert study([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]).rows() == [["0", "50.0 %", "2.0", "4.0", "0", "0.693", "0.000"]]
    assert len(gates.GateStudy.COLUMNS) == 7


def test_files(tmp_path):
    result = study([[[0.5, 0.5], [1, 0]], [[0.25, 0.75], [0, 1]]], timesteps=[999, 0])
    paths = result.save(tmp_path / "gates")
    assert [path.name for path in paths] == ["gates.npz", "gates.csv", "summary.json"]
    assert sorted(path.name for path in (tmp_path / "gates").iterdir()) == sorted(path.name for path in paths)

    with np.load(paths[0], allow_pickle=False) as arrays:
        assert set(arrays) == {"weights", "timesteps"}
        assert arrays["weights"].dtype == np.float32
        np.testing.assert_array_equal(arrays["weights"], [[[0.5, 0.5], [1, 0]], [[0.25, 0.75], [0, 1]]])
        np.testing.assert_array_equal(arrays["timesteps"], [999, 0])

    with open(paths[1], newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["block", "timestep", "entropy", "effective_prompts", "top_prompt", "top_weight"]
    places = [(row["block"], row["timestep"], row["top_prompt"], row["top_weight"]) for row in table]
    assert places == [("0", "999", "0", "0.5"), ("0", "0", "1", "0.75"), ("1", "999", "0", "1"), ("1", "0", "1", "1")]
    assert float(table[0]["entropy"]) == pytest.approx(LN2, rel=1e-6)
    assert float(table[0]["effective_prompts"]) == pytest.approx(2, rel=1e-6)

    summary = json.loads(paths[2].read_text())
    assert summary == result.to_json()
    assert (summary["num_timesteps"], summary["num_blocks"], summary["num_prompts"]) == (2, 2, 2)
    assert set(summary["blocks"][0]) - {"block", "entropy_share"} <= set(summary["definitions"])


def test_files_are_the_same_every_time(tmp_path):
    result = study(np.eye(3))
    contents = [[path.read_bytes() for path in result.save(tmp_path / name)] for name in ("a", "b")]
    assert contents[0] == contents[1]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DMPError, match=r"cannot write .*gates\.npz"):
        study(np.eye(3)).save(tmp_path / "file")
