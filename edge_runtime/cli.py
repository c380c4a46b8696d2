"""The `edge-screen` command: what a device can do, plus workstation commands where installed."""

from __future__ import annotations

import os
from pathlib import Path

import click

from edge_runtime import __version__
from edge_runtime.commands.bench_cli import bench
from edge_runtime.commands.engine_cli import engine
from edge_runtime.commands.group import CommandGroup
from edge_runtime.commands.options import (
    bundle_argument,
    cache_dir_option,
    example,
    json_option,
    precision_option,
    trusted_keys_option,
)
from edge_runtime.commands.screen_cli import screen

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
  10 bundle not reproduced here (verify, screen with TensorRT)    130 interrupted (Ctrl-C)
Research use only; not a medical device.
"""


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
main.add_command(screen)


@main.command(
    short_help="Show what a bundle is and who signed it.",
    epilog=example("edge-screen inspect BUNDLE"),
)
@bundle_argument
@click.option("--allow-unsigned", is_flag=True, help="Show a bundle without checking who made it.")
@trusted_keys_option
@json_option
def inspect(bundle: Path, allow_unsigned: bool, trusted_keys: Path | None, as_json: bool) -> None:
    """Show what a bundle is: labels, operating points, INT8 gate, signature."""
    from edge_runtime.commands.checks import run_inspect

    run_inspect(bundle, trusted_keys, require_signature=not allow_unsigned, as_json=as_json)


@main.command(
    short_help="Check that this machine reproduces the bundle.",
    epilog=example("edge-screen verify BUNDLE --engine tensorrt --images DIR"),
)
@bundle_argument
@click.option(
    "--engine",
    type=click.Choice(["onnxruntime", "tensorrt"]),
    help="Hold this engine against FP32 and INT8 on ONNX Runtime, too.",
)
@precision_option
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
@cache_dir_option
@trusted_keys_option
@json_option
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
    from edge_runtime.checks.agreement import EngineRequest
    from edge_runtime.commands.checks import VerifyRequest, run_verify

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
    epilog=example("edge-screen doctor"),
)
@json_option
def doctor(as_json: bool) -> None:
    """Say what this machine has, which engine would run, and what is wrong."""
    from edge_runtime.commands.checks import run_doctor

    click.get_current_context().exit(run_doctor(as_json=as_json))
