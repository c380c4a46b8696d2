"""A whole card: typed results, computed from the two tables, written as card.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime import __version__
from edge_runtime.errors import ConfigError
from edge_runtime.metrics import ReliabilityBin, reliability_bins, roc_curve
from edge_runtime.result import NOTICE
from train.card.cells import Cell, cells_of, output_title, score, verdicts_of
from train.card.comparison import Comparison, MeanAuroc, compare_models, mean_aurocs
from train.card.config import CardConfig
from train.card.datasets import DataFacts
from train.card.folders import FolderReport
from train.card.measures import Measure, measures_of
from train.card.quality import QualityReport, quality_of
from train.card.readers import ModelFacts
from train.card.subgroups import Subgroup, subgroups_of, worst_of
from train.card.tables import EyeRow, PredictionRow
from train.card.ungradable import UngradableCounts, count_ungradable

__all__ = ["Card", "CellReport", "make_card", "write_json"]

SCHEMA_VERSION = 1
_CURVE_POINTS = 200


@dataclass(frozen=True, kw_only=True)
class CellReport:
    """One output of one model on one data set.

    Attributes:
        dataset: name.
        model: name.
        output: of the model.
        truth_name: column that it is held against.
        num_eyes: whose truth is known.
        num_patients: their patients.
        num_positive: positive eyes among them.
        num_refused: ungradable to the model.
        threshold: locked operating point; None = the model has none.
        measures: over the eyes that the model answered.
        ungradable: counted three ways.
        subgroups: of the answered eyes.
        worst_subgroup: (axis, group) with the lowest AUROC; None where none has one.
        roc: (false positive rate, true positive rate) points of the answered eyes.
        reliability: points of the reliability diagram.
    """

    dataset: str
    model: str
    output: str
    truth_name: str
    num_eyes: int
    num_patients: int
    num_positive: int
    num_refused: int
    threshold: float | None
    measures: tuple[Measure, ...]
    ungradable: tuple[UngradableCounts, ...]
    subgroups: tuple[Subgroup, ...]
    worst_subgroup: tuple[str, str] | None
    roc: tuple[tuple[float, float], ...]
    reliability: tuple[ReliabilityBin, ...]

    @property
    def title(self) -> str:
        """The output, and the truth where it has another name."""
        return output_title(self.output, self.truth_name)

    def measure(self, name: str) -> Measure:
        """One metric by name."""
        return next(one for one in self.measures if one.name == name)


@dataclass(frozen=True, kw_only=True)
class Card:
    """Everything that is said.

    Attributes:
        config: how it was computed.
        data: the data sets.
        models: the models; one that came as a file is known by its table alone.
        reference: model that the others are held against.
        cells: one a data set, model, output and truth.
        means: mean AUROC of every model and data set.
        comparisons: paired differences to the reference.
        quality: the gate of every model and data set.
        folders: pictures screened end to end.
        unscored: outputs that a data set has no label for, in words.
    """

    config: CardConfig
    data: tuple[DataFacts, ...]
    models: tuple[ModelFacts, ...]
    reference: str
    cells: tuple[CellReport, ...]
    means: tuple[MeanAuroc, ...]
    comparisons: tuple[Comparison, ...]
    quality: tuple[QualityReport, ...]
    folders: tuple[FolderReport, ...]
    unscored: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "schema_version": SCHEMA_VERSION,
            "code_version": __version__,
            "notice": NOTICE,
            **asdict(self),
        }

    def is_synthetic(self, dataset: str) -> bool:
        """Whether a data set declares its eyes to be synthetic."""
        return next(one.synthetic for one in self.data if one.name == dataset)


def make_card(
    config: CardConfig,
    data: Sequence[DataFacts],
    models: Sequence[ModelFacts],
    eyes: Sequence[EyeRow],
    predictions: Sequence[PredictionRow],
    *,
    reference: str | None = None,
    folders: Sequence[FolderReport] = (),
) -> Card:
    """Compute a card from its tables.

    Args:
        config: how.
        data: the data sets of `eyes`.
        models: those that are known by more than their rows.
        eyes: eyes.csv.
        predictions: predictions.csv.
        reference: model that the others are held against; None = the first.
        folders: screened beforehand.

    Raises:
        ConfigError: there is no model of the reference's name, or a pair of `also` scores nothing.
        DataError: the tables do not fit each other.
    """
    names = list(dict.fromkeys(row.model for row in predictions))
    chosen = reference if reference is not None else names[0]
    if chosen not in names:
        raise ConfigError(f"no model is called '{chosen}'; the models are {', '.join(names)}")
    cells = cells_of(eyes, predictions, config.also)
    for pair in config.also:
        if pair not in {(one.output, one.truth_name) for one in cells}:
            raise ConfigError(
                f"no data set and model have output '{pair[0]}' and label '{pair[1]}' together; "
                "correct the pair"
            )
    by_set = [[one for one in cells if one.dataset == facts.name] for facts in data]
    known = {model.name: model for model in models}
    return Card(
        config=config,
        data=tuple(data),
        models=tuple(known.get(name) or _facts_of_rows(name, predictions) for name in names),
        reference=chosen,
        cells=tuple(_report(cell, config) for cell in cells),
        means=tuple(one for own in by_set if own for one in mean_aurocs(own, config)),
        comparisons=tuple(
            one for own in by_set if own for one in compare_models(own, chosen, config)
        ),
        quality=tuple(quality_of(one, config) for one in verdicts_of(eyes, predictions)),
        folders=tuple(folders),
        unscored=_unscored(cells, predictions),
    )


def write_json(path: Path, card: Card) -> None:
    """Write card.json, as a whole or not at all; strict JSON."""
    part = path.with_name(path.name + ".part")
    text = json.dumps(card.to_dict(), indent=1, allow_nan=False)
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(path)


def _unscored(cells: Sequence[Cell], predictions: Sequence[PredictionRow]) -> tuple[str, ...]:
    """Outputs without a truth: said, not skipped in silence."""
    scored = {(one.dataset, one.model, one.output) for one in cells}
    models: dict[tuple[str, str], dict[str, None]] = {}
    for row in predictions:
        if (row.dataset, row.model, row.label) not in scored:
            models.setdefault((row.dataset, row.label), {})[row.model] = None
    return tuple(
        f"'{output}' is not scored on '{dataset}', which has no such label ({', '.join(own)})"
        for (dataset, output), own in models.items()
    )


def _report(cell: Cell, config: CardConfig) -> CellReport:
    answered = score(cell, ~cell.refused)
    groups = subgroups_of(cell, config)
    worst = worst_of(groups)
    num_positive = int(answered.truth.sum())
    roc: tuple[tuple[float, float], ...] = ()
    if 0 < num_positive < len(answered.truth):
        x, y, _ = roc_curve(answered.truth, answered.scores)
        kept = np.unique(np.linspace(0, len(x) - 1, _CURVE_POINTS).round().astype(int))
        roc = tuple(zip(x[kept].tolist(), y[kept].tolist(), strict=True))
    bins: tuple[ReliabilityBin, ...] = ()
    if len(answered.truth):
        bins = reliability_bins(answered.truth, answered.scores, num_bins=config.num_bins)
    return CellReport(
        dataset=cell.dataset,
        model=cell.model,
        output=cell.output,
        truth_name=cell.truth_name,
        num_eyes=len(cell.eyes),
        num_patients=len(np.unique(cell.patients)),
        num_positive=int(cell.truth.sum()),
        num_refused=int(cell.refused.sum()),
        threshold=cell.threshold,
        measures=measures_of(cell, config),
        ungradable=count_ungradable(cell, config),
        subgroups=groups,
        worst_subgroup=None if worst is None else (worst.axis, worst.group),
        roc=roc,
        reliability=bins,
    )


def _facts_of_rows(name: str, predictions: Sequence[PredictionRow]) -> ModelFacts:
    """What a table of predictions says of a model."""
    own = [row for row in predictions if row.model == name]
    thresholds = {row.label: row.threshold for row in own}
    return ModelFacts(
        name=name,
        sha256=own[0].model_sha256,
        kind="predictions given as a file",
        labels=tuple(thresholds),
        thresholds=tuple(thresholds.values()),
        gradable_threshold=own[0].gradable_threshold,
    )
