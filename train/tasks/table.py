"""A run and a comparison as tables for people; every number also has its machine form."""

from __future__ import annotations

from collections.abc import Sequence

from train.tasks.compare import PairedDifference
from train.tasks.registry import TASKS
from train.tasks.results import TaskResult, TaskRun

__all__ = ["comparison_lines", "run_lines"]


def run_lines(run: TaskRun) -> list[str]:
    """One line a row: value, interval over patients, chance, eyes; or why there is none."""
    lines = [
        f"{'task':17s}{'readout':10s}{'labels':>7s}  {'metric':7s}{'value':>6s}  "
        f"{'95 % interval':16s}{'chance':>7s}{'eyes':>6s}"
    ]
    for row in run.results:
        head = f"{row.task:17s}{row.readout:10s}{_labels(row):>7s}  {row.metric:7s}"
        if row.interval is None:
            lines.append(f"{head}not measured: {row.note}")
            continue
        low, high = row.interval.low, row.interval.high
        chance = "-" if row.chance is None else f"{row.chance:.3f}"
        lines.append(
            f"{head}{row.interval.value:6.3f}  {f'[{low:.3f}, {high:.3f}]':16s}{chance:>7s}"
            f"{row.num_eyes:6d}{_more(row)}"
        )
    lines.append("labels: labelled eyes, or k patients a class; intervals resample test patients")
    return lines


def comparison_lines(differences: Sequence[PairedDifference]) -> list[str]:
    """One line a row: A, B, A minus B with its interval, p, and p corrected over tasks."""
    lines = [
        f"{'task':17s}{'readout':10s}{'labels':>7s}  {'metric':7s}{'A':>6s}{'B':>7s}"
        f"{'A - B':>8s}  {'95 % interval':18s}{'p':>7s}{'Holm':>7s}"
    ]
    for row in differences:
        low, high = row.interval.low, row.interval.high
        lines.append(
            f"{row.task:17s}{row.readout:10s}{_labels(row):>7s}  {row.metric:7s}"
            f"{row.value_a:6.3f} {row.value_b:6.3f}{row.interval.value:+8.3f}  "
            f"{f'[{low:+.3f}, {high:+.3f}]':18s}{row.p_value:7.4f}{row.p_holm:7.4f}"
        )
    lines.append("paired on the same eyes and resamples of patients; Holm over the tasks")
    return lines


def _labels(row: TaskResult | PairedDifference) -> str:
    if TASKS[row.task].kind == "segmentation":
        masks = int(row.extra.get("num_training_masks", 0)) if isinstance(row, TaskResult) else 0
        return str(masks) if masks else "-"
    if row.num_labels == 0:
        return "all"
    return f"k={row.num_labels}" if TASKS[row.task].kind == "few_shot" else str(row.num_labels)


def _more(row: TaskResult) -> str:
    """The further numbers that belong into the row of a kind of task."""
    extra = row.extra
    if "label_draw_sd" in extra:
        return f"  sd over label draws {extra['label_draw_sd']:.3f}"
    if "median_rank" in extra:
        return (
            f"  R@1 {extra['recall_at_1']:.3f} R@5 {extra['recall_at_5']:.3f} "
            f"median rank {extra['median_rank']:.0f} of {extra['mean_gallery_size']:.0f} "
            f"(chance {extra['chance_median_rank']:.0f})"
        )
    named = {"hd95": "HD95", "cldice": "clDice", "false_positive": "false positive"}
    return "".join(f"  {shown} {extra[name]:.3f}" for name, shown in named.items() if name in extra)
