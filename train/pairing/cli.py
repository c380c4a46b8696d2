"""The command `edge-screen data pair`: a raw list becomes a data set of triples."""

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
    from train.pairing.raw import RawList
    from train.pairing.records import PairingSummary

__all__ = ["pair"]

_LAYOUTS = ("gamma", "mmc-amd", "olives", "topcon-mm")
_EVERY = 100  # files or visits between two looks of the progress line


@click.command()
@click.argument("raw_index", metavar="RAW_INDEX", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New or empty folder.")
@click.option(
    "--layout", type=click.Choice(_LAYOUTS), help="RAW_INDEX is the folder of this published set."
)
@click.option(
    "--eyes",
    type=click.Path(path_type=Path),
    help="CSV eye_id, eye[, patient_id, acquired] for sets that do not name eyes.",
)
@click.option("--label", "labels", multiple=True, help="Column of the CSV to keep; repeatable.")
@click.option(
    "--allow-missing",
    type=click.Choice(["oct_v", "oct"]),
    help="A visit may lack its vertical scan, or any OCT.",
)
@click.option(
    "--pseudonymize",
    metavar="KEYFILE",
    type=click.Path(path_type=Path),
    help="Replace patient ids by a keyed hash.",
)
@click.option("--site", default="", help="Site of every row (DICOM and published sets).")
@click.option(
    "--dicom-region",
    type=click.Choice(["macula"]),
    help="OCT files that do not name their region are macular.",
)
@click.option(
    "--cfp-field", "cfp_fields", multiple=True, help="Field to pair; repeatable. [macula, empty]"
)
@click.option("--allow-grey-cfp", is_flag=True, help="Accept photographs without color.")
@click.option(
    "--oct-size",
    nargs=2,
    type=int,
    metavar="ROWS COLUMNS",
    help="Resample every B-scan to this many pixels.",
)
@click.option(
    "--shares",
    nargs=3,
    type=float,
    default=(0.7, 0.1, 0.2),
    show_default=True,
    help="Of patients in train, val and test.",
)
@click.option("--split-salt", default="edge-screen pairing", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def pair(
    raw_index: Path,
    out: Path,
    layout: str | None,
    eyes: Path | None,
    labels: tuple[str, ...],
    allow_missing: str | None,
    pseudonymize: Path | None,
    site: str,
    dicom_region: str | None,
    cfp_fields: tuple[str, ...],
    allow_grey_cfp: bool,
    oct_size: tuple[int, int] | None,
    shares: tuple[float, float, float],
    split_salt: str,
    as_json: bool,
) -> None:
    """Turn the raw list RAW_INDEX into strict same-eye, same-day triples in DIR.

    RAW_INDEX is a CSV file, a folder of DICOM files, or with --layout the folder of a
    published set. Every raw row ends in a triple or, with its reason, in DIR/audit.csv.
    Exit code 6: nothing could be paired, or the list cannot be read.

    \b
    Example:
      edge-screen data pair hospital/raw.csv --out runs/pairs --label dr_grade
      edge-screen data pair hospital/dicom --out runs/pairs --pseudonymize key.bin
    """  # noqa: D301 - click wants the character backspace, not a backslash
    from train.pairing.pair import pair_list
    from train.pairing.privacy import Pseudonyms
    from train.pairing.settings import PairSettings

    settings = PairSettings(
        allow_missing=allow_missing or "none",
        cfp_fields=tuple(cfp_fields) or PairSettings().cfp_fields,
        shares=shares,
        salt=split_salt,
        oct_size_px=oct_size,
        allow_grey_cfp=allow_grey_cfp,
    )
    pseudonyms = Pseudonyms.from_file(pseudonymize) if pseudonymize else None
    raw = _read(raw_index, layout, eyes=eyes, labels=labels, site=site, region=dicom_region)
    summary = pair_list(raw, out, settings=settings, pseudonyms=pseudonyms, progress=_show())
    if as_json:
        click.echo(json.dumps({**summary.to_dict(), "notice": NOTICE}, allow_nan=False))
    else:
        click.echo(_text(summary))


def _read(
    path: Path,
    layout: str | None,
    *,
    eyes: Path | None,
    labels: tuple[str, ...],
    site: str,
    region: str | None,
) -> RawList:
    """The raw list of any kind; an option that this kind does not read is refused."""
    from train.pairing.csv_list import read_csv_list
    from train.pairing.dicom_list import read_dicom_folder
    from train.pairing.layouts import LAYOUTS, LayoutOptions
    from train.pairing.layouts.eyes import read_eye_table

    kind = "layout" if layout else "dicom" if path.is_dir() else "csv"
    for option, value, kinds in (
        ("--eyes", eyes, ("layout",)),
        ("--label", labels, ("csv",)),
        ("--site", site, ("layout", "dicom")),
        ("--dicom-region", region, ("dicom",)),
    ):
        if value and kind not in kinds:
            raise ConfigError(f"{option} has no meaning for this list ({kind}); leave it out")
    if layout:
        table = read_eye_table(eyes) if eyes else None
        return LAYOUTS[layout](path, LayoutOptions(eyes=table, site=site))
    if kind == "dicom":
        return read_dicom_folder(path, site=site, assume_macula=region == "macula")
    return read_csv_list(path, labels=labels)


def _show() -> Callable[[str, int, int], None] | None:
    """A progress line on a terminal's stderr; silent elsewhere, so that logs stay short."""
    if not sys.stderr.isatty():
        return None

    def show(what: str, done: int, total: int) -> None:
        if done == total or done % _EVERY == 0:
            end = "\n" if done == total else ""
            click.echo(f"\r\033[K{what}: {done} of {total}{end}", err=True, nl=False)

    return show


def _text(summary: PairingSummary) -> str:
    """Counts for people; never a row's content."""
    record = summary.to_dict()
    lines = [
        f"{record['visits']} visits from {record['rows']['paired']} of {record['source']['rows']} "
        f"rows ({record['source']['kind']})",
    ]
    for name, count in record["by_split"].items():
        lines.append(f"  {name:<6} {count['patients']:>7} patients {count['visits']:>7} visits")
    for site, count in record["by_site"].items():
        lines.append(f"  site {site}: {count['visits']} visits, {count['rejected']} rows rejected")
    if record["rows"]["rejected"]:
        lines.append(f"{record['rows']['rejected']} rows rejected, each in audit.csv:")
        lines += [f"  {name:<20} {num:>7}" for name, num in record["by_reason"].items() if num]
    for name, count in record["label_conflicts"].items():
        lines.append(f"label {name}: {count} visits whose images disagree; unknown there")
    lines += [f"note: {note}" for note in record["notes"]]
    return "\n".join([*lines, NOTICE])
