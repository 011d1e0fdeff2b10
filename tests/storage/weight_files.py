"""Three small tensors, and how tests write and compare them."""

import torch

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.tensor([1.0, -0.0]), "scale": torch.tensor(2.0)}


def write(path, content, **options):
    torch.save(content, path, **options)
    return path


def same(tensors, expected):
    return tensors.keys() == expected.keys() and all(torch.equal(tensors[name], expected[name]) for name in expected)


def prefixed(prefix):
    return {prefix + name: tensor for name, tensor in WEIGHTS.items()}
