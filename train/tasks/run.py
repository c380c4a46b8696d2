"""All sixteen tasks on one encoder: shared features once, then each kind of task in turn.

    features ─┬─ probes          classification, budgets x label draws
              ├─ fine-tuning     classification, one joint run a budget
              ├─ few shot        edema and schisis, patients x draws
              └─ retrieval       ridge, and zero-shot where the arm has heads
    images and masks ── segmentation

A task that cannot be measured on a data set (a label missing, too few labels, one class)
is a row that says why; the others are measured.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict

import numpy as np

from edge_runtime.errors import ConfigError, DataError
from train.data.origin import read_origin
from train.device import device_of
from train.encoder import CfpEncoder
from train.schedule import Progress
from train.tasks.classification import measure_finetuned, measure_probes
from train.tasks.data import TaskData
from train.tasks.features import FrozenFeatures, frozen_features
from train.tasks.few_shot import measure_few_shot
from train.tasks.registry import TASKS, TaskSpec, tasks_of_kind
from train.tasks.results import Measurement, TaskResult, TaskRun, result_of
from train.tasks.retrieval import OctCodes, RetrievalHeads, measure_retrieval
from train.tasks.segmentation import (
    SegmentationResult,
    SegmentationSettings,
    run_segmentation,
)
from train.tasks.settings import TaskSettings
from train.tasks.weighted_metrics import ScoredEyes

__all__ = ["run_tasks"]

_Stage = tuple[str, Callable[[], Iterable[Measurement]]]


def run_tasks(
    encoder: CfpEncoder,
    data: TaskData,
    settings: TaskSettings,
    *,
    seed: int,
    tasks: Sequence[str] | None = None,
    retrieval_heads: RetrievalHeads | None = None,
    codes: OctCodes | None = None,
    progress: Progress | None = None,
) -> TaskRun:
    """Measure an encoder.

    Args:
        encoder: in evaluation mode; not changed.
        data: the three splits. Nothing is fitted or chosen on the test split.
        settings: the protocol; the same for every arm of a comparison.
        seed: of label draws and fine-tuning. Two arms with one seed get the same labels.
        tasks: names in the registry; None = all sixteen.
        retrieval_heads: of an arm that learnt both modalities.
        codes: `oct_codes(data, settings.num_oct_components)` made before, to share them
            between encoders.
        progress: called with (stages done, stages, name of the next).

    Returns:
        Results in the order of the registry, and the predictions behind them.

    Raises:
        ConfigError: a task does not exist, or the encoder is of another size than the data.
        DataError: the encoder's features are not finite.
    """
    started = time.perf_counter()
    names = _checked_names(tasks)
    if encoder.config.size_px != data.size_px:
        raise ConfigError(
            f"the encoder takes {encoder.config.size_px} px, the data were loaded at "
            f"{data.size_px} px; load them at the encoder's size"
        )
    measured, cpu_seconds = _measured(
        _stages(encoder, data, settings, names, seed, retrieval_heads, codes), progress
    )
    before = time.process_time()
    results = _results(measured, settings)
    return TaskRun(
        results=results,
        predictions={one.key: one.eyes for one in measured if one.eyes is not None},
        seed=seed,
        settings=json.loads(json.dumps(asdict(settings))),  # as a run read from disk has them
        data_fingerprint=data.test.fingerprint,
        synthetic=read_origin(data.index.root, fingerprint=data.test.fingerprint).synthetic,
        cpu_seconds={**cpu_seconds, "intervals": time.process_time() - before},
        seconds=time.perf_counter() - started,
    )


def _measured(
    stages: Sequence[_Stage], progress: Progress | None
) -> tuple[list[Measurement], dict[str, float]]:
    """All rows in the order of the registry, and the processor time of each stage."""
    measured: list[Measurement] = []
    cpu_seconds = {}
    for number, (name, stage) in enumerate(stages):
        if progress is not None:
            progress(number, len(stages), name)
        before = time.process_time()
        measured.extend(stage())
        cpu_seconds[name] = time.process_time() - before
    if progress is not None:
        progress(len(stages), len(stages), "intervals")
    order = list(TASKS)
    measured.sort(key=lambda one: order.index(one.task))  # stable: rows of a task stay in order
    return measured, cpu_seconds


def _results(measured: Sequence[Measurement], settings: TaskSettings) -> tuple[TaskResult, ...]:
    return tuple(
        result_of(one, num_draws=settings.num_draws, seed=settings.bootstrap_seed)
        for one in measured
    )


def _checked_names(tasks: Sequence[str] | None) -> tuple[str, ...]:
    names = tuple(TASKS) if tasks is None else tuple(tasks)
    unknown = [name for name in names if name not in TASKS]
    if unknown or not names:
        raise ConfigError(f"no task {unknown or 'named'}; the tasks are {', '.join(TASKS)}")
    return names


def _stages(
    encoder: CfpEncoder,
    data: TaskData,
    settings: TaskSettings,
    names: tuple[str, ...],
    seed: int,
    heads: RetrievalHeads | None,
    codes: OctCodes | None,
) -> list[_Stage]:
    """What is to be done, each stage with its name; features are made by the first."""
    made: list[FrozenFeatures] = []

    def make_features() -> list[Measurement]:
        made.append(frozen_features(encoder, data))
        return []

    def probes() -> Iterable[Measurement]:
        return measure_probes(made[0], data, classes, settings, seed=seed)

    def tuned() -> Iterable[Measurement]:
        return measure_finetuned(encoder, made[0], data, classes, settings, seed=seed)

    def few_shot() -> Iterable[Measurement]:
        return measure_few_shot(made[0], data, few, settings, seed=seed)

    def retrieval() -> Iterable[Measurement]:
        return measure_retrieval(made[0], data, pairs, settings, codes=codes, heads=heads)

    def segmentation() -> Iterable[Measurement]:
        return _segmented(encoder, data, masks, settings, seed)

    classes = tasks_of_kind("classification", names)
    few, pairs = tasks_of_kind("few_shot", names), tasks_of_kind("retrieval", names)
    masks = tasks_of_kind("segmentation", names)
    stages = (
        ("features", make_features, bool(classes or few or pairs)),
        ("probes", probes, bool(classes) and "probe" in settings.readouts),
        ("fine-tuning", tuned, bool(classes) and "finetune" in settings.readouts),
        ("few shot", few_shot, bool(few)),
        ("retrieval", retrieval, bool(pairs)),
        ("segmentation", segmentation, bool(masks)),
    )
    return [(name, stage) for name, stage, wanted in stages if wanted]


def _segmented(
    encoder: CfpEncoder,
    data: TaskData,
    specs: Sequence[TaskSpec],
    settings: TaskSettings,
    seed: int,
) -> Iterator[Measurement]:
    """The four segmentation tasks, trained together."""
    chosen = settings.segmentation or SegmentationSettings()
    targets = [spec.label for spec in specs]
    try:
        found = run_segmentation(
            encoder, data, chosen, targets=targets, seed=seed, device=device_of(encoder)
        )
    except DataError as error:
        for spec in specs:
            yield Measurement(
                task=spec.name, readout="decoder", num_labels=0, eyes=None, note=str(error)
            )
        return
    for spec in specs:
        yield _segmentation_row(spec, found[spec.label], chosen.num_labeled)


def _segmentation_row(spec: TaskSpec, result: SegmentationResult, num_masks: int) -> Measurement:
    """Dice an image, with the means of the other metrics over the images that have one."""
    extra = {"num_training_masks": float(num_masks)}  # 0 = all; the row's name has had 0 always
    for name in ("hd95", "cldice", "false_positive"):
        per_image = getattr(result, f"{name}_n")  # None where the metric has no meaning
        values = np.asarray([] if per_image is None else per_image, np.float64)
        known = values[np.isfinite(values)]
        if len(known):
            extra |= {name: float(known.mean()), f"num_with_{name}": float(len(known))}
    eyes, note = None, ""
    try:
        eyes = ScoredEyes(
            patient_ids=result.patient_ids,
            truth=np.zeros(len(result.dice_n), np.float32),
            scores=np.asarray(result.dice_n, np.float32)[None],
        )
    except DataError as error:
        note = str(error)
    return Measurement(
        task=spec.name,
        readout="decoder",
        num_labels=0,
        eyes=eyes,
        extra=extra,
        seconds=result.seconds,
        note=note,
    )
