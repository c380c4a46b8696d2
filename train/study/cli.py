"""The command `edge-screen study`: every arm over seeds, measured, in one report."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from edge_runtime.result import NOTICE

__all__ = ["study"]

_PRESETS = ("pulse", "cpu", "gpu")
_PARTS = ("arms", "ablations")


@click.command()
@click.option(
    "--preset",
    "name",
    type=click.Choice(_PRESETS),
    default="cpu",
    show_default=True,
    help="pulse: minutes, learns nothing. cpu: hours on 2 cores. gpu: for a data-centre GPU.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder of the study; an interrupted one goes on.",
)
@click.option(
    "--part",
    "parts",
    type=click.Choice(_PARTS),
    multiple=True,
    help="Only this part; may be repeated. Default: both.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Processes, one thread each.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    help="Where the networks run. [default: cuda for preset gpu, else cpu]",
)
@click.option(
    "--finished-only", is_flag=True, help="Compute nothing: report on what is finished so far."
)
@click.option("--json", "as_json", is_flag=True, help="Print the verdicts as JSON.")
def study(
    name: str,
    out: Path,
    parts: tuple[str, ...],
    workers: int,
    device: str | None,
    finished_only: bool,
    as_json: bool,
) -> None:
    """Pretrain every arm over seeds on synthetic eyes, measure all tasks, write a report.

    Resumable: what is done is kept, keyed by its settings. The report is OUT/report.md;
    it is written when every cell of the chosen parts is finished.

    \b
    Example:
        edge-screen study --preset cpu --out runs/study
    """  # noqa: D301
    from train.device import pick_device
    from train.study.presets import preset
    from train.study.report import write_report
    from train.study.run import finished_cells, run_study

    chosen = preset(name)
    missing: tuple[str, ...] = ()
    if finished_only:
        records, missing = finished_cells(chosen, out, parts=parts or _PARTS)
    else:
        chosen_device = pick_device(device or ("cuda" if name == "gpu" else "cpu"))
        click.echo(f"study '{name}', synthetic eyes: {chosen.cost}", err=True)
        records = run_study(
            chosen,
            out,
            parts=parts or _PARTS,
            workers=workers,
            device=chosen_device,
            say=lambda line: click.echo(line, err=True),
        )
    command = f"edge-screen study --preset {name}" + "".join(f" --part {one}" for one in parts)
    judged = write_report(chosen, records, out, command=command, missing=missing)
    if as_json:
        verdicts = [asdict(one) for one in judged]
        click.echo(json.dumps({"synthetic": True, "verdicts": verdicts, "notice": NOTICE}))
        return
    for one in judged:
        click.echo(f"{'reached' if one.reached else 'NOT reached'}: {one.asked}: {one.found}")
    click.echo(f"report of synthetic eyes in {out / 'report.md'}")
    click.echo(NOTICE)
