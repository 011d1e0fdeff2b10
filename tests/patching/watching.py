"""What tests see of a backbone's hooks: how many there are, and the inputs of modules."""


def count_hooks(backbone):
    """The number of forward hooks and pre-hooks on all modules."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in backbone.modules())


def watch(modules, *, prepend=False):
    """A list that receives the first argument of each call; with ``prepend`` as it is before the patch's hooks."""
    seen = []
    for module in modules:
        module.register_forward_pre_hook(lambda module, args: seen.append(args[0]), prepend=prepend)
    return seen
