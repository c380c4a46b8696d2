"""The command `edge-screen quant-lint`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from distill.quant_lint import Finding

__all__ = ["quant_lint"]


@click.command("quant-lint")
@click.argument("arch", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def quant_lint(arch: str | None, as_json: bool) -> None:
    """Name the blocks of a backbone that INT8 is known to treat badly, with reason and remedy.

    ARCH is a name in the catalogue of students or of any timm network; without it the catalogue
    is shown with what each costs. Ends with exit code 2 if `distill` would refuse ARCH.

    \b
    Example:
      edge-screen quant-lint
      edge-screen quant-lint mobilenetv3_large_100
    """  # noqa: D301 (click needs the backspace itself)
    from distill.catalogue import SIZES_PX, student_config
    from distill.quant_lint import lint_backbone, refuse_bad_backbone

    if arch is None:
        _show_catalogue(as_json)
        return
    config = student_config(arch, size_px=SIZES_PX[0])
    findings = lint_backbone(config)
    if as_json:
        click.echo(json.dumps({"arch": arch, "findings": [one.to_dict() for one in findings]}))
    else:
        for finding in findings:
            _show(finding)
        if not findings:
            click.echo(f"{arch}: nothing that INT8 is known to treat badly")
    refuse_bad_backbone(config, allowed=False)


def _show(finding: Finding) -> None:
    where = f"{finding.num_layers} layers, first {finding.first}"
    click.echo(
        f"{finding.weight}: {finding.rule} ({where if finding.num_layers else finding.first})"
    )
    click.echo(f"  why: {finding.reason}")
    click.echo(f"  do:  {finding.remedy}")


def _show_catalogue(as_json: bool) -> None:
    rows = _catalogue_rows()
    if as_json:
        click.echo(json.dumps({"students": rows}))
        return
    sizes = list(rows[0]["gmacs"])
    click.echo(f"{'name':<18}{'tier':<10}{'M':>6}  " + "".join(f"{s + ' px':>9}" for s in sizes))
    for row in rows:
        gmacs = "".join(f"{row['gmacs'][size]:>9.2f}" for size in sizes)
        click.echo(f"{row['name']:<18}{row['tier']:<10}{row['million_parameters']:>6.2f}  {gmacs}")
        click.echo(f"  {row['reason']}")
        if row["findings"]:
            click.echo(f"  quant-lint: {', '.join(row['findings'])}")
    click.echo("M: million weights of the backbone; under sizes: billion multiply-accumulates")


def _catalogue_rows() -> list[dict[str, Any]]:
    from distill.catalogue import CATALOGUE, SIZES_PX
    from distill.cost import backbone_cost
    from distill.quant_lint import lint_backbone

    rows = []
    for entry in CATALOGUE.values():
        costs = {size: backbone_cost(entry.config(size)) for size in SIZES_PX}
        rows.append(
            {
                "name": entry.name,
                "tier": entry.tier,
                "million_parameters": costs[SIZES_PX[0]].num_parameters / 1e6,
                "gmacs": {str(size): cost.num_macs / 1e9 for size, cost in costs.items()},
                "reason": entry.reason,
                "findings": [
                    f"{one.weight} {one.rule}" for one in lint_backbone(entry.config(SIZES_PX[0]))
                ],
            }
        )
    return rows
