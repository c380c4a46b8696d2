r"""INT8 ranges: time, memory and accuracy beside ONNX Runtime's calibrators, NNCF and ModelOpt.

    python benchmarks/int8_calibration.py --size-px 224 --num-images 200
    python benchmarks/int8_calibration.py --size-px 512 --num-images 24 --long-images 500
    python benchmarks/int8_calibration.py --model runs/demo/bundle/model.fp32.onnx \
        --data runs/demo/data --labels macular_edema --accuracy-only

Every run is a process of its own and the variants take turns, so that a busy moment of the
machine does not fall on one of them alone. Timed is the whole way from the FP32 file to the
ranges of all tensors: opening the session, running the images, choosing the thresholds. Images
are preprocessed before and read from a file one at a time. Memory is the peak resident set of the
process, libraries included. Ours runs the optimised graph with the tensors to
quantise as outputs; ONNX Runtime's calibrators are given the same operators to look at.

Without --model the student is an untrained timm network with BatchNorm statistics of the images;
without --data the images are blurred noise in a disc. Accuracy needs both: ranges from `train`,
figures on `val`; nothing of `test` is read. NNCF and ModelOpt run from environments of their own
(--nncf-python, --modelopt-python: pip install nncf onnx, or nvidia-modelopt[onnx] there).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from int8_variants import OURS, VARIANTS, prepare_images, prepare_model

_PATH = click.Path(path_type=Path)


@click.command()
@click.option(
    "--model", type=_PATH, help="FP32 student as export writes it; else an untrained one."
)
@click.option("--arch", default="mobilenetv4_conv_small", show_default=True, help="Untrained one.")
@click.option("--data", type=_PATH, help="Data set with train and val; else synthetic discs.")
@click.option("--size-px", default=224, show_default=True, help="Side of the untrained student.")
@click.option("--num-images", default=200, show_default=True, help="Images of each timed run.")
@click.option("--long-images", default=0, help="Also run ours on so many, for its memory.")
@click.option("--repeats", default=3, show_default=True)
@click.option("--variants", default=",".join(VARIANTS), show_default=True)
@click.option("--labels", default="macular_edema", show_default=True, help="Of the student.")
@click.option("--accuracy-only", is_flag=True, help="No timing.")
@click.option("--accuracy-images", default=256, show_default=True, help="Train images for ranges.")
@click.option("--seed", default=0, show_default=True)
@click.option("--nncf-python", type=_PATH, help="Interpreter of an environment with nncf.")
@click.option("--modelopt-python", type=_PATH, help="Interpreter of one with nvidia-modelopt.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(as_json: bool, **options: Any) -> None:
    """Measure INT8 ranges against what a user would pick instead."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options["model"] = prepare_model(folder, options)
        report: dict[str, Any] = {
            "options": {k: str(v) if isinstance(v, Path) else v for k, v in options.items()},
            "cpus": os.cpu_count(),
            "load_average": os.getloadavg()[0],
        }
        if not options["accuracy_only"]:
            report["speed"] = _measure_speed(folder, options)
        if options["data"] is not None:
            from int8_accuracy import measure_accuracy

            report["accuracy"] = measure_accuracy(folder, options)
    click.echo(json.dumps(report, indent=2) if as_json else "\n".join(_lines(report)))


def _measure_speed(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    counts = [options["num_images"], options["num_images"] // 2, options["long_images"]]
    images = prepare_images(folder, options, max(counts))
    names = options["variants"].split(",")
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(options["repeats"]):
        for name in names:
            runs[name].append(_start(name, options["model"], images, counts[0]))
    half = {name: _start(name, options["model"], images, counts[1]) for name in names}
    long = _start(OURS, options["model"], images, counts[2]) if counts[2] else None
    return {
        "variants": {name: _summary(runs[name], half[name], runs[OURS]) for name in names},
        "ours_long": None if long is None else {k: long[k] for k in ("wall_s", "peak_mib")},
    }


def _start(variant: str, model: Path, images: Path, count: int) -> dict[str, Any]:
    """One run in a process of its own."""
    script = Path(__file__).with_name("int8_variants.py")
    command = [sys.executable, str(script), variant, str(model), str(images), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise click.ClickException(f"{variant} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _summary(
    runs: list[dict[str, Any]], half: dict[str, Any], ours: list[dict[str, Any]]
) -> dict[str, Any]:
    """Medians, spreads, ratios to ours of the same turn, and memory at both counts."""
    spread = {
        name: [f(run[name] for run in runs) for f in (statistics.median, min, max)]
        for name in ("wall_s", "cpu_s")
    }
    ratios = {
        name: [f(a[name] / b[name] for a, b in zip(runs, ours, strict=True)) for f in
               (statistics.median, min, max)]
        for name in ("wall_s", "cpu_s")
    }  # fmt: skip
    common = sorted(runs[0]["ranges"].keys() & ours[0]["ranges"].keys())
    thresholds = sorted(runs[0]["ranges"][t] / ours[0]["ranges"][t] for t in common)
    return {
        **spread,
        "times_ours": ratios,
        "peak_mib": statistics.median(run["peak_mib"] for run in runs),
        "peak_mib_half_the_images": half["peak_mib"],
        "num_tensors": len(runs[0]["ranges"]),
        "thresholds_to_ours": [
            thresholds[round(q * (len(thresholds) - 1))] for q in (0.5, 0.05, 0.95)
        ],
    }


def _lines(report: dict[str, Any]) -> list[str]:
    options = report["options"]
    lines = [
        f"{options['model']}, {report['cpus']} processors, load {report['load_average']:.1f}",
    ]
    if "speed" in report:
        lines += _speed_lines(report["speed"], options)
    if "accuracy" in report:
        from int8_accuracy import accuracy_lines

        lines += accuracy_lines(report["accuracy"])
    return lines


def _speed_lines(speed: dict[str, Any], options: dict[str, Any]) -> list[str]:
    lines = [
        f"\n{options['num_images']} images, median of {options['repeats']} (min to max)",
        f"{'':18}{'wall s':>22}{'x ours':>20}{'CPU s':>8}{'x ours':>18}"
        f"{'MiB':>7}{'at half':>8}{'tensors':>8}   thresholds to ours: median, 5-95 %",
    ]
    for name, row in speed["variants"].items():
        wall, cpu = row["wall_s"], row["cpu_s"]
        times = row["times_ours"]
        middle, low, high = row["thresholds_to_ours"]
        lines.append(
            f"{name:18}{wall[0]:8.2f} ({wall[1]:.2f} to {wall[2]:.2f})".ljust(40)
            + "{:7.2f} ({:.2f} to {:.2f})".format(*times["wall_s"]).rjust(20)
            + f"{cpu[0]:8.2f}"
            + "{:6.2f} ({:.2f} to {:.2f})".format(*times["cpu_s"]).rjust(18)
            + f"{row['peak_mib']:7.0f}{row['peak_mib_half_the_images']:8.0f}"
            + f"{row['num_tensors']:8}   {middle:.3f}, {low:.3f}-{high:.3f}"
        )
    if speed["ours_long"]:
        long = speed["ours_long"]
        lines.append(
            f"{OURS} on {options['long_images']} images: {long['wall_s']:.1f} s, "
            f"{long['peak_mib']:.0f} MiB"
        )
    return lines


if __name__ == "__main__":
    main()
