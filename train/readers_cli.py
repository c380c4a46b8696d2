"""The command `evaluate readers`: a reader study against the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.result import NOTICE
from train.console import draws_option, json_option, seed_option

if TYPE_CHECKING:
    from edge_runtime.metrics import Interval
    from train.reader_report import GroupReport, ObserverReport, ReaderReport
    from train.reader_tables import ReaderStudy

__all__ = ["readers"]

_File = click.Path(dir_okay=False, path_type=Path)
_SHORT = {"sensitivity": "sens", "specificity": "spec", "balanced_accuracy": "bal.acc"}


@click.command()
@click.argument("readings", type=_File, metavar="READERS.csv")
@click.argument("predictions", type=_File, metavar="PREDICTIONS.csv")
@click.option("--label", help="One finding of several; default: all.")
@click.option(
    "--undecided",
    type=click.Choice(["refer", "wrong", "leave-out"]),
    default="refer",
    show_default=True,
    help="What an empty decision counts as.",
)
@draws_option
@seed_option("Of the bootstrap draws.")
@click.option("--synthetic", is_flag=True, help="Say that the eyes are synthetic.")
@click.option(
    "--export-mrmc",
    type=_File,
    metavar="FILE.imrmc",
    help="Also write iMRMC input for one label, and FILE.ids.csv.",
)
@json_option
def readers(
    readings: Path,
    predictions: Path,
    label: str | None,
    undecided: str,
    num_draws: int,
    seed: int,
    synthetic: bool,
    export_mrmc: Path | None,
    as_json: bool,
) -> None:
    """Compare groups of readers with the model on the same eyes.

    Intervals are over readers and cases (Obuchowski-Rockette, patients resampled). A formal
    multi-reader multi-case analysis belongs into iMRMC or RJafroc: see --export-mrmc.

    \b
    Example:
        edge-screen evaluate readers readers.csv predictions.csv
    """  # noqa: D301
    from dataclasses import replace

    from train.reader_tables import read_studies
    from train.readers import evaluate_readers

    rule = undecided.replace("-", "_")
    studies = _chosen(read_studies(readings, predictions), label)
    studies = [replace(one, synthetic=one.synthetic or synthetic) for one in studies]
    if export_mrmc is not None:
        _export(export_mrmc, studies, rule)
    reports = [
        evaluate_readers(one, undecided=rule, num_draws=num_draws, seed=seed) for one in studies
    ]
    if as_json:
        record = {"studies": [report.to_dict() for report in reports], "notice": NOTICE}
        click.echo(json.dumps(record, allow_nan=False))
        return
    for report in reports:
        for line in _lines(report):
            click.echo(line)
    click.echo(NOTICE)


def _chosen(studies: tuple[ReaderStudy, ...], label: str | None) -> list[ReaderStudy]:
    from edge_runtime.errors import ConfigError

    chosen = [one for one in studies if label in (None, one.label)]
    if not chosen:
        names = ", ".join(one.label for one in studies)
        raise ConfigError(f"nobody read label '{label}'; READERS.csv has {names}")
    return chosen


def _export(path: Path, studies: list[ReaderStudy], rule: str) -> None:
    from edge_runtime.errors import ConfigError
    from train.reader_export import imrmc_identifiers, imrmc_text

    if len(studies) != 1 or path.suffix != ".imrmc":
        raise ConfigError(
            f"--export-mrmc writes one label to a file that ends with .imrmc, not "
            f"{len(studies)} to '{path.name}'; choose with --label, and name the file so"
        )
    path.write_text(imrmc_text(studies[0], undecided=rule), encoding="utf-8")
    path.with_suffix(".ids.csv").write_text(imrmc_identifiers(studies[0]), encoding="utf-8")


def _lines(report: ReaderReport) -> list[str]:
    eyes = "synthetic eyes, no patients" if report.synthetic else "not declared synthetic"
    lines = [
        f"{report.label}: {report.num_cases} eyes of {report.num_patients} patients, "
        f"{report.num_positive} positive; {eyes}",
        f"'could not tell' counts as {report.undecided.replace('_', '-')}",
        _rates("model", report.model.rates, _unsure(report.model)),
    ]
    for group in report.groups:
        lines.append(_rates(f"{group.group} (mean of {group.num_readers})", group.rates, ""))
        lines += [
            _rates(f"  {one.observer}", one.rates, _unsure(one))
            for one in report.readers
            if one.group == group.group
        ]
    for group in report.groups:
        lines += _difference_lines(group)
    return lines


def _unsure(one: ObserverReport) -> str:
    return f"  {one.num_undecided} of {one.num_cases} undecided" if one.num_undecided else ""


def _rates(name: str, rates: dict[str, Interval], tail: str) -> str:
    return f"{name:24s} " + "  ".join(f"{_SHORT[k]} {_text(v)}" for k, v in rates.items()) + tail


def _text(one: Interval, sign: str = "") -> str:
    return f"{one.value:{sign}.3f} [{one.low:{sign}.3f}, {one.high:{sign}.3f}]"


def _difference_lines(group: GroupReport) -> list[str]:
    lines = []
    for measure, one in group.model_minus_group.items():
        over = "readers and cases" if one.over_readers else "cases only: one reader"
        lines.append(
            f"model minus {group.group:12s} {_SHORT[measure]:7s} {_text(one.interval, '+')}  "
            f"p {one.p_value:.4f}, Holm {one.p_holm:.4f}  ({over})"
        )
    at = group.matched
    where = "above every score" if at.threshold is None else f"{at.threshold:.4g}"
    lines.append(
        f"model's ROC at the specificity of {group.group}: sens {at.sensitivity:.3f}, spec "
        f"{at.specificity:.3f}, threshold {where} (chosen on these eyes: describes the curve)"
    )
    return lines
