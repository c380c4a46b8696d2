"""The `edge-screen` command: what a device can do, plus workstation commands where installed."""

from __future__ import annotations

import os
from pathlib import Path

import click

from edge_runtime import __version__
from edge_runtime.bench_cli import bench
from edge_runtime.command_group import CommandGroup
from edge_runtime.engine_cli import engine

__all__ = ["main"]

_EPILOG = """\b
Example:
  edge-screen screen BUNDLE right.jpg left.jpg

\b
Exit codes:
  0 done; every examination ended in refer or no refer
  1 failed in a way without a code of its own
  2 wrong usage or setting    3 an examination is ungradable
  4 bundle refused            5 inference engine failed
  6, 7, 9 workstation commands: data set, checkpoint, parity
  8 the INT8 model has not passed its gate
  10 bundle not reproduced here (verify, screen with TensorRT)
Research use only; not a medical device.
"""
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
_trusted_keys = click.option(
    "--trusted-keys",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Public key file, or folder of *.pub. [default: EDGE_SCREEN_TRUSTED_KEYS, "
    "then the folder trusted_keys beside the bundle]",
)
_precision = click.option(
    "--precision",
    type=click.Choice(["int8", "fp32", "fp16"]),
    default="int8",
    show_default=True,
    help="fp16 is for TensorRT only.",
)
_engine = click.option(
    "--engine",
    type=click.Choice(["auto", "onnxruntime", "tensorrt"]),
    default="auto",
    show_default=True,
    help="auto: TensorRT where its engine was built, else ONNX Runtime; the result says which.",
)
_cache_dir = click.option(
    "--cache-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where `engine build` keeps engines. [default: EDGE_SCREEN_ENGINE_CACHE, then "
    "~/.cache/edge-screen/engines]",
)
_bundle = click.argument("bundle", type=click.Path(path_type=Path), metavar="BUNDLE")


def _example(command: str) -> str:
    return f"\b\nExample:\n  {command}"


@click.group(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@click.version_option(__version__, prog_name="edge-screen", message="%(prog)s %(version)s")
def main() -> None:
    """Screen retinal photographs: refer, no refer, or ungradable."""
    # Before NumPy is imported, and only for this process: halves the CPU time of a start.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


main.add_command(bench)
main.add_command(engine)


@main.command(
    short_help="Screen images: refer, no refer or ungradable.",
    epilog=_example("edge-screen screen BUNDLE --od right.jpg --os left.jpg --json"),
)
@_bundle
@click.argument("images", type=click.Path(path_type=Path), nargs=-1, metavar="[IMAGE]...")
@click.option("--od", type=click.Path(path_type=Path), metavar="IMAGE", help="Right eye.")
@click.option("--os", "os_", type=click.Path(path_type=Path), metavar="IMAGE", help="Left eye.")
@click.option("--examination-id", metavar="TEXT", help="Copied into the result.")
@click.option(
    "--evidence-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write a PNG an eye there: model attention, not lesions.",
)
@_precision
@click.option(
    "--allow-unproven-int8",
    is_flag=True,
    help="Take an INT8 model whose gate did not pass; every result says so.",
)
@_engine
@_cache_dir
@_trusted_keys
@_json
def screen(
    bundle: Path,
    images: tuple[Path, ...],
    od: Path | None,
    os_: Path | None,
    examination_id: str | None,
    evidence_dir: Path | None,
    precision: str,
    allow_unproven_int8: bool,
    engine: str,
    cache_dir: Path | None,
    trusted_keys: Path | None,
    as_json: bool,
) -> None:
    """Screen every IMAGE on its own, or the two eyes of one patient with --od and --os.

    With --json every examination is one line (JSON Lines), in the order of the images, with
    its input_index. The exit code is 3 when an examination is ungradable; a missing or
    unreadable image is ungradable, never no refer. With --od alone the left eye counts as
    missing; to screen one eye, give it as IMAGE.
    """
    from edge_runtime.commands import ScreenRequest, run_screen

    both = od is not None or os_ is not None
    if both == bool(images):
        raise click.UsageError("Give either IMAGE... or --od and --os.")
    if examination_id is not None and len(images) > 1:
        raise click.UsageError("--examination-id belongs to one examination; give one IMAGE.")
    request = ScreenRequest(
        bundle_dir=bundle,
        inputs=((od, os_),) if both else tuple((image,) for image in images),
        examination_id=examination_id,
        evidence_dir=evidence_dir,
        precision=precision,
        trusted_keys=trusted_keys,
        allow_unproven_int8=allow_unproven_int8,
        engine=engine,
        cache_dir=cache_dir,
    )
    click.get_current_context().exit(run_screen(request, as_json=as_json))


@main.command(
    short_help="Show what a bundle is and who signed it.",
    epilog=_example("edge-screen inspect BUNDLE"),
)
@_bundle
@click.option("--allow-unsigned", is_flag=True, help="Show a bundle without checking who made it.")
@_trusted_keys
@_json
def inspect(bundle: Path, allow_unsigned: bool, trusted_keys: Path | None, as_json: bool) -> None:
    """Show what a bundle is: labels, operating points, INT8 gate, signature."""
    from edge_runtime.commands import run_inspect

    run_inspect(bundle, trusted_keys, require_signature=not allow_unsigned, as_json=as_json)


@main.command(
    short_help="Check that this machine reproduces the bundle.",
    epilog=_example("edge-screen verify BUNDLE --engine tensorrt --images DIR"),
)
@_bundle
@click.option(
    "--engine",
    type=click.Choice(["onnxruntime", "tensorrt"]),
    help="Hold this engine against FP32 and INT8 on ONNX Runtime, too.",
)
@_precision
@click.option(
    "--images",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Photographs that the engine is held against on, beside the golden pictures.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the report there as JSON, and its signature to FILE.sig.",
)
@click.option(
    "--signing-key",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Private key of this device, to sign the report with.",
)
@_cache_dir
@_trusted_keys
@_json
def verify(
    bundle: Path,
    engine: str | None,
    precision: str,
    images: Path | None,
    report: Path | None,
    signing_key: Path | None,
    cache_dir: Path | None,
    trusted_keys: Path | None,
    as_json: bool,
) -> None:
    """Check signature and hashes, and that this machine reproduces the golden vectors.

    With --engine every golden picture, and every photograph of --images, also goes through FP32
    and INT8 on ONNX Runtime and through the engine: probabilities within the bundle's tolerance,
    the same decisions, every one that differs listed. The exit code is 10 when a check failed.
    """
    from edge_runtime.agreement import EngineRequest
    from edge_runtime.commands import VerifyRequest, run_verify

    if engine is None and images is not None:
        raise click.UsageError("--images belongs to --engine; name the engine.")
    if (report is None) != (signing_key is None):
        raise click.UsageError("Give --report and --signing-key together.")
    wanted = None
    if engine is not None:
        wanted = EngineRequest(
            engine=engine, precision=precision, pictures_dir=images, cache_dir=cache_dir
        )
    request = VerifyRequest(
        bundle_dir=bundle,
        trusted_keys=trusted_keys,
        engine=wanted,
        report_path=report,
        signing_key=signing_key,
    )
    run_verify(request, as_json=as_json)


@main.command(
    short_help="Say what this machine has and what is wrong.",
    epilog=_example("edge-screen doctor"),
)
@_json
def doctor(as_json: bool) -> None:
    """Say what this machine has, which engine would run, and what is wrong."""
    from edge_runtime.commands import run_doctor

    click.get_current_context().exit(run_doctor(as_json=as_json))
