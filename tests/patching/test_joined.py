"""The image's tokens beside those of text: by a slow loop; and layouts that are not those of one image, refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dmp_cli.backbones import Joined, Layout
from dmp_cli.backbones.flux import Flux
from dmp_cli.backbones.qwenimage import QwenImage
from dmp_cli.backbones.zimage import ZImage
from dmp_cli.patching.joined import put_image, take_image

CORE: Any = SimpleNamespace(config={})


@pytest.mark.parametrize("joined", ["first", "last", "behind"])
def test_the_image_is_taken_out_and_put_back(joined: Joined) -> None:
    hidden = torch.randn(3, 11, 2, generator=torch.Generator().manual_seed(0))
    text, count = [5, 1, 3], 6
    layout = Layout((2, 3), torch.tensor(text) if joined == "behind" else None)
    starts = {"first": [0] * 3, "last": [11 - count] * 3, "behind": text}[joined]
    image = take_image(hidden, joined, layout)
    new = image + 10
    expected = hidden.clone()
    for row, start in enumerate(starts):
        for place in range(count):
            assert torch.equal(image[row, place], hidden[row, start + place])
            expected[row, start + place] += 10
    assert torch.equal(put_image(hidden, new, joined, layout), expected)


def test_a_second_image_beside_the_one_that_is_drawn_is_refused() -> None:
    own = torch.tensor([[0, row, column] for row in range(2) for column in range(3)])
    assert Flux.layout_of(CORE, (), {"img_ids": own.float()}) == Layout((2, 3))
    other = own + torch.tensor([1, 0, 0])  # as Kontext marks it
    with pytest.raises(ValueError, match="no image beside the one that it draws"):
        Flux.layout_of(CORE, (), {"img_ids": torch.cat([own, other]).float()})
    assert QwenImage.layout_of(CORE, (), {"img_shapes": [[(1, 2, 3)]] * 2}) == Layout((2, 3))
    for shapes in ([[(1, 2, 3), (1, 2, 3)]], [[(1, 2, 3)], [(1, 4, 4)]]):
        with pytest.raises(ValueError, match="takes one image of one size a row"):
            QwenImage.layout_of(CORE, (), {"img_shapes": shapes})
    with pytest.raises(ValueError, match="one size at a time"):
        ZImage.layout_of(CORE, ([torch.zeros(4, 1, 4, 6), torch.zeros(4, 1, 6, 4)],), {})
