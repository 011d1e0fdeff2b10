"""Guidance between two versions of a denoiser inside its own calls, such as those of a stock pipeline of diffusers.

A pre-hook puts the rows of the other version beside those of a call, so that both versions run as one batch. A hook
adds W (a_c - b_c) to the prediction and takes these rows off again.

Letters: B rows of a call, n images in it, (C, H, W) the shape of what the denoiser denoises. a and b are predictions of
our version and of the other one, _c under the class or text, _0 under the null condition.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..diffusion import noise_share
from ..errors import PatchError
from .calls import Call, Signature, are_same, put_prediction, take_prediction
from .patched import PatchedBackbone
from .versions import PatchVersions


class _Running(NamedTuple):
    """A call between its two hooks."""

    size: int = 0  # B
    rows: slice | None = None  # of the conditional rows; None where nothing is added to the prediction
    factor: float | Tensor = 0.0  # W, or W of each conditional row (n,)
    apart: Call | None = None  # the other version's own call, where both versions do not fit in one batch


class _Here(threading.local):
    """What runs in a thread."""

    def __init__(self) -> None:
        self.running: _Running | None = None
        self.acting: contextlib.AbstractContextManager[None] | None = None  # which version acts on which row of it
        self.is_own = False  # whether the running call is that of the other version

    def __reduce__(self) -> tuple[Any, ...]:
        return _Here, ()  # a running call can be neither copied nor pickled


class Guidance:
    """Guidance between two versions of a denoiser. It ends with :meth:`detach`, or with the ``with`` block it opens."""

    def __init__(
        self,
        versions: PatchVersions,
        *,
        scale: float,
        interval: tuple[float, float] | None,
        classifier_free: bool,
    ) -> None:
        assert versions.patched is not None
        self.scale = scale  # W; it may be changed between steps
        self.interval, self.classifier_free = interval, classifier_free
        self.patched: PatchedBackbone = versions.patched
        self._versions, self._backbone, self._here = versions, versions.patched.backbone, _Here()
        core = self._backbone.core
        self._signature = Signature(core)
        # First of all hooks, as the others must see all rows.
        before = core.register_forward_pre_hook(_Before(self), with_kwargs=True, prepend=True)
        after = core.register_forward_hook(_After(self), always_call=True)
        self._handles = [before, after]

    def detach(self) -> None:
        """Remove guidance and all patches: the denoiser computes as before :func:`guide`. Twice is as once."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.patched.detach()

    def __enter__(self) -> Guidance:
        return self

    def __exit__(self, *error: object) -> None:
        self.detach()

    def begin(self, call: Call) -> Call | None:
        """Prepare both versions for a call: the call with the rows of the other version too; None: as it is."""
        if self._here.is_own:
            return None
        self._stop()  # one that failed in compiled code, which calls no hook then
        x, factor = self._signature.read(self._signature.latents, call), self._factor(call)
        if factor is None:
            self._start(_Running(), self._versions.alone(theirs=False))
            return None
        if not isinstance(x, Tensor):
            raise PatchError(
                "guide(): this model takes its images as a list, one by one",
                hint="sample(patched, against=...) and `dmp sample --against` draw from it with guidance.",
            )
        count, rows = len(x), self._conditional_rows(call, x)
        factor = factor[rows].to(x.device) if isinstance(factor, Tensor) else factor
        if not self._versions.is_joint:
            apart = call.change(lambda tensor: tensor[rows], count=count)
            self._start(_Running(count, rows, factor, apart), self._versions.alone(theirs=False))
            return None
        both = call.change(lambda tensor: torch.cat([tensor, tensor[rows]]), count=count)
        against = torch.arange(count + rows.stop - rows.start, device=x.device) >= count
        self._start(_Running(count, rows, factor), self._versions.joint(against))
        return both

    def _start(self, running: _Running, acting: contextlib.AbstractContextManager[None]) -> None:
        acting.__enter__()
        self._here.running, self._here.acting = running, acting

    def _stop(self) -> _Running | None:
        """End the running call of this thread; which one that was."""
        running, acting = self._here.running, self._here.acting
        self._here.running = self._here.acting = None
        if acting is not None:
            acting.__exit__(None, None, None)
        return running

    def end(self, output: Any) -> Any:
        """The output of a call with guidance in it; ``output`` None: the call has failed."""
        if self._here.is_own:
            return None
        running = self._stop()
        if output is None or running is None or running.rows is None:
            return None
        whole = take_prediction(output)
        ours = whole[: running.size]
        theirs = whole[running.size :] if running.apart is None else self._predict_apart(running.apart)
        return put_prediction(output, self._guided(ours, theirs, running))

    def _predict_apart(self, call: Call) -> Tensor:
        self._here.is_own = True
        try:
            with self._versions.alone(theirs=True):
                return take_prediction(self._backbone.core(*call.args, **call.kwargs))
        finally:
            self._here.is_own = False

    def _guided(self, ours: Tensor, theirs: Tensor, running: _Running) -> Tensor:
        """a + W (a_c - b_c) on the channels of the noise, (B, C', H, W); a learned variance stays that of a.

        Predictions of packed images, (B, tokens, C), have no variance: all of them is moved.

        Both halves of a call with classifier-free guidance get the same, so that u + g (c - u) is
        a_c + W (a_c - b_c) + (g - 1) (a_c - a_0).
        """
        assert running.rows is not None
        channels = self._backbone.sample_shape[0] if ours.ndim == 4 else ours.shape[1]
        factor = running.factor
        factor = factor.view(-1, *[1] * (ours.ndim - 1)) if isinstance(factor, Tensor) else factor
        exact = torch.promote_types(ours.dtype, torch.float32)
        noise = ours[:, :channels].to(exact)
        moved = factor * (noise[running.rows] - theirs[:, :channels].to(exact))
        moved = torch.cat([moved, moved]) if self.classifier_free else moved
        return torch.cat([(noise + moved).to(ours.dtype), ours[:, channels:]], dim=1)

    def _factor(self, call: Call) -> float | Tensor | None:
        """W, or W of each row (B,) where the timesteps lie on both sides of the interval's ends; None where it is 0."""
        if not self.scale:
            return None
        if self.interval is None:
            return self.scale
        low, high = self.interval
        given, x = (self._signature.read(name, call) for name in (self._signature.timesteps, self._signature.latents))
        timesteps = self._backbone.levels_of(torch.as_tensor(given), x)
        records = [patch.record for patch in self.patched.patches.values() if patch.record is not None]
        schedule = records[0].schedule if records else self._backbone.schedule
        share = noise_share(timesteps, schedule)
        within = (low <= share) & (share <= high)
        if not within.any():
            return None
        return self.scale if within.all() else self.scale * within.float()

    def _conditional_rows(self, call: Call, x: Tensor) -> slice:
        """The rows of ``x`` (B, C, H, W) that are predicted under the class or text.

        Raises:
            PatchError: the call does not hold what ``classifier_free`` says.
        """
        count, half = len(x), len(x) // 2
        are_halves = count % 2 == 0 and are_same(x[:half], x[half:])
        if not self.classifier_free:
            if are_halves and self._backbone.has_null:
                raise PatchError(
                    f"guide(classifier_free=False): the halves of this call of {count} rows hold the same latents, as "
                    "with classifier-free guidance",
                    hint="Give classifier_free=True, or draw images from the same noise in calls of their own.",
                )
            return slice(0, count)
        if not are_halves:
            raise PatchError(
                f"guide(classifier_free=True): this call of {count} rows does not hold the same latents twice",
                hint="Call the pipeline with a guidance_scale above 1, or give classifier_free=False.",
            )
        if self._backbone.takes_text:  # as pipelines with text do: first the null condition, then the text
            return slice(half, count)
        labels = self._signature.read(self._signature.classes, call)
        null = self._backbone.num_classes
        if not isinstance(labels, Tensor) or len(labels) != count or not bool((labels[half:] == null).all()):
            raise PatchError(
                f"guide(classifier_free=True): the second half of this call holds not only the null class {null}",
                hint="Give the classes first and then the null class, as DiTPipeline does.",
            )
        return slice(0, half)


class _Before:
    """Pre-hook on a denoiser: the call with the rows of the other version too."""

    def __init__(self, guidance: Guidance) -> None:
        self.guidance = guidance

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        return self.guidance.begin(Call(args, kwargs))


class _After:
    """Forward hook on a denoiser: its output with guidance, without the rows of the other version."""

    def __init__(self, guidance: Guidance) -> None:
        self.guidance = guidance

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        return self.guidance.end(output)
