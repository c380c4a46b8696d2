"""Eight classification tasks at label budgets: a probe on frozen features, and fine-tuning.

Labels come from training eyes only, nothing is chosen on test eyes, and the predictions of
every test eye are kept, so that two arms can be compared on the same eyes.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import DataError
from edge_runtime.metrics import auroc
from train.encoder import CfpEncoder
from train.probe import draw_labeled, grades_by_share, probe_grades, probe_scores
from train.schedule import Progress
from train.tasks.data import TaskData
from train.tasks.features import FrozenFeatures
from train.tasks.multi_head import MultiHead, fit_multi_head, predict
from train.tasks.registry import TaskSpec, tasks_of_kind, truth_of
from train.tasks.results import Measurement
from train.tasks.settings import TaskSettings
from train.tasks.statistics import score
from train.tasks.weighted_metrics import ScoredEyes

__all__ = ["measure_finetuned", "measure_probes", "scored", "spread_over_draws"]

FloatArray = npt.NDArray[np.float64]
_MAX_LABEL_DRAWS = 10  # for each draw asked for


def measure_probes(
    features: FrozenFeatures,
    data: TaskData,
    specs: Sequence[TaskSpec],
    settings: TaskSettings,
    *,
    seed: int,
) -> Iterator[Measurement]:
    """One measurement a task and budget; each has `settings.probe_draws` label draws.

    A row that cannot be measured (fewer labels than asked for, one class in a draw) says so.
    """
    for spec in specs:
        for budget in settings.budgets:
            start = time.perf_counter()
            try:
                eyes, redrawn = _probe(features, data, spec, budget, settings.probe_draws, seed)
            except DataError as error:
                yield _not_measured(spec, "probe", budget, str(error))
                continue
            yield Measurement(
                task=spec.name,
                readout="probe",
                num_labels=budget,
                eyes=eyes,
                extra=spread_over_draws(eyes, spec) | {"num_redrawn_label_draws": float(redrawn)},
                seconds=time.perf_counter() - start,
            )


def measure_finetuned(
    encoder: CfpEncoder,
    features: FrozenFeatures,
    data: TaskData,
    specs: Sequence[TaskSpec],
    settings: TaskSettings,
    *,
    seed: int,
    progress: Progress | None = None,
) -> Iterator[Measurement]:
    """One joint fine-tuning a budget; the encoder given is copied, not changed.

    All classification tasks that the data set has labels for are always trained, whatever
    `specs` asks to see: a row must not depend on which others were asked for.
    """
    heads = _tasks_with_labels(data)
    truth_nt = np.stack([truth_of(spec, data.train) for spec in heads], 1) if heads else None
    for budget in settings.budgets:
        start = time.perf_counter()
        try:
            if truth_nt is None:
                raise DataError("the data set has no label of a classification task")
            scores = _finetune(
                encoder, features, data, heads, truth_nt, budget, settings, seed, progress
            )
        except DataError as error:
            yield from (_not_measured(spec, "finetune", budget, str(error)) for spec in specs)
            continue
        seconds = (time.perf_counter() - start) / len(specs)
        for spec in specs:
            yield _finetuned_row(spec, budget, scores, data, seconds)


def scored(spec: TaskSpec, data: TaskData, scores_dn: FloatArray) -> ScoredEyes:
    """Scores (D, N) of all test eyes -> those eyes whose truth is known.

    Raises:
        DataError: no test eye has the label.
    """
    truth = truth_of(spec, data.test)
    known = np.isfinite(truth)
    return ScoredEyes(
        patient_ids=data.test.patient_ids[known],
        truth=truth[known].astype(np.float32),
        scores=scores_dn[:, known].astype(np.float32),
    )


def spread_over_draws(eyes: ScoredEyes, spec: TaskSpec) -> dict[str, float]:
    """Standard deviation of the metric over label draws; empty where it is undefined."""
    try:
        values = [_of_one_draw(eyes, row, spec.metric) for row in range(len(eyes.scores))]
    except (DataError, ValueError):
        return {}
    return {"num_label_draws": float(len(values)), "label_draw_sd": float(np.std(values))}


def _of_one_draw(eyes: ScoredEyes, row: int, metric: str) -> float:
    if metric == "auroc":
        return auroc(eyes.truth, eyes.scores[row])
    one = ScoredEyes(
        patient_ids=eyes.patient_ids, truth=eyes.truth, scores=eyes.scores[row : row + 1]
    )
    return score(one, metric)


def _probe(
    features: FrozenFeatures,
    data: TaskData,
    spec: TaskSpec,
    budget: int,
    num_draws: int,
    seed: int,
) -> tuple[ScoredEyes, int]:
    """Scores of every label draw, and how many draws held one class only."""
    truth, patients = truth_of(spec, data.train), data.train.patient_ids
    fit = probe_scores if spec.num_classes == 2 else probe_grades
    draws, num_redrawn = _draws_of_both_classes(truth, spec.name, budget, num_draws, seed)
    rows = [
        fit(
            features.train[picked],
            truth[picked],
            patients[picked],
            features.test,
            label=spec.name,
        )
        for picked in draws
    ]
    return scored(spec, data, np.stack(rows)), num_redrawn


def _draws_of_both_classes(
    truth: FloatArray, label: str, budget: int, num_draws: int, seed: int
) -> tuple[list[npt.NDArray[np.int64]], int]:
    """Label draws that hold two values of truth: who has seen no case yet labels on."""
    found: list[npt.NDArray[np.int64]] = []
    for draw in range(_MAX_LABEL_DRAWS * num_draws):
        picked = draw_labeled(truth, label=label, num_labels=budget, seed=seed, draw=draw)
        if _num_values(truth[picked]) > 1:
            found.append(picked)
        if len(found) == num_draws:
            return found, draw + 1 - num_draws
    raise DataError(
        f"label '{label}': {budget} labelled eyes have one class only in "
        f"{_MAX_LABEL_DRAWS * num_draws - len(found)} of {_MAX_LABEL_DRAWS * num_draws} draws; "
        "use more labels"
    )


def _tasks_with_labels(data: TaskData) -> list[TaskSpec]:
    """Classification tasks with two values of truth somewhere among the training eyes."""
    found = []
    for spec in tasks_of_kind("classification"):
        try:
            truth = truth_of(spec, data.train)
        except DataError:
            continue
        if _num_values(truth) > 1:
            found.append(spec)
    return found


def _num_values(truth: FloatArray) -> int:
    return len(np.unique(truth[np.isfinite(truth)]))


def _finetune(
    encoder: CfpEncoder,
    features: FrozenFeatures,
    data: TaskData,
    heads: Sequence[TaskSpec],
    truth_nt: FloatArray,
    budget: int,
    settings: TaskSettings,
    seed: int,
    progress: Progress | None,
) -> dict[str, FloatArray]:
    """Task name -> (N,) logits or grades of all test eyes."""
    picked, seen = _joint_draw(truth_nt, budget, seed)
    heads, truth_nt = [heads[k] for k in seen], truth_nt[:, seen]
    sizes = [1 if spec.num_classes == 2 else spec.num_classes for spec in heads]
    model = MultiHead(copy.deepcopy(encoder), sizes, features.mean, features.spread)
    fit_multi_head(
        model,
        data.train.images_nhwc[picked],
        features.train[picked],
        truth_nt[picked],
        settings.finetune,
        seed=seed,
        progress=progress,
    )
    test = dict(zip((s.name for s in heads), predict(model, data.test.images_nhwc), strict=True))
    if any(spec.num_classes > 2 for spec in heads):
        # The cut points look at photographs of validation eyes, not at their labels.
        val = predict(model, data.val.images_nhwc)
        for spec, reference, truth in zip(heads, val, truth_nt[picked].T, strict=True):
            if spec.num_classes > 2:
                known = truth[np.isfinite(truth)]
                test[spec.name] = grades_by_share(test[spec.name], reference, known)
    return test


def _joint_draw(
    truth_nt: FloatArray, budget: int, seed: int
) -> tuple[npt.NDArray[np.int64], list[int]]:
    """Labelled eyes, and the tasks of which they hold both classes.

    The first draw that serves every task, or else the one that serves most: a head that
    sees one class only learns nothing that could be scored.
    """
    labeled = np.where(np.isfinite(truth_nt).any(1), 0.0, np.nan)
    best: tuple[npt.NDArray[np.int64], list[int]] | None = None
    for draw in range(_MAX_LABEL_DRAWS):
        picked = draw_labeled(labeled, label="any task", num_labels=budget, seed=seed, draw=draw)
        seen = [k for k in range(truth_nt.shape[1]) if _num_values(truth_nt[picked, k]) > 1]
        if best is None or len(seen) > len(best[1]):
            best = (picked, seen)
        if len(seen) == truth_nt.shape[1]:
            break
    if best is None or not best[1]:
        raise DataError(f"{budget} labelled eyes have one class only in every task; use more")
    return best


def _finetuned_row(
    spec: TaskSpec, budget: int, scores: dict[str, FloatArray], data: TaskData, seconds: float
) -> Measurement:
    try:
        if spec.name not in scores:
            truth_of(spec, data.train)  # names the label that is missing
            raise DataError(
                f"label '{spec.name}': {budget} labelled eyes have one class only; use more labels"
            )
        eyes = scored(spec, data, scores[spec.name][None])
    except DataError as error:
        return _not_measured(spec, "finetune", budget, str(error))
    return Measurement(
        task=spec.name, readout="finetune", num_labels=budget, eyes=eyes, seconds=seconds
    )


def _not_measured(spec: TaskSpec, readout: str, num_labels: int, note: str) -> Measurement:
    return Measurement(task=spec.name, readout=readout, num_labels=num_labels, eyes=None, note=note)
