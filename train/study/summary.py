"""What the study found, as numbers: values by arm, paired differences by seed, verdicts.

Seeds are never merged into an interval: each seed has its own paired difference with its
interval over test patients, and beside them stands their mean and spread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from train.study.arms import BALANCED, REFERENCE
from train.study.cells import CellRecord
from train.tasks.compare import PairedDifference, compare_runs
from train.tasks.registry import TASKS
from train.tasks.results import TaskRun
from train.tasks.run_files import load_run

__all__ = [
    "CLAIM_MARGIN",
    "CLAIM_TASKS",
    "StudyResults",
    "Verdict",
    "collect",
    "headline_rows",
    "verdicts",
]

BASELINE = "cfp_only"
# Smallest gain that counts, by task. Macular edema: the gap of the paper's first version.
CLAIM_MARGIN: Mapping[str, float] = {
    "macular_edema": 0.096,
    "myopic_schisis": 0.0,
    "glaucoma": 0.0,
}
CLAIM_TASKS = tuple(CLAIM_MARGIN)
_READOUTS = ("probe", "finetune")
_TIMES_CHANCE = 10


@dataclass(frozen=True, kw_only=True)
class StudyResults:
    """Every finished cell, read back.

    Attributes:
        arms: arm -> seed -> run of the sixteen tasks.
        differences: arm -> seed -> row name -> the method minus that arm, same seed.
        ablations: name -> run.
        records: the cells.
    """

    arms: Mapping[str, Mapping[int, TaskRun]]
    differences: Mapping[str, Mapping[int, Mapping[str, PairedDifference]]]
    ablations: Mapping[str, TaskRun]
    records: tuple[CellRecord, ...]

    def values(self, arm: str, key: str) -> tuple[float, ...]:
        """One row of an arm, a value a seed; rows that were not measured are left out."""
        found = []
        for run in self.arms.get(arm, {}).values():
            for row in run.results:
                if row.key == key and row.interval is not None:
                    found.append(row.interval.value)
        return tuple(found)

    def by_seed(self, arm: str, key: str) -> tuple[PairedDifference, ...]:
        """The method minus an arm in one row, seed by seed."""
        return tuple(rows[key] for rows in self.differences[arm].values() if key in rows)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One thing the study was asked to reach.

    Attributes:
        asked: in words.
        found: in words, with the numbers.
        reached: whether every seed reached it.
    """

    asked: str
    found: str
    reached: bool


def collect(records: Sequence[CellRecord]) -> StudyResults:
    """Read the runs and compare the method with every other arm, seed by seed."""
    arms: dict[str, dict[int, TaskRun]] = {}
    ablations: dict[str, TaskRun] = {}
    for record in records:
        run, who = load_run(record.folder), record.identity
        if who["group"] == "arms":
            arms.setdefault(who["arm"], {})[int(who["seed"])] = run
        else:
            ablations[who["arm"]] = run
    differences = {
        arm: {
            seed: {row.task + f"/{row.readout}/{row.num_labels}": row for row in rows}
            for seed, rows in (
                (seed, compare_runs(arms[REFERENCE][seed], run))
                for seed, run in runs.items()
                if seed in arms.get(REFERENCE, {})
            )
        }
        for arm, runs in arms.items()
        if arm != REFERENCE
    }
    return StudyResults(
        arms=arms, differences=differences, ablations=ablations, records=tuple(records)
    )


def headline_rows(run: TaskRun) -> tuple[str, ...]:
    """One row a task: most labels by probe, eight patients a class, ridge retrieval, Dice."""
    rows = []
    for task in TASKS:
        own = [row for row in run.results if row.task == task and row.readout != "zero_shot"]
        own = [row for row in own if row.readout != "finetune"]
        if TASKS[task].kind == "few_shot":
            own = [row for row in own if row.num_labels == 8] or own
        if own:
            rows.append(max(own, key=lambda row: row.num_labels).key)
    return tuple(rows)


def verdicts(results: StudyResults, budgets: Sequence[int]) -> tuple[Verdict, ...]:
    """Everything the study was asked to reach, each judged on every seed."""
    found = [
        _claim(results, task, readout, budgets) for task in CLAIM_TASKS for readout in _READOUTS
    ]
    found.append(_no_task_worse(results, REFERENCE))
    if BALANCED in results.arms:
        found += _balanced(results, budgets)
    if "shuffled_oct" in results.arms:
        found.append(_shuffled_gains_nothing(results, budgets))
    if "no_pretraining" in results.arms:
        found += _beats_untrained(results)
    found.append(_retrieval(results))
    found.append(_leak(results))
    found.append(_waiting(results))
    return tuple(found)


def _claim(results: StudyResults, task: str, readout: str, budgets: Sequence[int]) -> Verdict:
    margin = CLAIM_MARGIN[task]
    rows = [row for n in budgets for row in results.by_seed(BASELINE, f"{task}/{readout}/{n}")]
    expected = len(budgets) * len(results.differences[BASELINE])
    smallest = min(rows, key=lambda row: row.interval.value, default=None)
    reached = len(rows) == expected and all(
        row.interval.value > margin and row.interval.low > 0 for row in rows
    )
    words = "not measured"
    if smallest is not None:
        words = (
            f"smallest of {len(rows)} (budgets x seeds): {_signed(smallest)} "
            f"at {smallest.num_labels} labels"
        )
    asked = f"{task}, {readout}: gain over CFP-only > {margin:g} with an interval above 0"
    return Verdict(asked=asked, found=words, reached=reached)


def _no_task_worse(results: StudyResults, arm: str) -> Verdict:
    """A task counts as worse when its whole interval is below 0 on most of the seeds."""
    any_run = next(iter(results.arms[arm].values()))
    found = against_baseline(results, arm)
    worse = []
    for key in headline_rows(any_run):
        rows = [seed[key] for seed in found.values() if key in seed]
        if _mostly(rows, above=False):
            worse.append(f"{key} ({', '.join(_signed(row) for row in rows)})")
    whose = "" if arm == REFERENCE else f"{arm}: "
    return Verdict(
        asked=f"{whose}no task worse than CFP-only by more than its interval allows",
        found="worse: " + "; ".join(worse) if worse else "none is",
        reached=not worse,
    )


def against_baseline(results: StudyResults, arm: str) -> dict[int, dict[str, PairedDifference]]:
    """An arm minus the CFP-only arm: seed -> row name -> paired difference."""
    baseline = results.arms[BASELINE]
    return {
        seed: {f"{r.task}/{r.readout}/{r.num_labels}": r for r in compare_runs(run, baseline[seed])}
        for seed, run in results.arms[arm].items()
        if seed in baseline
    }


def _balanced(results: StudyResults, budgets: Sequence[int]) -> list[Verdict]:
    """The trade-off: does masked CFP at full weight keep every task, and what does it gain?"""
    found = against_baseline(results, BALANCED)
    judged = [_no_task_worse(results, BALANCED)]
    for task in CLAIM_TASKS:
        rows = [
            seed[f"{task}/probe/{n}"]
            for seed in found.values()
            for n in budgets
            if f"{task}/probe/{n}" in seed
        ]
        smallest = min(rows, key=lambda row: row.interval.value)
        margin = CLAIM_MARGIN[task]
        judged.append(
            Verdict(
                asked=f"{BALANCED}: {task}, probe: gain over CFP-only > {margin:g}, as above",
                found=f"smallest of {len(rows)}: {_signed(smallest)} "
                f"at {smallest.num_labels} labels",
                reached=all(r.interval.value > margin and r.interval.low > 0 for r in rows),
            )
        )
    return judged


def _shuffled_gains_nothing(results: StudyResults, budgets: Sequence[int]) -> Verdict:
    """Shuffled minus CFP-only: no row may have its interval above 0 on most of the seeds."""
    gains: list[PairedDifference] = []
    for rows in against_baseline(results, "shuffled_oct").values():
        gains += [
            rows[f"{task}/probe/{n}"]
            for task in CLAIM_TASKS
            for n in budgets
            if f"{task}/probe/{n}" in rows
        ]
    largest = max(gains, key=lambda row: row.interval.value)
    return Verdict(
        asked="the shuffled control gains nothing over CFP-only on these tasks (probe)",
        found=f"largest of {len(gains)}: {largest.task} {_signed(largest)}",
        reached=not any(_mostly(rows, above=True) for rows in _by_row(gains)),
    )


def _mostly(rows: Sequence[PairedDifference], *, above: bool) -> bool:
    """Whether most seeds have their whole interval above (or below) 0."""
    hits = sum(row.interval.low > 0 if above else row.interval.high < 0 for row in rows)
    return hits * 2 > len(rows)


def _by_row(rows: Sequence[PairedDifference]) -> list[list[PairedDifference]]:
    """Rows of one task, readout and budget together, a list of its seeds each."""
    found: dict[tuple[str, str, int], list[PairedDifference]] = {}
    for row in rows:
        found.setdefault((row.task, row.readout, row.num_labels), []).append(row)
    return list(found.values())


def _beats_untrained(results: StudyResults) -> list[Verdict]:
    found = []
    for kind in ("segmentation", "retrieval"):
        any_run = next(iter(results.arms[REFERENCE].values()))
        keys = [k for k in headline_rows(any_run) if TASKS[k.split("/")[0]].kind == kind]
        rows = [row for key in keys for row in results.by_seed("no_pretraining", key)]
        if rows:
            smallest = min(rows, key=lambda row: row.interval.value)
            found.append(
                Verdict(
                    asked=f"{kind} better than without pretraining",
                    found=f"smallest of {len(rows)}: {smallest.task} {_signed(smallest)}",
                    reached=all(row.interval.low > 0 for row in rows),
                )
            )
    return found


def _retrieval(results: StudyResults) -> Verdict:
    times = [
        row.interval.value / row.chance
        for run in results.arms[REFERENCE].values()
        for row in run.results
        if TASKS[row.task].kind == "retrieval" and row.interval is not None and row.chance
    ]
    return Verdict(
        asked=f"retrieval at least {_TIMES_CHANCE} times chance",
        found=f"{min(times):.1f} to {max(times):.1f} times" if times else "not measured",
        reached=bool(times) and min(times) >= _TIMES_CHANCE,
    )


def _leak(results: StudyResults) -> Verdict:
    leaks = [
        (record.controls["gradient_leak"], record.controls["gradient_leak_control"])
        for record in results.records
        if "gradient_leak" in record.controls
    ]
    return Verdict(
        asked="gradient of oct<-cfp with respect to OCT pixels is exactly zero",
        found=f"largest of {len(leaks)} cells: {max(leak for leak, _ in leaks):g} "
        f"(oct<-oct, which reads them: at least {min(control for _, control in leaks):.1e})",
        reached=all(leak == 0 < control for leak, control in leaks),
    )


def _waiting(results: StudyResults) -> Verdict:
    shares = [
        record.seconds["waiting"] / record.seconds["pretrain"]
        for record in results.records
        if record.seconds.get("pretrain")
    ]
    return Verdict(
        asked="data loading at most 10 % of a step",
        found=f"at most {100 * max(shares):.1f} % of pretraining, from memory",
        reached=max(shares) <= 0.1,
    )


def _signed(row: PairedDifference) -> str:
    interval = row.interval
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def mean_and_sd(values: Sequence[float]) -> str:
    """'0.912 (0.004)': mean and sample sd over seeds; no sd for one seed; '-' for none."""
    if not values:
        return "-"
    mean = f"{np.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({np.std(values, ddof=1):.3f})"


def as_json(results: StudyResults, judged: Sequence[Verdict]) -> dict[str, Any]:
    """The whole study as JSON types: values, differences, verdicts, cells."""
    return {
        "verdicts": [asdict(one) for one in judged],
        "arms": {
            arm: {str(seed): run.to_dict() for seed, run in runs.items()}
            for arm, runs in results.arms.items()
        },
        "differences": {
            arm: {
                str(seed): {key: row.to_dict() for key, row in rows.items()}
                for seed, rows in seeds.items()
            }
            for arm, seeds in results.differences.items()
        },
        "ablations": {name: run.to_dict() for name, run in results.ablations.items()},
        "cells": [
            {
                "identity": record.identity,
                "seconds": record.seconds,
                "losses": record.losses,
                "controls": record.controls,
            }
            for record in results.records
        ],
    }
