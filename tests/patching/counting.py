"""Costs that are counted, never timed: compiled graphs, bytes kept for the backward pass, and a DiT for both."""

import torch

from tests.builders import tiny_dit


class Graphs:
    """A backend that runs eagerly and counts the graphs it is given."""

    def __init__(self):
        self.count = 0

    def __call__(self, graph, inputs):
        self.count += 1
        return graph.forward


def kept_for_backward(call, *, weights):
    """Bytes of the distinct storages that autograd keeps for backward, without the weights."""
    known = {parameter.untyped_storage().data_ptr() for parameter in weights}
    kept, alive = {}, []

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # or its address would be used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = call()
    assert output.requires_grad
    return sum(kept.values())


def wide_dit(**changes):
    """A DiT so wide and long that a block's activations dominate, with the token-to-width ratio of a B/2."""
    sizes = {"hidden_size": 96, "mlp_size": 384, "num_heads": 4, "depth": 6, "num_classes": 1, "null_row": False}
    return tiny_dit(**{**sizes, **changes})
