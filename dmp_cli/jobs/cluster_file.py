"""Which cluster ``--cluster`` names, and with which parameters of submitit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..config import nearest
from ..errors import ConfigError
from ..storage import read_toml

CLUSTERS = ("slurm", "local")
_KEY = "cluster"


class ClusterSettings(NamedTuple):
    """A cluster, as it was named."""

    cluster: str  # as submitit calls it
    parameters: Mapping[str, Any]  # of submitit's ``AutoExecutor.update_parameters``
    told: str  # what messages call it


def read_cluster(named: str) -> ClusterSettings:
    """``slurm``, ``local``, or a TOML file of submitit's parameters, in which ``cluster`` may be one of both.

    Raises:
        ConfigError: it is neither, or the file cannot be read.
    """
    if named in CLUSTERS:
        return ClusterSettings(named, {}, f"--cluster {named}")
    if Path(named).suffix != ".toml":
        raise ConfigError(
            f"--cluster {named}: neither slurm nor local, nor a .toml file", hint=nearest(named, CLUSTERS)
        )
    parameters = dict(read_toml(Path(named))[1])
    cluster = parameters.pop(_KEY, CLUSTERS[0])
    if cluster not in CLUSTERS:
        raise ConfigError(f"{named}: cluster {cluster!r} is neither slurm nor local")
    return ClusterSettings(cluster, parameters, named)
