"""``train``: what ``dmp train`` does, on a backbone in memory, in a folder or without one."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..config import PatchConfig, TrainConfig, TrainOptions, as_word
from ..errors import ConfigError, DMPError, StoppedError

if TYPE_CHECKING:
    from ..backbones import Backbone
    from ..patching import PatchedBackbone
    from ..training import Progress


def train(
    backbone: Backbone,
    data: str | Path | None = None,
    config: TrainConfig | None = None,
    *,
    patch: PatchConfig | None = None,
    output: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    preset: str | None = None,
    vae: str | None = None,
    image_size: int | str | None = None,
    grey: bool = False,
    on_step: Callable[[Progress], object] | None = None,
    verbose: bool = False,
    **options: Any,
) -> PatchedBackbone:
    """Train a patch for ``backbone``, and leave it attached: the same bytes as ``dmp train`` for the same options.

    Args:
        backbone: what :func:`load_backbone` returned, without a patch.
        data: a folder of images, a zip, tar shards, or samples of ``dmp sample``; None: those of the continued run.
        config: the training; None: the paper's recipe.
        patch: which mixture is learnt; None: the paper's.
        output: the run's folder, as ``dmp train`` fills it and goes on with it; None: only what is returned is kept.
        resume: continue the run in ``output``, if there is one; what it was begun with needs not be said again.
        force: overwrite the run in ``output``.
        preset: all options of one experiment of the paper, such as ``paper-ffhq-b2``.
        vae: folder or hub id of the codec, or ``none``; None: the backbone's own.
        image_size: pixels: a side, or width x height as "832x1216"; None: the backbone's own.
        grey: train a backbone of grey images on pictures that have colours.
        on_step: called after each step with its ``Progress``: ``step``, ``terms["loss"]``, ``held_out``.
        verbose: show progress and remarks on stderr.
        options: single fields of :class:`TrainConfig` over ``config``, such as ``steps=1000``.

    Returns:
        The patched backbone; ``.patch`` is the patch. For methods without one, such as ``lora``, the backbone.

    Raises:
        ConfigError: options that contradict each other, the backbone, or the run in ``output``.
        DataError: images, classes or captions that are missing, unreadable or too few.
        DivergedError: too many steps had a loss or gradient that is not finite.
        StoppedError: Ctrl-C or SIGTERM; what is in ``output`` is whole.
    """
    _check(backbone, output=output, resume=resume)
    said = _as_said(backbone, data, config, patch, options)
    told = {"preset": preset, "vae": vae, "image_size": image_size}
    said |= {name: value for name, value in told.items() if value is not None}
    how = TrainOptions(preset=preset, resume=resume, force=force, grey=grey)
    return _train(backbone, output, said, how, on_step=on_step, verbose=verbose)


def _train(
    backbone: Backbone, output: str | Path | None, said: dict[str, Any], how: TrainOptions, **watched: Any
) -> PatchedBackbone:
    """Train in a folder; where that fails, the backbone is bare again."""
    from ..commands import train_in_python
    from ..patching import PatchedBackbone, detach, load_patch

    with _folder(output) as folder:
        try:
            trained = train_in_python(backbone, folder, said, options=how, **watched).denoiser
        except BaseException as error:
            detach(backbone)
            if isinstance(error, StoppedError) and output is None:
                raise _without_folder(error) from None
            raise
        if isinstance(trained, PatchedBackbone):
            trained.eval()
            trained.patch.record = load_patch(folder / "patch.safetensors").record  # which knows of the training
    return cast("PatchedBackbone", trained)


def _check(backbone: Any, *, output: str | Path | None, resume: bool) -> None:
    """Raise ConfigError for what cannot be trained, or not so."""
    from ..backbones import Backbone
    from ..patching import owner_on
    from ..runtime import find_world

    if not isinstance(backbone, Backbone):
        raise ConfigError(
            f"a {type(backbone).__name__} cannot be trained on: it does not know where its weights come from",
            hint="Load the backbone with load_backbone(name), and attach the patch to your model afterwards.",
        )
    if backbone.record is None:
        raise ConfigError(
            "this backbone was made in code, so that a patch could not name it", hint="Use load_backbone(name)."
        )
    if owner_on(backbone) is not None:
        raise ConfigError(
            "this backbone has a patch attached already, and training begins with a new one",
            hint="Call detach(backbone) first.",
        )
    if resume and output is None:
        raise ConfigError("resume=True, but there is no folder to go on with", hint="Name it: output=...")
    if output is None and find_world().size > 1:
        raise ConfigError("several processes train together in a folder", hint="Name it: output=...")


def _as_said(
    backbone: Backbone,
    data: str | Path | None,
    config: TrainConfig | None,
    patch: PatchConfig | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """All that is asked for, by the names of the options of ``dmp train``, so that it can go on with the run."""
    if unknown := options.keys() - TrainConfig.model_fields.keys():
        raise ConfigError(f"train() has no option {', '.join(sorted(unknown))}", hint="TrainConfig lists them.")
    record = backbone.record
    said: dict[str, Any] = {}
    assert record is not None
    for one in (patch, config):
        said |= {} if one is None else {name: getattr(one, name) for name in one.model_fields_set}
    typed = {name: as_word(name, value) for name, value in (said | options).items()}
    said = {name: value for name, value in typed.items() if value is not None}  # None stands for what is not said
    said |= {} if data is None else {"data": Path(data)}
    here = record.name if record.name is not None and not Path(record.source).is_absolute() else record.source
    said["backbone"] = record.name if record.name == "digits" else here
    if record.family == "dit" and record.name is None:  # what shapes cannot tell
        said |= {name: backbone.sizes[name] for name in ("num_classes", "num_heads") if backbone.sizes.get(name)}
    return said


@contextlib.contextmanager
def _folder(output: str | Path | None) -> Iterator[Path]:
    """The run's folder; without one, a folder that is gone afterwards."""
    if output is not None:
        yield Path(output)
        return
    with tempfile.TemporaryDirectory(prefix="dmp-") as place:
        yield Path(place) / "run"


def _without_folder(error: StoppedError) -> DMPError:
    said = error.message.split(";")[0]
    return StoppedError(
        f"{said}; nothing is kept, as the run has no folder (output=...)", signal_number=error.exit_code - 128
    )
