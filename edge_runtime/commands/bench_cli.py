"""The command `edge-screen bench`, declared without heavy imports."""

from __future__ import annotations

from pathlib import Path

import click

from edge_runtime.commands.options import (
    cache_dir_option,
    example,
    json_option,
    trusted_keys_option,
)

__all__ = ["bench"]

_file = click.Path(path_type=Path, dir_okay=False)
_MODES = ("latency", "throughput", "idle-gap", "cold-start", "soak")


@click.command(
    short_help="Time every stage here, FP32 beside INT8.",
    epilog=example(
        "edge-screen bench BUNDLE photo.jpg --repeats 200 --raw before.json",
        "edge-screen bench BUNDLE photo.jpg --mode throughput --workers 4",
        "edge-screen bench --compare before.json after.json",
    ),
)
@click.argument("bundle", type=click.Path(path_type=Path), metavar="BUNDLE", required=False)
@click.argument("images", type=click.Path(path_type=Path), nargs=-1, metavar="[IMAGE]...")
@click.option(
    "--mode",
    type=click.Choice(_MODES),
    default="latency",
    show_default=True,
    help="latency: one picture after another; throughput: many at once; idle-gap: the first "
    "after a pause; cold-start: a fresh process; soak: without a pause for --minutes.",
)
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=50,
    show_default=True,
    help="Rounds, pauses or starts.",
)
@click.option("--warmup", type=click.IntRange(0), default=5, show_default=True)
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Inside one run of ONNX Runtime.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    help="Pictures at a time, of --mode throughput.",
)
@click.option(
    "--gap-s",
    type=click.FloatRange(0.0),
    default=5.0,
    show_default=True,
    help="Pause of --mode idle-gap, in seconds.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0.0, min_open=True),
    default=10.0,
    show_default=True,
    help="Length of --mode soak.",
)
@click.option(
    "--engine",
    type=click.Choice(["onnxruntime", "tensorrt"]),
    default="onnxruntime",
    show_default=True,
    help="tensorrt: its FP32 and INT8 engines must be built; FP16 is timed where it is, too.",
)
@click.option(
    "--precision",
    type=click.Choice(["int8", "fp32", "fp16"]),
    default="int8",
    show_default=True,
    help="Of every mode but latency, which times them all.",
)
@click.option("--raw", type=_file, metavar="FILE", help="Keep every sample there as JSON.")
@click.option(
    "--compare",
    type=_file,
    nargs=2,
    metavar="A B",
    help="Compare two files of --raw and measure nothing; unlike conditions are refused.",
)
@click.option(
    "--layers",
    type=_file,
    metavar="FILE",
    help="Write the time of every layer of the INT8 engine there as JSON; TensorRT only.",
)
@cache_dir_option
@trusted_keys_option
@json_option
def bench(
    bundle: Path | None,
    images: tuple[Path, ...],
    mode: str,
    repeats: int,
    warmup: int,
    threads: int,
    workers: int,
    gap_s: float,
    minutes: float,
    engine: str,
    precision: str,
    raw: Path | None,
    compare: tuple[Path, Path] | None,
    layers: Path | None,
    cache_dir: Path | None,
    trusted_keys: Path | None,
    as_json: bool,
) -> None:
    """Time this machine: every stage, FP32 and INT8 interleaved, with p50, p90, p99 and p99.9.

    Without IMAGE the bundle's own encoded golden picture is used, which is small. The report
    names the engine, the kind of memory, and power mode, clocks and temperatures where the
    system tells them. --compare refuses measurements of unlike conditions.
    """
    from edge_runtime.commands.bench import BenchRequest, run_bench_command, run_compare

    if compare:
        if bundle is not None:
            raise click.UsageError("--compare measures nothing; leave BUNDLE and IMAGE out.")
        run_compare(*compare, as_json=as_json)
        return
    if bundle is None:
        raise click.UsageError("Missing argument 'BUNDLE'.")
    if layers is not None and (engine != "tensorrt" or mode != "latency"):
        raise click.UsageError("--layers needs --engine tensorrt, and --mode latency.")
    request = BenchRequest(
        bundle_dir=bundle,
        images=images,
        mode=mode,
        repeats=repeats,
        warmup=warmup,
        num_threads=threads,
        num_workers=workers,
        gap_s=gap_s,
        minutes=minutes,
        engine=engine,
        precision=precision,
        raw_path=raw,
        layers_path=layers,
        cache_dir=cache_dir,
        trusted_keys=trusted_keys,
    )
    run_bench_command(request, as_json=as_json)
