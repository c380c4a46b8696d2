"""How fast pretraining steps go, what share of them waits for data, and what two processes bring.

    python benchmarks/pretrain_throughput.py
    python benchmarks/pretrain_throughput.py --data runs/eyes --json

Every variant runs several times, in turn, so that a busy moment of the machine does not fall
on one of them alone; medians are given with the smallest and the largest. Speed leaves the first 20
steps of a run out, the share of waiting its first step (in which workers start). Without
--data it makes synthetic eyes in a temporary folder.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

WARM_STEPS = 20  # progress is told every 20 steps, so this is the first time it is told
VARIANTS = ("memory", "shards", "slices_1_process", "slices_2_processes")


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Data set; else synthetic eyes.")
@click.option("--num-patients", default=250, show_default=True, help="Synthetic patients.")
@click.option("--image-px", default=128, show_default=True, help="Side of synthetic photographs.")
@click.option("--size-px", default=96, show_default=True, help="Side of the network input.")
@click.option("--batch-size", default=64, show_default=True)
@click.option("--num-steps", default=80, show_default=True, help="Steps timed, after 20 others.")
@click.option("--workers", default=1, show_default=True, help="Worker processes for shards.")
@click.option("--repeats", default=3, show_default=True)
@click.option("--compile-blocks", is_flag=True, help="Compile the transformer blocks.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--variant", type=click.Choice(VARIANTS), hidden=True, help="One timed run.")
@click.option("--shards", type=click.Path(path_type=Path), hidden=True)
def main(as_json: bool, variant: str | None, **options: Any) -> None:
    """Time pretraining from memory and from shards, on one and on two processes."""
    if variant is not None:
        _timed_run(variant, options)
        return
    with tempfile.TemporaryDirectory() as folder:
        options["data"] = options["data"] or _synthetic_eyes(Path(folder) / "eyes", options)
        options["shards"] = _pack(options["data"], Path(folder) / "shards", options["size_px"])
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
        for _ in range(options["repeats"]):
            for name in VARIANTS:
                runs[name].append(_start(name, options))
    report = {
        "options": {k: str(v) if isinstance(v, Path) else v for k, v in options.items()},
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        **{name: _summary(runs[name]) for name in VARIANTS},
    }
    _show(report, as_json)


def _synthetic_eyes(folder: Path, options: dict[str, Any]) -> Path:
    from train.phantom.writer import generate_dataset

    generate_dataset(
        folder, num_patients=options["num_patients"], seed=0, image_px=options["image_px"]
    )
    return folder


def _pack(data: Path, out: Path, size_px: int) -> Path:
    from train.data.shards import write_shards

    write_shards(data, out, size_px=size_px, shard_mib=16)
    return out


def _start(variant: str, options: dict[str, Any]) -> dict[str, float]:
    """One run in fresh processes; what rank 0 prints."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [
        sys.executable,
        *(torchrun if variant == "slices_2_processes" else []),
        *(__file__, "--variant", variant),
    ]
    for name in ("data", "shards", "size_px", "batch_size", "num_steps", "workers"):
        command += [f"--{name.replace('_', '-')}", str(options[name])]
    command += ["--compile-blocks"] if options["compile_blocks"] else []
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _timed_run(variant: str, options: dict[str, Any]) -> None:
    from train.device import CPU
    from train.engine.distributed import current_ranks, process_group
    from train.engine.settings import EngineConfig
    from train.pretrain import pretrain_from

    config = _config(options)
    slices = 2 if variant.startswith("slices") else 1
    engine = EngineConfig(num_slices=slices, compile_blocks=options["compile_blocks"])
    with process_group(CPU) as device:
        source = _source(variant, options, config)
        clock = _Clock()
        done = pretrain_from(
            source, config, fingerprint="", progress=clock, device=device, engine=engine
        )
        if current_ranks().is_main:
            seconds = clock.seconds()
            images = options["num_steps"] * min(options["batch_size"], len(source))
            total = done.seconds["total"]
            waiting = done.seconds["waiting"] / total
            click.echo(
                json.dumps({"images_per_second": images / seconds, "waiting_share": waiting})
            )


class _Clock:
    """Called with progress: notes when the warm steps end and when the last one does."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, *_: object) -> None:
        self.times.append(time.perf_counter())

    def seconds(self) -> float:
        return self.times[-1] - self.times[0]


def _config(options: dict[str, Any]) -> Any:
    from train.encoder import EncoderConfig
    from train.pretrain import PretrainConfig

    return PretrainConfig(
        num_steps=WARM_STEPS + options["num_steps"],
        batch_size=options["batch_size"],
        encoder=EncoderConfig(size_px=options["size_px"]),
    )


def _source(variant: str, options: dict[str, Any], config: Any) -> Any:
    import torch

    from train.data.shard_reader import ShardReader
    from train.dataset_arrays import load_split
    from train.engine.shard_source import ShardSource
    from train.engine.source import MemorySource
    from train.oct_targets import make_oct_targets

    if variant == "shards":
        reader = ShardReader(options["shards"])
        return ShardSource(
            reader,
            torch.arange(len(reader)),
            size_px=options["size_px"],
            oct_target=config.oct_target,
            num_workers=options["workers"],
        )
    data = load_split(options["data"], "train", size_px=options["size_px"], with_oct=True)
    assert data.scans_nvzx is not None
    targets = torch.from_numpy(make_oct_targets(data.scans_nvzx, config.oct_target))
    return MemorySource(data.images_tensor(), targets, torch.arange(len(data)))


def _summary(runs: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    found = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        found[name] = {
            "median": statistics.median(values),
            "smallest": min(values),
            "largest": max(values),
        }
    return found


def _show(report: dict[str, Any], as_json: bool) -> None:
    one, two = (report[name]["images_per_second"]["median"] for name in VARIANTS[2:])
    report["speed_of_2_processes_over_1"] = two / one
    if as_json:
        click.echo(json.dumps(report))
        return
    click.echo(f"CPUs: {report['cpus']}, load average {report['load_average']:.1f}")
    click.echo(f"{'variant':22s}{'images a second':>28s}{'waiting for data':>28s}")
    for name in VARIANTS:
        speed, share = report[name]["images_per_second"], report[name]["waiting_share"]
        click.echo(
            f"{name:22s}{speed['median']:10.0f} [{speed['smallest']:6.0f}, {speed['largest']:6.0f}]"
            f"{share['median']:12.1%} [{share['smallest']:6.1%}, {share['largest']:6.1%}]"
        )
    click.echo(f"2 processes are {two / one:.2f} times as fast as 1, on the same slices")


if __name__ == "__main__":
    main()
