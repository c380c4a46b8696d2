"""The study as a page for people: what was asked, what was found, every table, every setting."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from edge_runtime.errors import DataError
from edge_runtime.result import NOTICE
from train.study.arms import ARMS, REFERENCE
from train.study.cells import CellRecord
from train.study.plots import differences_svg, labels_svg
from train.study.presets import StudyPreset
from train.study.summary import (
    BASELINE,
    CLAIM_TASKS,
    StudyResults,
    Verdict,
    as_json,
    collect,
    headline_rows,
    mean_and_sd,
    verdicts,
)
from train.tasks.registry import TASKS

__all__ = ["write_report"]


def write_report(
    preset: StudyPreset,
    records: Sequence[CellRecord],
    out: Path,
    *,
    command: str,
    missing: Sequence[str] = (),
) -> tuple[Verdict, ...]:
    """Write `report.md`, `report.json` and the plots into `out`.

    Args:
        preset: the study.
        records: its finished cells.
        out: folder.
        command: how the study was called, for the page.
        missing: cells that are not finished, named on the page.

    Returns:
        The verdicts on the page.

    Raises:
        DataError: the method or the CFP-only arm is not among the finished cells.
    """
    finished = {record.identity["arm"] for record in records}
    if not {REFERENCE, BASELINE} <= finished:
        raise DataError(
            f"finished are only {', '.join(sorted(finished)) or 'none'}; a report needs "
            f"{REFERENCE} and {BASELINE}: run the study on"
        )
    results = collect(records)
    judged = verdicts(results, preset.budgets)
    out.mkdir(parents=True, exist_ok=True)
    labels = {
        task: {arm: _curve(results, arm, task, preset.budgets) for arm in results.arms}
        for task in CLAIM_TASKS
    }
    (out / "labels.svg").write_text(labels_svg(labels, preset.budgets), encoding="utf-8")
    (out / "differences.svg").write_text(
        differences_svg(results.differences[BASELINE], _headlines(results)), encoding="utf-8"
    )
    sections = (
        _head(preset, results, command),
        *([_unfinished(missing)] if missing else []),
        _verdict_table(judged),
        _claim_tables(results, preset),
        _task_table(results),
        _finetune_table(results, preset),
        _difference_table(results),
        _ablation_table(results),
        _cost_table(results),
    )
    (out / "report.md").write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    text = json.dumps(as_json(results, judged), indent=1, allow_nan=False)
    (out / "report.json").write_text(text + "\n", encoding="utf-8")
    return judged


def _headlines(results: StudyResults) -> tuple[str, ...]:
    return headline_rows(next(iter(results.arms[REFERENCE].values())))


def _curve(
    results: StudyResults, arm: str, task: str, budgets: Iterable[int]
) -> list[tuple[float, ...]]:
    return [results.values(arm, f"{task}/probe/{n}") for n in budgets]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [_row(header), _row(["---"] * len(header)), *(_row(row) for row in rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _head(preset: StudyPreset, results: StudyResults, command: str) -> str:
    run = next(iter(results.arms[REFERENCE].values()))
    seeds = ", ".join(str(seed) for seed in preset.seeds)
    arms = "\n".join(f"- **{name}**: {ARMS[name]}" for name in results.arms)
    num_patients = run.results[0].num_patients
    method = preset.base(preset.seeds[0])
    return f"""# Study '{preset.name}': does OCT in pretraining help the photograph? (synthetic)

Written by `{command}`. Every eye here is synthetic (phantom seed {preset.data_seed},
{preset.num_patients} patients, two eyes each); nothing here says how well a model screens people.
{NOTICE}

{preset.num_steps} steps of {preset.batch_size} eyes, peak learning rate {method.learning_rate:g}
(in cfp_only {preset.control.batch_size} eyes and {preset.control.learning_rate:g}), seeds
{seeds}; encoder {preset.encoder.width} wide, {preset.encoder.depth} block(s) behind the
convolutional stem, {preset.encoder.size_px} px. Settings were chosen on the eyes of another
seed and then frozen. Intervals are 95 % over test patients ({num_patients} in the first task),
{preset.num_draws} bootstrap draws, paired differences on the same draws; p values corrected
over the tasks by Holm. Seeds are reported apart; '(sd)' is over seeds and says nothing about
patients. Data set SHA-256 `{run.data_fingerprint[:16]}`.

{arms}"""


def _unfinished(missing: Sequence[str]) -> str:
    return "**Not finished, and not in any table:** " + "; ".join(missing) + "."


def _verdict_table(judged: Sequence[Verdict]) -> str:
    rows = [(one.asked, one.found, "yes" if one.reached else "**no**") for one in judged]
    return "## What was asked (synthetic)\n\n" + _table(
        ("asked, of every seed", "found", "reached"), rows
    )


def _claim_tables(results: StudyResults, preset: StudyPreset) -> str:
    parts = [
        "## The claim: OCT-informed minus CFP-only (AUROC, synthetic)\n\n"
        "One column a seed: difference [95 % interval over patients].\n\n"
        "![AUROC by number of labels](labels.svg)"
    ]
    for readout in ("probe", "finetune"):
        rows = []
        for task in CLAIM_TASKS:
            for n in preset.budgets:
                found = results.by_seed(BASELINE, f"{task}/{readout}/{n}")
                if found:
                    cells = [
                        f"{row.interval.value:+.3f} [{row.interval.low:+.3f}, "
                        f"{row.interval.high:+.3f}]"
                        for row in found
                    ]
                    mean = mean_and_sd([row.interval.value for row in found])
                    worst = max(row.p_holm for row in found)
                    rows.append((task, str(n), *cells, mean, f"{worst:.4f}"))
        seeds = [f"seed {seed}" for seed in results.differences[BASELINE]]
        header = (f"{readout}", "labels", *seeds, "mean (sd)", "largest Holm p")
        parts.append(_table(header, rows))
    return "\n\n".join(parts)


def _task_table(results: StudyResults) -> str:
    arms = list(results.arms)
    rows = []
    for key in _headlines(results):
        task, readout, num_labels = key.split("/")
        shown = TASKS[task].shown
        rows.append(
            (
                task,
                f"{readout} {num_labels}",
                shown,
                *(mean_and_sd(results.values(arm, key)) for arm in arms),
            )
        )
    chance = _retrieval_chance(results)
    return (
        "## All sixteen tasks, encoder frozen but for segmentation (synthetic)\n\n"
        + _table(("task", "readout, labels", "metric", *arms), rows)
        + f"\n\nChance of R@10 in retrieval: {chance}."
    )


def _retrieval_chance(results: StudyResults) -> str:
    rows = next(iter(results.arms[REFERENCE].values())).results
    found = {f"{row.chance:.4f}" for row in rows if row.task == "cfp_to_oct" and row.chance}
    return ", ".join(sorted(found)) or "not measured"


def _finetune_table(results: StudyResults, preset: StudyPreset) -> str:
    arms, rows = list(results.arms), []
    for task, spec in TASKS.items():
        for n in preset.budgets if spec.kind == "classification" else ():
            cells = tuple(mean_and_sd(results.values(arm, f"{task}/finetune/{n}")) for arm in arms)
            rows.append((task, str(n), spec.shown, *cells))
    return "## Fine-tuning, all heads together (synthetic)\n\n" + _table(
        ("task", "labels", "metric", *arms), rows
    )


def _difference_table(results: StudyResults) -> str:
    rows = []
    for key in _headlines(results):
        for arm, seeds in results.differences.items():
            if arm != BASELINE:
                continue
            for seed, found in seeds.items():
                if key in found:
                    row = found[key]
                    rows.append(
                        (
                            key,
                            str(seed),
                            f"{row.value_a:.3f}",
                            f"{row.value_b:.3f}",
                            f"{row.interval.value:+.3f} [{row.interval.low:+.3f}, "
                            f"{row.interval.high:+.3f}]",
                            f"{row.p_holm:.4f}",
                        )
                    )
    return (
        "## OCT-informed minus CFP-only, every task and seed (synthetic)\n\n"
        "![Paired differences](differences.svg)\n\n"
        + _table(("task/readout/labels", "seed", REFERENCE, BASELINE, "difference", "Holm p"), rows)
    )


def _ablation_table(results: StudyResults) -> str:
    if not results.ablations:
        return "## Ablations\n\nNot run."
    keys = headline_rows(next(iter(results.ablations.values())))
    rows = []
    for name, run in results.ablations.items():
        by_key = {row.key: row for row in run.results}
        cells = []
        for key in keys:
            interval = by_key[key].interval if key in by_key else None
            cells.append("-" if interval is None else f"{interval.value:.3f}")
        rows.append((name, *cells))
    return (
        "## Ablations: one change each, first seed (synthetic)\n\n"
        "One seed, so differences of a few hundredths mean little.\n\n"
        + _table(("change", *(key.replace("/probe", "") for key in keys)), rows)
    )


def _cost_table(results: StudyResults) -> str:
    rows = []
    for record in results.records:
        who, seconds = record.identity, record.seconds
        pretrain = seconds.get("pretrain")
        waiting = "-" if not pretrain else f"{100 * seconds['waiting'] / pretrain:.1f} %"
        ratio = record.controls.get("shuffled_oct_loss_ratio")
        rows.append(
            (
                who["arm"],
                str(who["seed"]),
                "-" if pretrain is None else f"{pretrain:.0f}",
                waiting,
                f"{seconds['tasks']:.0f}",
                "-" if ratio is None else f"{ratio:.2f}",
            )
        )
    devices = " and ".join(sorted({record.device for record in results.records}))
    where = "" if devices == "cpu" else f" Networks ran on {devices}."
    return (
        f"## Cost and controls\n\nWall seconds of one thread, other work beside it.{where} "
        "'Shuffled OCT' is the loss of oct<-cfp against another eye's scan over that against its "
        "own; 1 would mean that the network predicts the mean scan.\n\n"
        + _table(
            ("cell", "seed", "pretraining, s", "waiting for data", "tasks, s", "shuffled OCT"), rows
        )
    )
