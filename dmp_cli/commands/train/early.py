"""Whether options of a training can fit the backbone, as far as that is known before weights are read."""

from __future__ import annotations

from ...config import LossWeight, NetworkOptions, TrainConfig
from ...errors import ConfigError


def check_options_early(config: TrainConfig, network: NetworkOptions) -> None:
    """Raise ConfigError for a loss weight or text encoders that what ``network`` names cannot have."""
    _check_weight(config.loss_weight, network)
    _check_encoders(config, network)


def _check_encoders(config: TrainConfig, network: NetworkOptions) -> None:
    from ...backbones import find_shares, peek_text, text_kind_of

    if config.encoder_dropout is None or network.name is None:
        return
    folder = peek_text(network.name, network.checkpoint, network.text)
    if folder is not None:
        find_shares(folder, text_kind_of(folder), names=list(config.encoder_dropout), length=None)


def _check_weight(weight: LossWeight, network: NetworkOptions) -> None:
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
