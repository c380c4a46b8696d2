"""The command group `edge-screen data`: what can be done with a data set on disk."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from train.imports.cli import import_command
from train.pairing.cli import pair

if TYPE_CHECKING:
    from train.data.check import CheckReport

__all__ = ["data"]

_EXIT_PROBLEMS = 6  # the exit code of edge_runtime.errors.DataError


@click.group()
def data() -> None:
    """Look after data sets: folders with an index.csv and the images it names."""


data.add_command(import_command)
data.add_command(pair)


@data.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@click.pass_context
def check(ctx: click.Context, folder: Path, as_json: bool) -> None:
    """Check the data set in DIR and list every problem with its row and file.

    Looks at the index (columns, eyes, dates, label values), at pairing (one row a visit,
    one split a patient) and opens every file (missing, damaged, duplicated images). Exit
    code 0: nothing found; 6: problems, all of them listed.

    \b
    Example:
      edge-screen data check runs/phantom
      edge-screen data check runs/phantom --json > check.json
    """  # noqa: D301 - click wants the character backspace, not a backslash
    from train.data.check import examine_dataset

    with _Bar() as bar:
        report = examine_dataset(folder, progress=bar.show)
    click.echo(json.dumps(report.to_dict(), indent=2) if as_json else _text(report))
    if report.problems:
        ctx.exit(_EXIT_PROBLEMS)


@data.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="New folder for the shards."
)
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    default="train",
    show_default=True,
    help="Which visits; those without a CFP or a scan are left out and counted.",
)
@click.option(
    "--shard-mib", type=click.IntRange(1), default=256, show_default=True, help="Size of a shard."
)
@click.option(
    "--size-px", default=96, show_default=True, help="Side at which every CFP is tried out."
)
@click.option(
    "--max-left-out",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Visits with unreadable pictures that may be left out.",
)
@click.option(
    "--threads", type=click.IntRange(1), default=2, show_default=True, help="That read and decode."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def shard(
    folder: Path,
    out: Path,
    split: str,
    shard_mib: int,
    size_px: int,
    max_left_out: int,
    threads: int,
    as_json: bool,
) -> None:
    """Pack a split of the data set in DIR into tar shards for pretraining at scale.

    The tar files follow the WebDataset convention; indexes with offsets and SHA-256 make
    them random access. Unreadable pictures are refused, all of them listed.

    \b
    Example:
      edge-screen data shard runs/eyes --out runs/shards
      edge-screen data shard runs/eyes --out runs/shards --shard-mib 1024 --max-left-out 50
    """  # noqa: D301 - click wants the character backspace, not a backslash
    from train.data.shards import write_shards

    with _Bar() as bar:
        done = write_shards(
            folder,
            out,
            split=split,
            shard_mib=shard_mib,
            size_px=size_px,
            max_left_out=max_left_out,
            num_threads=threads,
            progress=bar.show,
        )
    if as_json:
        left_out = [{"row": row, "reason": reason} for row, reason in done.left_out]
        click.echo(json.dumps({"out": str(out), **asdict(done), "left_out": left_out}))
        return
    click.echo(f"{done.num_eyes} eyes in {done.num_shards} shards, {done.num_bytes} bytes: {out}")
    if done.num_unpaired:
        click.echo(f"{done.num_unpaired} visits without a CFP or one of both scans left out")
    for row, reason in done.left_out:
        click.echo(f"left out: row {row}: {reason}")


class _Bar:
    """A progress line on a terminal's stderr; silent elsewhere, so that logs stay short."""

    def __init__(self) -> None:
        self._active = sys.stderr.isatty()

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._active:
            click.echo("\r\033[K", err=True, nl=False)

    def show(self, done: int, total: int) -> None:
        """Rewrite the line about every hundredth of the work."""
        if self._active and (done == total or done % max(1, total // 100) == 0):
            click.echo(f"\rvisit {done} of {total}", err=True, nl=False)


def _text(report: CheckReport) -> str:
    """The report for people: counts, labels, then every problem."""
    lines = ["synthetic data set (phantom)"] if report.synthetic else []
    lines.append(f"{'split':<8}{'patients':>10}{'visits':>8}{'cfp':>8}{'oct':>8}{'paired':>8}")
    for split, count in report.counts.items():
        lines.append(
            f"{split:<8}{count['patients']:>10}{count['visits']:>8}{count['cfp']:>8}"
            f"{count['oct']:>8}{count['paired']:>8}"
        )
    lines += _label_lines(report)
    lines += [str(problem) for problem in report.problems]
    num = len(report.problems)
    lines.append("no problem found" if num == 0 else f"{num} problem{'s' if num > 1 else ''} found")
    return "\n".join(lines)


def _label_lines(report: CheckReport) -> list[str]:
    if not report.labels:
        return ["no label columns"]
    width = max(len(name) for name in report.labels) + 2
    lines = [f"{'label':<{width}}{'known':>8}{'above 0':>10}{'prevalence':>12}"]
    for name, count in report.labels.items():
        share = f"{count['positive'] / count['known']:.1%}" if count["known"] else "-"
        lines.append(f"{name:<{width}}{count['known']:>8}{count['positive']:>10}{share:>12}")
    return lines
