"""Models side by side: AUROC minus the first model's on the same eyes and resamples, with Holm.

A label's eyes are those that both models answer. Mean AUROC is over the outputs that every
model of a data set has with both classes among the eyes that all of them answer. p values are
corrected over the comparisons of one data set, its means apart from its labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_runtime.errors import DataError
from edge_runtime.metrics import Interval
from train.card import metrics
from train.card.cells import Cell, output_title, score
from train.card.config import CardConfig
from train.card.measures import Measure, with_interval
from train.card.metrics import Scored
from train.tasks.statistics import Statistic, difference_of, holm

__all__ = ["MEAN", "Comparison", "MeanAuroc", "compare_models", "mean_aurocs"]

MEAN = "mean"


@dataclass(frozen=True, kw_only=True)
class MeanAuroc:
    """Mean AUROC of a model over the outputs that all models share.

    Attributes:
        dataset: name.
        model: name.
        outputs: in the mean.
        num_eyes: answered by every model.
        measure: the mean with its interval over patients, or why there is none.
    """

    dataset: str
    model: str
    outputs: tuple[str, ...]
    num_eyes: int
    measure: Measure


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """AUROC of a model minus that of the reference.

    Attributes:
        dataset: name.
        model: name.
        reference: the model that it is held against.
        output: of the models, or 'mean'.
        truth_name: column that both are held against; '' for the mean.
        num_eyes: that both answer (for the mean: all models).
        num_patients: their patients.
        interval: difference, over patients; None = cannot be computed.
        reason: why; '' otherwise.
        p_value: two-sided, of no difference; None without an interval.
        p_holm: the same, corrected.
    """

    dataset: str
    model: str
    reference: str
    output: str
    truth_name: str
    num_eyes: int
    num_patients: int
    interval: Interval | None
    reason: str = ""
    p_value: float | None = None
    p_holm: float | None = None

    @property
    def title(self) -> str:
        """The output, and the truth where it has another name."""
        return output_title(self.output, self.truth_name)


def mean_aurocs(cells: Sequence[Cell], config: CardConfig) -> tuple[MeanAuroc, ...]:
    """Mean AUROC of every model of one data set; none where no output is shared."""
    shared = _Shared(cells)
    return tuple(
        MeanAuroc(
            dataset=cells[0].dataset,
            model=model,
            outputs=shared.outputs,
            num_eyes=shared.num_eyes,
            measure=with_interval(
                "mean_auroc", shared.statistic(model), shared.num_patients, config
            ),
        )
        for model in (shared.models if shared.outputs else ())
    )


def compare_models(
    cells: Sequence[Cell], reference: str, config: CardConfig
) -> tuple[Comparison, ...]:
    """Every other model of one data set against the reference, a label at a time and on average.

    Args:
        cells: of one data set.
        reference: name of a model.
        config: of the card.
    """
    own = {(one.output, one.truth_name): one for one in cells if one.model == reference}
    by_label = [
        _compare(cell, own[cell.output, cell.truth_name], config)
        for cell in cells
        if cell.model != reference and (cell.output, cell.truth_name) in own
    ]
    return (*_corrected(by_label), *_corrected(_compare_means(cells, reference, config)))


class _Shared:
    """The eyes that every model answers, and the outputs that all have with both classes."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.models = tuple(dict.fromkeys(cell.model for cell in cells))
        self._cells = {
            (one.model, one.output): one for one in cells if one.output == one.truth_name
        }
        refused = {
            eye.key for cell in cells for eye, no in zip(cell.eyes, cell.refused, strict=True) if no
        }
        self._among = {
            key: np.array([eye.key not in refused for eye in cell.eyes], np.bool_)
            for key, cell in self._cells.items()
        }
        names = dict.fromkeys(output for _, output in self._cells)
        self.outputs = tuple(name for name in names if self._has_both_classes(name))
        kept = [self._kept(self.models[0], name) for name in self.outputs]
        self._numbers = {one: k for k, one in enumerate(sorted({p for ids in kept for p in ids}))}
        self.num_patients = len(self._numbers)
        self.num_eyes = max((len(ids) for ids in kept), default=0)

    def statistic(self, model: str) -> Statistic:
        """Mean AUROC, in one numbering of patients for all models."""
        parts = []
        for name in self.outputs:
            cell, among = self._cells[model, name], self._among[model, name]
            eyes = Scored(
                truth=cell.truth[among],
                scores=cell.probability[among],
                patients=np.array([self._numbers[one] for one in self._kept(model, name)]),
                num_patients=self.num_patients,
            )
            parts.append(metrics.auroc(eyes))
        return metrics.mean_of(parts)

    def _kept(self, model: str, name: str) -> list[str]:
        patients: list[str] = self._cells[model, name].patients[self._among[model, name]].tolist()
        return patients

    def _has_both_classes(self, name: str) -> bool:
        keys = [(model, name) for model in self.models]
        if not all(key in self._cells for key in keys):
            return False
        truth = self._cells[keys[0]].truth[self._among[keys[0]]]
        return 0 < int(truth.sum()) < len(truth)


def _compare(cell: Cell, own: Cell, config: CardConfig) -> Comparison:
    both = ~cell.refused & ~own.refused
    first, second = score(cell, both), score(own, both)
    base = Comparison(
        dataset=cell.dataset,
        model=cell.model,
        reference=own.model,
        output=cell.output,
        truth_name=cell.truth_name,
        num_eyes=int(both.sum()),
        num_patients=first.num_patients,
        interval=None,
    )
    if not 0 < int(first.truth.sum()) < len(first.truth):
        return replace(base, reason="cannot be computed: one class only among shared eyes")
    return _with_difference(
        base, metrics.auroc(first), metrics.auroc(second), first.num_patients, config
    )


def _compare_means(cells: Sequence[Cell], reference: str, config: CardConfig) -> list[Comparison]:
    shared = _Shared(cells)
    if not shared.outputs or reference not in shared.models:
        return []
    return [
        _with_difference(
            Comparison(
                dataset=cells[0].dataset,
                model=model,
                reference=reference,
                output=MEAN,
                truth_name="",
                num_eyes=shared.num_eyes,
                num_patients=shared.num_patients,
                interval=None,
            ),
            shared.statistic(model),
            shared.statistic(reference),
            shared.num_patients,
            config,
        )
        for model in shared.models
        if model != reference
    ]


def _with_difference(
    base: Comparison, first: Statistic, second: Statistic, num_patients: int, config: CardConfig
) -> Comparison:
    try:
        found = difference_of(
            first,
            second,
            num_patients,
            num_draws=config.num_draws,
            seed=config.seed,
            level=config.level,
        )
    except DataError as error:
        return replace(base, reason=f"cannot be computed: {error}")
    return replace(base, interval=found.interval, p_value=found.p_value)


def _corrected(found: list[Comparison]) -> list[Comparison]:
    values = [one.p_value for one in found if one.p_value is not None]
    adjusted = iter(holm(values))
    return [one if one.p_value is None else replace(one, p_holm=next(adjusted)) for one in found]
