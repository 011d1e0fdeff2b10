"""``dmp train`` for a backbone that Python has loaded: the same job, in a folder, with nothing printed unasked."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config import (
    CommonOptions,
    NetworkOptions,
    PatchConfig,
    TextStoreOptions,
    TrainConfig,
    TrainOptions,
    preset_options,
)
from ...errors import ConfigError, in_python, one_line
from ..console import Printer
from ..options import Given
from .command import check_method, saved_options
from .job import Request, run_train

if TYPE_CHECKING:
    from ...backbones import Backbone
    from ...training import Progress, Trainee


class _Warner(Printer):
    """Warns as Python does; prints progress and remarks if ``verbose``, and no next command to type."""

    def warn(self, text: str) -> None:
        warnings.warn(in_python(one_line(text)), stacklevel=2)

    def note(self, text: str) -> None:
        super().note(in_python(text))

    def say(self, text: str) -> None:
        """Python has the result."""


def train_in_python(
    backbone: Backbone,
    folder: Path,
    said: Mapping[str, Any],
    *,
    options: TrainOptions,
    on_step: Callable[[Progress], object] | None = None,
    verbose: bool = False,
) -> Trainee:
    """Train on ``backbone`` as the options ``said`` ask for, as ``dmp train`` names them; what was trained.

    Raises as ``dmp train`` does.
    """
    from ...training import RunFolder

    run = RunFolder(folder)
    preset = {} if options.preset is None else preset_options(options.preset)
    saved = saved_options(run, options.preset) if options.resume else {}
    whole = Given(said).over({**preset, **saved})
    if "data" not in whole.values:
        raise ConfigError("no data given", hint="Name a folder of images: train(backbone, data).")
    config = whole.make(TrainConfig)
    if config.method == "scratch":
        raise ConfigError("--method scratch trains no backbone that is there", hint="Use the command dmp train.")
    patch_config = whole.make(PatchConfig) if config.method in ("dmp", "prompt-tuning") else None
    check_method(whole, config)
    request = Request(
        run,
        config,
        patch_config,
        whole.make(NetworkOptions),
        options,
        whole.make(TextStoreOptions),
        str(backbone.device),
        whole.values,
        backbone=backbone,
        on_step=on_step,
    )
    return run_train(request, _Warner(CommonOptions(quiet=not verbose)))
