"""The command `edge-screen screen`, declared without heavy imports."""

from __future__ import annotations

from pathlib import Path

import click

from edge_runtime.commands.options import (
    allow_unproven_option,
    bundle_argument,
    cache_dir_option,
    engine_option,
    example,
    json_option,
    precision_option,
    provider_option,
    trusted_keys_option,
)

__all__ = ["screen"]

_file = click.Path(path_type=Path, dir_okay=False)
_folder = click.Path(path_type=Path, file_okay=False)


@click.command(
    short_help="Screen images: refer, no refer or ungradable.",
    epilog=example(
        "edge-screen screen BUNDLE --od right.jpg --os left.jpg --json",
        "edge-screen screen BUNDLE photos --out answers --html report.html",
    ),
)
@bundle_argument
@click.argument("images", type=click.Path(path_type=Path), nargs=-1, metavar="[IMAGE|FOLDER]...")
@click.option("--recursive", is_flag=True, help="Take the sub-folders of every FOLDER, too.")
@click.option("--od", type=click.Path(path_type=Path), metavar="IMAGE", help="Right eye.")
@click.option("--os", "os_", type=click.Path(path_type=Path), metavar="IMAGE", help="Left eye.")
@click.option("--examination-id", metavar="TEXT", help="Copied into the result.")
@click.option(
    "--examinations",
    type=_file,
    metavar="FILE",
    help="CSV with columns examination_id, eye, path[, field][, sha256]; a row a picture.",
)
@click.option(
    "--out",
    type=_folder,
    metavar="DIR",
    help="Keep results.jsonl there; a run that was cut off goes on from it.",
)
@click.option("--csv", "csv_path", type=_file, metavar="FILE", help="Write a table, a row an eye.")
@click.option("--html", "html_path", type=_file, metavar="FILE", help="Write a report page.")
@click.option("--with-names", is_flag=True, help="Name the image files in --csv and --html.")
@click.option("--with-pictures", is_flag=True, help="Show the preprocessed pictures in --html.")
@click.option(
    "--evidence-dir",
    type=_folder,
    metavar="DIR",
    help="Write a PNG a picture there: model attention, not lesions.",
)
@precision_option
@allow_unproven_option
@click.option(
    "--isolate", is_flag=True, help="Decode in a child process with capped memory and time."
)
@engine_option
@provider_option
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Examinations at a time. [default: the processors that the engine can use]",
)
@cache_dir_option
@trusted_keys_option
@json_option
def screen(
    bundle: Path,
    images: tuple[Path, ...],
    recursive: bool,
    od: Path | None,
    os_: Path | None,
    examination_id: str | None,
    examinations: Path | None,
    out: Path | None,
    csv_path: Path | None,
    html_path: Path | None,
    with_names: bool,
    with_pictures: bool,
    evidence_dir: Path | None,
    precision: str,
    allow_unproven_int8: bool,
    engine: str,
    isolate: bool,
    provider: str,
    threads: int | None,
    cache_dir: Path | None,
    trusted_keys: Path | None,
    as_json: bool,
) -> None:
    """Screen every IMAGE on its own, the two eyes of one patient, or a list of examinations.

    A FOLDER stands for the image files in it, sorted; so does a quoted pattern ("photos/*.jpg").
    With --json every examination is one line (JSON Lines), in the order of the images, with
    its input_index. The exit code is 3 when an examination is ungradable; a missing or
    unreadable image is ungradable, never no refer. With --od alone the left eye counts as
    missing; to screen one eye, give it as IMAGE. Progress goes to a terminal only.
    """
    from edge_runtime.commands.screen import ScreenInputs, ScreenRequest, run_screen
    from edge_runtime.reports.writer import ReportFiles

    both = od is not None or os_ is not None
    if [both, bool(images), examinations is not None].count(True) != 1:
        raise click.UsageError("Give either IMAGE..., or --od and --os, or --examinations.")
    if examination_id is not None and (len(images) > 1 or examinations is not None):
        raise click.UsageError("--examination-id belongs to one examination; give one IMAGE.")
    if recursive and not images:
        raise click.UsageError("--recursive belongs to a FOLDER.")
    if (with_names and csv_path is html_path is None) or (with_pictures and html_path is None):
        raise click.UsageError(
            "--with-names belongs to --csv and --html, --with-pictures to --html."
        )
    if evidence_dir is not None and out is not None:
        raise click.UsageError(
            "--evidence-dir names pictures by their place in this run, --out goes on with earlier "
            "runs; give one of them."
        )
    request = ScreenRequest(
        bundle_dir=bundle,
        inputs=ScreenInputs(
            images=images,
            recursive=recursive,
            od=od,
            os_=os_,
            examination_id=examination_id,
            list_path=examinations,
        ),
        record_dir=out,
        reports=ReportFiles(
            csv_path=csv_path,
            html_path=html_path,
            with_names=with_names,
            with_pictures=with_pictures,
        ),
        evidence_dir=evidence_dir,
        precision=precision,
        engine=engine,
        provider=provider,
        num_threads=threads,
        allow_unproven_int8=allow_unproven_int8,
        isolate=isolate,
        cache_dir=cache_dir,
        trusted_keys=trusted_keys,
        as_json=as_json,
    )
    click.get_current_context().exit(run_screen(request))
