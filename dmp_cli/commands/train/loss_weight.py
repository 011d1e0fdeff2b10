"""Whether ``--loss-weight`` can fit the backbone, as far as that is known before weights are read."""

from __future__ import annotations

from ...config import LossWeight, NetworkOptions
from ...errors import ConfigError


def check_weight_early(weight: LossWeight, network: NetworkOptions) -> None:
    """Raise ConfigError for a weight of another objective than options or the folder of a pipeline say."""
    from ...backbones import peek_own_sampling
    from ...diffusion import check_weight

    if weight == "none" or network.name is None:
        return
    try:
        peeked = peek_own_sampling(network.name, network.checkpoint)
    except OSError:  # a name that can be none of a file; the load says so
        return
    if peeked is not None and peeked.schedule is not None:
        check_weight(weight, peeked.schedule)
    # What a flow predicts may stand in its file, and which of the two it is may not.
    is_flow = network.objective in ("sit", "repa")
    if network.objective is not None and is_flow == (weight == "min-snr"):
        kind = "a DDPM" if weight == "min-snr" else "a flow"
        raise ConfigError(f"--loss-weight {weight} is for {kind}, and --objective says {network.objective}")
