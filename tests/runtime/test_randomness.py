"""Every draw depends on what it is for and on nothing else; the bits are those of Philox 4x64-10, done here by hand."""

import hashlib
import math

import numpy as np
import pytest
import torch

from dmp_cli.runtime import randomness

WORD = 2**64


def philox(counter, key):
    """One block of Philox 4x64-10 (Salmon et al. 2011, Section 3.3) in Python integers."""
    (a, b, c, d), (k0, k1) = counter, key
    for _ in range(10):
        low, high = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b, c, d = (high // WORD) ^ b ^ k0, high % WORD, (low // WORD) ^ d ^ k1, low % WORD
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) % WORD, (k1 + 0xBB67AE8584CAA73B) % WORD
    return [a, b, c, d]


def key_of(purpose, seed):
    digest = hashlib.blake2b(f"{purpose}:{seed}".encode(), digest_size=16).digest()
    return [int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")]


def test_philox_by_hand():
    """The published test vectors, so that the check below checks something."""
    assert philox([0] * 4, [0] * 2)[0] == 0x16554D9ECA36314C
    assert philox([WORD - 1] * 4, [WORD - 1] * 2)[0] == 0x87B092C3013FE90B


@pytest.mark.parametrize(("seed", "step", "index"), [(0, 0, 0), (1, 5, 7), (2**31, 29_999, 2**40)])
def test_bits_are_those_of_philox(seed, step, index):
    bits = randomness.generator("noise", seed=seed, step=step, index=index).bit_generator.random_raw(8).tolist()
    key = key_of("noise", seed)
    assert bits == philox([1, 0, step, index], key) + philox([2, 0, step, index], key)


def test_uniform_is_the_top_53_bits():
    drawn = randomness.uniform("class-dropout", seed=3, step=2, indices=[0, 4])
    stream = [bits for block in (1, 2) for bits in philox([block, 0, 2, 0], key_of("class-dropout", 3))]
    assert drawn.dtype == torch.float64
    assert drawn.tolist() == [(stream[index] >> 11) / 2**53 for index in (0, 4)]


def draw_all(**where):
    """One draw of each kind, as plain numbers."""
    index = where.pop("index", 0)
    return [
        randomness.normal("a", (3,), indices=[index], **where).tolist(),
        randomness.integers("a", 10**9, indices=[index], **where).tolist(),
        randomness.uniform("a", indices=[index], **where).tolist(),
        torch.rand(3, generator=randomness.torch_generator("a", index=index, **where)).tolist(),
    ]


def test_each_coordinate_matters():
    places = [{"seed": 0}, {"seed": 1}, {"seed": 0, "step": 1}, {"seed": 0, "index": 1}, {"seed": 1, "index": 1}]
    for kind in zip(*(draw_all(**place) for place in places), strict=True):
        assert len({str(values) for values in kind}) == len(places)
    assert draw_all(seed=0) == draw_all(seed=0)
    purposes = [randomness.normal(name, (3,), seed=0, indices=[0]).tolist() for name in ("noise", "start", "load")]
    assert len({str(values) for values in purposes}) == 3


@pytest.mark.parametrize(
    "draw",
    [
        lambda indices: randomness.normal("a", (2, 3), seed=5, step=4, indices=indices),
        lambda indices: randomness.integers("a", 1000, seed=5, step=4, indices=indices),
        lambda indices: randomness.uniform("a", seed=5, step=4, indices=indices),
    ],
)
def test_a_row_does_not_know_its_neighbours(draw):
    together = draw(list(range(8)))
    assert len(together) == 8
    for index in (0, 3, 7):
        assert torch.equal(draw([index])[0], together[index])
    assert torch.equal(draw(range(7, -1, -1)), together.flip(0))


def test_rows_of_one_draw_do_not_depend_on_how_many():
    many = randomness.normal_rows("load", (8, 3), seed=5, step=4)
    assert (many.shape, many.dtype) == ((8, 3), torch.float32)
    assert torch.equal(randomness.normal_rows("load", (2, 3), seed=5, step=4), many[:2])
    assert not torch.equal(randomness.normal_rows("load", (2, 3), seed=5, step=5), many[:2])
    assert not torch.equal(randomness.normal_rows("load", (2, 3), seed=6, step=4), many[:2])
    assert len(many.unique()) == 24


def test_integers_are_scaled_uniforms():
    where = {"seed": 5, "step": 4, "indices": range(50)}
    expected = [math.floor(1000 * value) for value in randomness.uniform("timestep", **where).tolist()]
    assert randomness.integers("timestep", 1000, **where).tolist() == expected


def test_global_state_is_neither_read_nor_touched():
    torch.manual_seed(0)
    np.random.seed(0)
    before = (torch.get_rng_state(), np.random.get_state()[1].copy())
    first = draw_all(seed=0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    torch.manual_seed(99)
    np.random.seed(99)
    assert draw_all(seed=0) == first


def test_shapes_and_types():
    noise = randomness.normal("a", (2, 3, 4), seed=0, indices=[5, 6])
    assert (noise.shape, noise.dtype) == ((2, 2, 3, 4), torch.float32)
    numbers = randomness.integers("a", 4, seed=0, indices=range(200))
    assert (numbers.shape, numbers.dtype) == ((200,), torch.int64)
    assert set(numbers.tolist()) == {0, 1, 2, 3}
    assert randomness.normal("a", (3,), seed=0, indices=[]).shape == (0, 3)


def test_normal_looks_normal():
    """Moments of 40,000 draws within five standard errors: 0, 1, 0, 3."""
    values = randomness.normal("a", (100,), seed=0, indices=range(400)).double().flatten()
    for power, expected, error in ((1, 0, 1), (2, 1, math.sqrt(2)), (3, 0, math.sqrt(15)), (4, 3, math.sqrt(96))):
        assert values.pow(power).mean().item() == pytest.approx(expected, abs=5 * error / 200)
    rows = values.view(400, 100)
    assert (rows[:-1] * rows[1:]).mean().item() == pytest.approx(0, abs=5 / 200)  # neighbours are independent


def test_permutation():
    order = randomness.permutation("order", 50, seed=0, step=0)
    assert sorted(order.tolist()) == list(range(50))
    assert order.tolist() == randomness.permutation("order", 50, seed=0, step=0).tolist()
    assert order.tolist() != randomness.permutation("order", 50, seed=0, step=1).tolist()
    assert order.tolist() != list(range(50))


def test_no_two_steps_share_numbers():
    """Streams are blocks of one counter; a long draw at one place must not run into the next place."""
    long = randomness.generator("a", seed=0, step=0, index=0).random(4096)
    for step, index in ((0, 1), (1, 0), (1, 1)):
        assert not np.isin(randomness.generator("a", seed=0, step=step, index=index).random(4096), long).any()
