"""``sample``: images from a network in memory, the same ones as ``dmp sample`` draws for the same options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from ..config import Dtype, Prompt, SampleConfig, build
from ..errors import ConfigError
from .networks import Network, codec_of, network_of, warn_of_other_text
from .other_version import versions_of

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import nn

    from ..backbones import Backbone
    from ..patching import Patch
    from ..sampling import Sample

_ELSEWHERE = {  # fields of SampleConfig that ask for more than one network in memory can do
    "strength": "Set it on the patched backbone: patched.strength = 0.5.",
    "plan": "Give prompts or classes, or draw by the command dmp sample.",
    "scheduler": "Name a sampler.",
    "quantize": "The command dmp sample packs weights.",
}


def sample(
    model: nn.Module,
    *,
    n: int | None = None,
    seed: int = 0,
    classes: int | Sequence[int] | None = None,
    prompts: str | Sequence[str | Prompt] | None = None,
    sampler: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    batch_size: int | None = None,
    dtype: Dtype = "fp32",
    image_size: int | str | None = None,
    vae: str | None = None,
    against: Patch | Backbone | Literal["base"] | None = None,
    output: Literal["pil", "array", "latent"] = "pil",
    **options: Any,
) -> list[Image] | np.ndarray:
    """Draw images from a patched or bare backbone: those that ``dmp sample`` draws for the same options, bit for bit.

    Args:
        model: what :func:`attach` or :func:`train` returned, or a backbone that :func:`load_backbone` returned. Inside
            ``patched.disabled()`` it draws from the bare backbone, from the same noise.
        n: how many images; None: one for each prompt, else 16.
        classes: class indices that the images take in turn; None: all classes.
        prompts: what to draw, for a backbone that reads text; the images take the prompts in turn. A ``Prompt`` has a
            seed, a guidance or a negative prompt of its own.
        sampler: such as ``ddim`` or ``flow-euler``; None: the pipeline's that the weights come from, else ``ddpm``.
        steps: denoising steps; None: 28 for Stable Diffusion 3, Flux and their like, else 250.
        guidance: scale of classifier-free guidance; None: 1.5 for classes, 7.5 for text.
        batch_size: images that are drawn at once; None: 16, at most ``n``. It moves pixels by a level at most.
        image_size: pixels: a side, or width x height as "832x1216"; None: what the patch was made for.
        vae: folder or hub id of the codec; None: what the patch or the backbone names.
        against: the version that guidance leads away from: the patch of another version, another backbone of the same
            shape, or "base" for the backbone without its patches. ``against_scale`` says how far (1), and
            ``against_interval`` where; see docs/guidance.md.
        output: ``pil`` for a list of images, ``array`` for uint8 (n, H, W, C), ``latent`` for float32 (n, C, H, W).
        options: further fields of :class:`SampleConfig`, such as ``guidance_interval``.

    Raises:
        ConfigError: options that the backbone or the sampler cannot follow, or both versions are the same.
        PatchError: the patch of ``against`` is of another backbone.
        CheckpointError: the codec's or the text encoder's weights are not here.
        DivergedError: an image is not finite.
    """
    wanted: dict[str, Any] = {"n": n, "seed": seed, "classes": classes, "prompts": prompts, "sampler": sampler}
    wanted |= {"steps": steps, "guidance": guidance, "batch_size": batch_size, "dtype": dtype, **options}
    config, network = _config(wanted, is_led=against is not None), network_of(model)
    return _as(output, _draw(network, config, against=against, vae=vae, image_size=image_size, output=output))


def _config(wanted: dict[str, Any], *, is_led: bool) -> SampleConfig:
    """What is asked for as a config in which only that is set."""
    count, prompts, classes = wanted.pop("n"), _prompts(wanted.pop("prompts")), wanted.pop("classes")
    wanted |= {"classes": [classes] if isinstance(classes, int) else classes, "prompts": prompts}
    wanted |= {"num_images": len(prompts) if count is None and prompts else count}
    if unknown := wanted.keys() - SampleConfig.model_fields.keys():
        raise ConfigError(f"sample() has no option {', '.join(sorted(unknown))}", hint="SampleConfig lists them.")
    for name in _ELSEWHERE.keys() & wanted.keys():
        raise ConfigError(f"sample() does not take {name}", hint=_ELSEWHERE[name])
    if not is_led and wanted.keys() & {"against_scale", "against_interval"}:
        raise ConfigError("against_scale and against_interval go with against", hint='Give a patch, or "base".')
    return build(SampleConfig, **{name: value for name, value in wanted.items() if value is not None})


def _draw(
    network: Network,
    config: SampleConfig,
    *,
    against: Patch | Backbone | str | None,
    vae: str | None,
    image_size: int | str | None,
    output: str,
) -> list[Sample]:
    from ..sampling import fill_in, resolve, sample as draw

    if output not in ("pil", "array", "latent"):
        raise ConfigError(f"output={output!r}: give 'pil', 'array' or 'latent'")
    backbone, denoiser, codec = network.backbone, network.denoiser, codec_of(network, vae=vae, image_size=image_size)
    if output == "latent" and codec.record.kind == "pixel":
        raise ConfigError("output='latent': this backbone denoises pixels, so the images are all there is")
    if against is not None and config.against_scale is None:
        config = config.model_copy(update={"against_scale": 1.0})
    config = resolve(fill_in(config, backbone), backbone)
    warn_of_other_text(network)
    was_training = denoiser.training
    how: dict[str, Any] = {"backbone": backbone, "codec": codec, "config": config, "keep_latents": output == "latent"}
    try:
        with versions_of(network, against, codec) as versions:
            return [image for chunk in draw(denoiser.eval(), versions=versions, **how) for image in chunk]
    finally:
        denoiser.train(was_training)


def _prompts(given: str | Sequence[str | Prompt] | None) -> tuple[Prompt, ...] | None:
    if given is None:
        return None
    several = [given] if isinstance(given, str) else given
    return tuple(one if isinstance(one, Prompt) else Prompt(text=one) for one in several)


def _as(output: str, images: list[Sample]) -> list[Image] | np.ndarray:
    import numpy as np
    from PIL import Image

    if output == "latent":
        return np.stack([image.latent for image in images if image.latent is not None])
    if output == "array":
        return np.stack([image.pixels for image in images])
    return [Image.fromarray(one.pixels[..., 0] if one.pixels.shape[-1] == 1 else one.pixels) for one in images]
