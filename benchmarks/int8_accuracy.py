"""What each way of choosing INT8 ranges costs in accuracy; used by int8_calibration.py.

Ranges come from images of `train`, figures from eyes of `val`; `test` is not read. Every set of
ranges is written into the same Q/DQ graph by edge-screen, so rows differ in the ranges alone; NNCF
and ModelOpt place and choose for themselves. Graphs run as ONNX Runtime's CPU runs them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from int8_variants import VARIANTS, image_side, prepare_images, read_images
from numpy.typing import NDArray

_METHODS = ("percentile", "mse", "entropy", "minmax")


def measure_accuracy(folder: Path, options: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a way, FP32 first; all on the same val eyes."""
    models, seconds = _quantized_models(folder, options)
    labels, outputs = _score(models, options)
    exact = outputs["fp32"]
    return [
        {"way": name, "seconds": seconds.get(name), **_figures(exact, table, labels)}
        for name, table in outputs.items()
    ]


def accuracy_lines(rows: list[dict[str, Any]]) -> list[str]:
    """The table as text."""
    names = list(rows[0]["auroc"])
    lines = [
        "\nAccuracy on val: SQNR of all logits; mean |dp|; decisions at 0.5 that change; AUROC "
        "drop, mean over outputs",
        f"{'':22}{'SQNR dB':>8}{'|dp|':>8}{'flips':>8}{'drop':>9}   AUROC of " + ", ".join(names),
    ]
    for row in rows:
        aurocs = " ".join(f"{value:.4f}" for value in row["auroc"].values())
        lines.append(
            f"{row['way']:22}{row['sqnr_db']:8.2f}{row['mean_dp']:8.4f}{row['flips']:8.4f}"
            f"{row['auroc_drop']:9.4f}   {aurocs}"
        )
    return lines


def _quantized_models(
    folder: Path, options: dict[str, Any]
) -> tuple[dict[str, bytes], dict[str, float]]:
    from calibration.cpu_form import to_cpu_form
    from calibration.observers import RangeMethod
    from calibration.quantize import plan_quantization, quantize
    from calibration.ranges import observe_activations, ranges_of

    model, count = options["model"], options["accuracy_images"]
    data, images = model.read_bytes(), prepare_images(folder, options, count)
    plan = plan_quantization(data)
    histograms = observe_activations(data, plan.observed, read_images(images, count))
    ranges = {f"ours {m}": ranges_of(histograms, RangeMethod(name=m)) for m in _METHODS}
    for percentile in (99.9, 99.999):
        method = RangeMethod(percentile=percentile)
        ranges[f"ours percentile {percentile}"] = ranges_of(histograms, method)
    seconds = {}
    for name in ("ort percentile", "ort entropy"):
        start = time.perf_counter()
        found = VARIANTS[name](model, read_images(images, count))
        seconds[name] = time.perf_counter() - start
        ranges[name] = {tensor: found[tensor] for tensor in plan.observed}
    models = {n: to_cpu_form(quantize(data, plan, r)) for n, r in ranges.items()}
    for peer in ("nncf", "modelopt"):
        python = options[f"{peer}_python"]
        if python is not None:
            models[peer], seconds[peer] = _peer(peer, python, model, images, count)
    return {"fp32": data, **models}, seconds


def _peer(peer: str, python: Path, model: Path, images: Path, count: int) -> tuple[bytes, float]:
    out = images.with_name(f"{peer}.onnx")
    script = Path(__file__).with_name("int8_peers.py")
    command = [str(python), str(script), peer, str(model), str(images), str(count), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise click.ClickException(f"{peer} failed:\n{done.stderr[-3000:]}")
    return out.read_bytes(), json.loads(done.stdout.splitlines()[-1])["wall_s"]


def _score(
    models: dict[str, bytes], options: dict[str, Any]
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    """Labels by name and (N, L + 1) logits by way, of the val eyes that could be read."""
    from calibration.dataset import GRADABLE, ImageStream, read_eyes
    from calibration.run_models import score_models
    from edge_runtime.preprocess import PreprocessSpec

    names = options["labels"].split(",")
    eyes = [eye for eye in read_eyes(options["data"], names) if eye.split == "val"]
    stream = ImageStream(eyes, PreprocessSpec(size_px=image_side(options["model"])))
    scores = score_models(models, stream)
    found = next(iter(scores.values())).logits.shape[1]
    if found != len(names):
        raise click.ClickException(f"the student has {found} labels; name them with --labels")
    outputs = (*names, GRADABLE)
    labels = {n: np.array([eye.labels[n] for eye in stream.used]) for n in outputs}
    tables = {
        name: np.column_stack([score.logits, score.gradability_logits])
        for name, score in scores.items()
    }
    return labels, tables


def _figures(
    exact: NDArray[np.float64], table: NDArray[np.float64], labels: dict[str, NDArray[np.float64]]
) -> dict[str, Any]:
    from edge_runtime.metrics import auroc

    noise = float(np.square(table - exact).sum())
    difference = np.abs(_sigmoid(table) - _sigmoid(exact))
    drops, aurocs = [], {}
    for column, (name, truth) in enumerate(labels.items()):
        known = ~np.isnan(truth)
        aurocs[name] = auroc(truth[known], table[known, column])
        drops.append(auroc(truth[known], exact[known, column]) - aurocs[name])
    return {
        "sqnr_db": 10 * np.log10(np.square(exact).sum() / noise) if noise else float("inf"),
        "mean_dp": float(difference.mean()),
        "flips": float(((table > 0) != (exact > 0)).mean()),
        "auroc_drop": float(np.mean(drops)),
        "auroc": aurocs,
    }


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = 1 / (1 + np.exp(-logits))
    return result


if __name__ == "__main__":
    sys.exit("run int8_calibration.py with --data")
