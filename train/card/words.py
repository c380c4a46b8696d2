"""How the page and the model card say a measure, in one wording."""

from __future__ import annotations

from edge_runtime.metrics import Interval
from edge_runtime.reports.markup import Markup
from train.card.card import Card, CellReport
from train.card.measures import Measure
from train.page.html import value_with_interval

__all__ = [
    "interval_cell",
    "interval_text",
    "measure_cell",
    "measure_text",
    "method_sentences",
    "metric_words",
    "reasons_of",
]

_METRIC_WORDS = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "brier": "Brier",
    "ece": "ECE",
    "sensitivity": "sensitivity, locked",
    "specificity": "specificity, locked",
    "balanced_accuracy": "balanced accuracy, locked",
}


def metric_words(name: str) -> str:
    """A metric as people say it."""
    if name.startswith("sensitivity_at_"):
        return f"sensitivity at {float(name.split('_')[2]):.0%} specificity"
    return _METRIC_WORDS[name]


def interval_text(one: Interval, decimals: int = 3) -> str:
    """'0.912 (0.880 to 0.941)'."""
    low, high = (f"{end:.{decimals}f}" for end in (one.low, one.high))
    return f"{one.value:.{decimals}f} ({low} to {high})"


def measure_text(one: Measure) -> str:
    """A measure on one line, or why there is none."""
    return one.reason if one.interval is None else interval_text(one.interval)


def interval_cell(one: Interval | None, *, decimals: int = 3) -> Markup | str:
    """A value with its interval beneath; a dash where there is none."""
    if one is None:
        return "-"
    return value_with_interval(one.value, (one.low, one.high), decimals=decimals)


def measure_cell(one: Measure) -> Markup | str:
    """A measure in a table; the reasons stand in notes beneath it."""
    return interval_cell(one.interval)


def reasons_of(cells: tuple[CellReport, ...] | list[CellReport]) -> str:
    """Why dashes stand in a table of cells, each reason once with its models."""
    found: dict[str, dict[str, None]] = {}
    for cell in cells:
        for one in cell.measures:
            if one.reason:
                text = f"{cell.title}: {one.reason}"
                text = one.reason if "operating point" in one.reason else text
                found.setdefault(text, {})[cell.model] = None
    return " ".join(f"{reason} ({', '.join(models)})." for reason, models in found.items())


def method_sentences(card: Card) -> tuple[str, ...]:
    """How the numbers were made: said on the page and in the model card."""
    config = card.config
    return (
        f"Intervals are {config.level:.0%} percentile intervals over {config.num_draws} resamples "
        "of whole patients, the same resamples for every model; of a sensitivity, a specificity "
        "and a refused share, Wilson's interval where that is wider.",
        "AUROC, AUPRC, Brier score and ECE are over the eyes that the model answered: those that "
        "neither the quality gate nor its gradability output refused.",
        "'Locked' figures use the threshold that the model brought with it, chosen elsewhere; no "
        "resample chooses it again.",
        "Sensitivity at a fixed specificity is read from the ROC curve of this very set, and read "
        "again in every resample; it describes the curve and is no claim about a locked threshold.",
        f"ECE has {config.num_bins} bins of about equally many eyes, their edges quantiles of the "
        "set, held in the resamples.",
        f"Differences are to '{card.reference}' on the eyes that both answer; p values are "
        "corrected by Holm over the comparisons of a data set.",
        f"Subgroups with fewer than {config.min_patients} patients or {config.min_positives} "
        "positive eyes are suppressed. Subgroups are looked at one by one, without correction.",
    )
