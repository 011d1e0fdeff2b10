"""One tokenizer with its text encoder out of a pipeline's folder, read strictly and without running anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, ConfigError
from ..storage import check_finite, digest_tensors, read_json, reason_of, transformers_for, unpickled, variant_of

_STEMS = ("model", "pytorch_model")  # what the names of an encoder's weight files begin with


def load_part(
    folder: Path, encoder: str, *, tokenizer: str = "tokenizer", part: str = "text_encoder"
) -> tuple[Any, Any]:
    """A pipeline's tokenizer and its text encoder of the class ``encoder`` of transformers, in float32.

    Raises:
        CheckpointError: one of them is missing or damaged.
        ConfigError: transformers is not installed.
    """
    with transformers_for("a backbone that reads text needs") as transformers:
        try:
            own = transformers.AutoTokenizer.from_pretrained(
                folder / tokenizer, local_files_only=True, trust_remote_code=False
            )
            with unpickled(folder / part, *_STEMS, to=_STEMS[0]) as place:
                model, report = getattr(transformers, encoder).from_pretrained(
                    place,
                    local_files_only=True,
                    output_loading_info=True,
                    dtype=torch.float32,
                    use_safetensors=True,  # a pickle would be opened by a reader that is not ours
                    variant=variant_of(place, *_STEMS),
                )
        except CheckpointError:
            raise
        except Exception as error:
            raise CheckpointError(
                f"cannot read the tokenizer and text encoder of {folder}: {reason_of(error)}",
                hint="Give the whole pipeline folder, as save_pretrained wrote it.",
            ) from error
    _check_loaded(report, folder)
    check_finite(model.state_dict(), source=folder / part)
    return own, model


def load_tokenizer(folder: Path, name: str) -> Any:
    """One tokenizer of a pipeline. Raises CheckpointError when it is missing or damaged."""
    with transformers_for("a backbone that reads text needs") as transformers:
        try:
            return transformers.AutoTokenizer.from_pretrained(
                folder / name, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:
            raise CheckpointError(f"cannot read the tokenizer of {folder}: {reason_of(error)}") from error


def digest_of(models: Mapping[str, Any]) -> str:
    """SHA-256 over the tensors of text encoders, whose names get the keys of ``models`` in front."""
    # before version 5, transformers put this prefix before CLIP's names
    return digest_tensors(
        {
            key + name.removeprefix("text_model."): tensor
            for key, model in models.items()
            for name, tensor in model.state_dict().items()
        }
    )


def index_of(folder: Path) -> dict[str, Any]:
    """What a pipeline's folder says of itself; nothing where it does not."""
    try:
        return dict(read_json(folder / "model_index.json"))
    except ConfigError:
        return {}


def _check_loaded(report: dict[str, Any], folder: Path) -> None:
    # Older files hold position_ids as a buffer, which newer versions of transformers compute.
    problems = [
        f"{key.replace('_', ' ')} {', '.join(sorted(map(str, names))[:3])}"
        for key in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if (names := [name for name in report.get(key, ()) if "position_ids" not in str(name)])
    ]
    if problems:
        raise CheckpointError(f"{folder}: the text encoder's tensors do not fit: {'; '.join(problems)}")
