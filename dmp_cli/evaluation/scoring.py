"""Scores folders of samples against a reference; each folder is compared with the first one, the base."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..config import EvalConfig
from ..data import check_about, is_ours
from ..errors import ConfigError, DataError, MetricError
from ..sampling import SampleFolder, read_record
from ..storage import decode_text, parse_json
from ..version import __version__
from .caveats import find_caveats
from .crew import Crew, known
from .extract import Log, Measurement, find_measurement, silent
from .features import Extractor, load_extractor
from .led_away import metrics_for
from .metrics import Setting, check
from .reference import bounds_of, check_record, check_there, check_width, find_reference, has_features, to_measure
from .results import Evaluation
from .samples import find_samples, read_beside
from .spreads import Scored, build_row, replicate
from .statistics import Statistics

_SHOWN = 3  # damaged images that an error names
_SLOW_WIDTH = 512  # with more features, one resample of the Frechet distance takes seconds


def evaluate(config: EvalConfig, *, device: str = "cpu", log: Log = silent) -> Evaluation:
    """Score every folder of ``config.samples`` against ``config.reference``.

    The result depends on the images and the config only. Errors come before the first long computation where they can.

    Raises:
        DataError: a folder holds no images.
        MetricError: a folder was damaged, the reference does not fit the samples, or a metric cannot be computed.
    """
    evaluation = evaluate_together(config, Crew(), device=device, log=log)
    assert evaluation is not None
    return evaluation


def evaluate_together(config: EvalConfig, crew: Crew, *, device: str = "cpu", log: Log = silent) -> Evaluation | None:
    """The same by a crew of processes that share the features; None in all but the first of them.

    Features are the same bytes whatever the number of processes. Moments, kernels and spreads are computed of all
    features in the first process, so that the scores are the same too.
    """
    checked = crew.first(lambda: check_first(config, device=device))
    extractor = _extractor_of(config, device) if checked is None else checked.extractor
    reference_images = to_measure(config, extractor)
    crew.fill([] if reference_images is None else [reference_images])
    reference = crew.first(lambda: _find_checked(known(checked), reference_images, crew, log))
    samples = [_measurement_of(path, config, extractor) for path in config.samples]
    crew.fill(samples)
    return crew.first(lambda: _conclude(known(checked), known(reference), samples, crew, log))


def list_measurements(config: EvalConfig, device: str) -> list[Measurement]:
    """All that is measured for a scoring: the reference, where it is no statistics, then the samples."""
    extractor = _extractor_of(config, device)
    reference = to_measure(config, extractor)
    samples = [_measurement_of(path, config, extractor) for path in config.samples]
    return samples if reference is None else [reference, *samples]


def _find_checked(checked: Checked, images: Measurement | None, crew: Crew, log: Log) -> Statistics:
    """The reference, once it is known to fit what the samples say of themselves."""
    config = checked.config
    reference = find_reference(config, checked.extractor, log, measured=images, folder=crew.folder)
    for path, made in zip(config.samples, checked.records, strict=True):
        check_record(config, reference.provenance, path, made)
    return reference


def _conclude(checked: Checked, reference: Statistics, samples: list[Measurement], crew: Crew, log: Log) -> Evaluation:
    config, records, extractor, _ = checked
    setting = Setting(config, extractor)
    rows, scored = [], []
    base: Scored | None = None
    for images, made in zip(samples, records, strict=True):
        one = _score(images, made, setting, reference, crew.folder, log)
        base = base or one  # alone keeps what is known of each image: there may be a hundred folders
        rows.append(build_row(one, base=base, repeats=config.repeats))
        scored.append(one.without_images())
    return Evaluation(
        rows=tuple(rows),
        reference=str(config.reference),
        reference_provenance=reference.provenance,
        features=extractor.name,
        features_digest=extractor.digest,
        features_width=reference.width,
        bootstrap=config.bootstrap,
        repeats=config.repeats,
        seed=config.seed,
        warnings=find_caveats(config, scored, reference, features=extractor.name),
        versions=_versions(config),
    )


class Checked(NamedTuple):
    """What is known before the first long computation."""

    config: EvalConfig  # with the metrics filled in
    records: list[dict[str, Any] | None]  # the samples.json of each folder
    extractor: Extractor
    counts: list[int]  # images in each folder


def check_first(config: EvalConfig, *, device: str) -> Checked:
    """Check the folders, the reference's place, the network and the metrics. Raises as :func:`evaluate`."""
    records: list[dict[str, Any] | None] = []
    counts = []
    for path in config.samples:  # now, so that a misspelt last folder is not found only after an hour
        counts.append(len(find_samples(path, bounds=bounds_of(config))[1]))
        records.append(_read_made(path))
        _check_whole(path, read_record(records[-1]).num_images)
    check_there(config)
    config = _fill_in(config, records)
    extractor = _extractor_of(config, device)
    for metric in config.metrics:
        check(metric, extractor)
    return Checked(config, records, extractor, counts)


def _extractor_of(config: EvalConfig, device: str) -> Extractor:
    given = {"inception_weights": config.inception_weights, "feature_weights": config.feature_weights}
    return load_extractor(config.features, **given, device=device)


def _measurement_of(path: Path, config: EvalConfig, extractor: Extractor) -> Measurement:
    how: dict[str, Any] = {"batch_size": config.batch_size, "max_pixels": config.max_pixels}
    return find_measurement(path, extractor, bounds=bounds_of(config), **how)


def _fill_in(config: EvalConfig, records: list[dict[str, Any] | None]) -> EvalConfig:
    """``config`` with the metrics that are computed where none are named; see :func:`led_away.metrics_for`.

    Statistics without features, as other tools write them, are scored against as before.
    """
    if "metrics" in config.model_fields_set or not has_features(config.reference):
        return config
    return config.model_copy(update={"metrics": metrics_for(config.metrics, records)})


def _read_made(path: Path) -> dict[str, Any] | None:
    """The samples.json of a folder or zip; None: it has none."""
    data = read_beside(path, "samples.json")
    if data is None:
        return None
    name, hint = f"{path}/samples.json", "Remove it, or draw the samples again."
    try:
        made = parse_json(decode_text(data, name=name), name=name, paths=True)
    except ConfigError as error:
        raise MetricError(error.message, hint=hint) from error
    if is_ours(made):
        check_about(made, name=name, kind=MetricError, hint=hint)
    return made if isinstance(made, dict) else {"content": made}


def _check_whole(path: Path, count: int | None) -> None:
    """Raise MetricError if a folder of ``dmp sample`` lacks images, or holds changed or additional ones."""
    folder = SampleFolder(path)
    if count is None or not path.is_dir() or not folder.has_sums():
        return
    try:
        wrong = folder.verify(count, latents=False)
    except DataError as error:
        raise MetricError(error.message, hint=error.hint) from error
    if wrong:
        raise MetricError(
            f"{len(wrong)} images of {path} are not as they were drawn: {'; '.join(wrong[:_SHOWN])}",
            hint="Run the dmp sample command of this folder again, which draws missing images; "
            "or score a copy without samples.json.",
        )


def _score(
    images: Measurement,
    made: dict[str, Any] | None,
    setting: Setting,
    reference: Statistics,
    folder: Path | None,
    log: Log,
) -> Scored:
    config, path = setting.config, images.path
    log(f"{path}: measuring")
    samples = images.statistics(folder, log)
    check_width(reference, samples.width, path=config.reference, of=str(path))
    times = config.repeats or config.bootstrap or 0
    if times > 1 and samples.width > _SLOW_WIDTH:
        log(f"{path}: scoring {times} times to find the spread")
    return Scored(path, samples.provenance, replicate(samples, reference, setting), made)


def _versions(config: EvalConfig) -> dict[str, str]:
    """Versions of the libraries that the scores depend on."""
    from importlib.metadata import version

    used = ["clean-fid"]
    if {"is", "prc"} & set(config.metrics):
        used.append("torch-fidelity")
    if config.features in ("clip", "dinov2"):
        used.append("transformers")
    return {"dmp": __version__, "torch": torch.__version__, **{name: version(name) for name in used}}
