"""The command `edge-screen data import`: a published set becomes a data set of the contract."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.errors import ConfigError
from edge_runtime.result import NOTICE

if TYPE_CHECKING:
    from train.imports.summary import ImportSummary

__all__ = ["import_command"]

_EVERY = 50  # pictures between two looks of the progress line
_SHOWN = 20


@click.command("import")
@click.argument("name", metavar="NAME", required=False)
@click.argument("src", metavar="SRC", required=False, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="New or empty folder.")
@click.option("--accept-terms", is_flag=True, help="The set's terms were read and are accepted.")
@click.option(
    "--prepared",
    is_flag=True,
    help="SRC is a reduced copy of the set: smaller pictures and one index.csv.",
)
@click.option(
    "--eyeq",
    "eyeq",
    multiple=True,
    type=click.Path(path_type=Path),
    help="EyeQ's table of quality for eyepacs; repeatable.",
)
@click.option("--link", is_flag=True, help="Hard links to the photographs instead of copies.")
@click.option("--seed", default=0, show_default=True, help="Of the splits that the set lacks.")
@click.option("--val-share", default=0.15, show_default=True, help="Of the patients.")
@click.option("--test-share", default=0.15, show_default=True, help="Where the set has no test.")
@click.option("--json", "as_json", is_flag=True, help="Print import.json instead of text.")
@click.option(
    "--list", "show_list", is_flag=True, help="Show every set and what is taken from it as what."
)
def import_command(
    name: str | None,
    src: Path | None,
    out: Path | None,
    accept_terms: bool,
    prepared: bool,
    eyeq: tuple[Path, ...],
    link: bool,
    seed: int,
    val_share: float,
    test_share: float,
    as_json: bool,
    show_list: bool,
) -> None:
    """Turn the published set NAME, unpacked in SRC, into a data set in DIR.

    Nothing is downloaded. The set's terms are printed first, and nothing is copied without
    --accept-terms. Photographs keep their bytes, labels are mapped to one vocabulary, what a
    set does not say stays empty. DIR/import.json names every row left out, with its reason.

    \b
    Example:
      edge-screen data import --list
      edge-screen data import aptos-2019 downloads/aptos --out runs/aptos --accept-terms
      edge-screen data check runs/aptos
    """  # noqa: D301 - click wants the character backspace, not a backslash
    from train.imports.records import ReadOptions
    from train.imports.run import import_set
    from train.imports.sets import SETS
    from train.imports.splits import SplitRule

    if show_list:
        click.echo(_mapping_text())
        return
    if name is None or src is None or out is None:
        raise click.UsageError("give NAME, SRC and --out DIR, or --list alone")
    if name not in SETS:
        raise ConfigError(f"no importer '{name}'; it knows {', '.join(SETS)}")
    click.echo(SETS[name].facts.notice(), err=True)
    if not accept_terms:
        raise ConfigError("nothing was copied; read the terms above and add --accept-terms")
    summary = import_set(
        name,
        src,
        out,
        options=ReadOptions(quality_tables=eyeq, prepared=prepared),
        rule=SplitRule(seed=seed, val_share=val_share, test_share=test_share),
        link=link,
        progress=_show(),
    )
    record = {**summary.to_dict(), "notice": NOTICE}
    click.echo(json.dumps(record, ensure_ascii=False) if as_json else _text(summary))


def _show() -> Callable[[str, int, int], None] | None:
    """A progress line on a terminal's stderr; silent elsewhere, so that logs stay short."""
    if not sys.stderr.isatty():
        return None

    def show(what: str, done: int, total: int) -> None:
        if done == total or done % _EVERY == 0:
            end = "\n" if done == total else ""
            click.echo(f"\r\033[K{what}: {done} of {total}{end}", err=True, nl=False)

    return show


def _mapping_text() -> str:
    from train.imports.facts import CHECKED
    from train.imports.sets import SETS
    from train.imports.vocabulary import LABELS

    lines = ["labels:"] + [f"  {name:<22} {meaning}" for name, meaning in LABELS.items()]
    for name, layout in SETS.items():
        facts = layout.facts
        lines += ["", f"{name}: {facts.title}", f"  terms: {facts.terms}"]
        lines += [f"  {said}  ->  {taken}" for said, taken in facts.mapping]
        lines += [f"  patients: {facts.patients}", f"  split: {facts.split}"]
        lines.append(f"  checked on {CHECKED[facts.checked]}")
    return "\n".join(lines)


def _text(summary: ImportSummary) -> str:
    """Counts for people; every row left out is in import.json."""
    record = summary.to_dict()
    lines = [f"{record['set']}: {len(summary.rows)} photographs, split: {record['split']}"]
    for name, count in record["counts"].items():
        lines.append(
            f"  {name:<6} {count['patients']:>7} patients {count['photographs']:>7} photographs"
        )
    for name, count in record["labels"].items():
        lines.append(f"  {name:<22} {count['known']:>7} known {count['above_0']:>7} above 0")
    lines += [f"  mask {name:<17} {num:>7}" for name, num in record["masks"].items() if num]
    copies = sum(len(names) for names in summary.merged.values())
    lines += [f"{copies} copies of photographs merged"] if copies else []
    if summary.left_out:
        lines.append(f"{len(summary.left_out)} left out, each in import.json:")
        lines += [f"  {one.what}: {one.reason}" for one in summary.left_out[:_SHOWN]]
    lines += [f"note: {note}" for note in record["notes"]]
    return "\n".join([*lines, NOTICE])
