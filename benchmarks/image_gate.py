"""What the image gate and the laterality check do on real photographs and on other things.

    EDGE_SCREEN_DATA=../shared/data python benchmarks/image_gate.py
    python benchmarks/image_gate.py --split test --photographs FOLDER --json

The limits were set on the splits `train` and `val`; `test` is for a report and for nothing else.
Photographs of other things are those that scikit-learn ships and those of a folder of yours, as
they are, cropped, and cropped to a circle on black. Shares carry 95 % Wilson intervals over
pictures; both eyes of a patient count as two, so the intervals are a little too narrow.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import sklearn

from edge_runtime.errors import ImageError
from edge_runtime.fundus.laterality import guess_laterality
from edge_runtime.fundus.quality import QualityLimits, assess_image
from edge_runtime.metrics import auroc, wilson_interval
from edge_runtime.preprocess import PreprocessSpec, load_for_model

SPEC = PreprocessSpec(size_px=224)
LIMITS = QualityLimits()
NUM_CROPS = 100
SCANS = ("pair_oct.jpg", "triplet_bscan.png", "triplet_bscanlayermap.png", "triplet_slo.png")
SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One picture: why it is refused, its statistics, and which eye it looks like."""

    row: dict[str, str] = field(default_factory=dict)
    reasons: tuple[str, ...]
    measures: dict[str, float] = field(default_factory=dict)
    looks_like: str | None = None


def judge(data: bytes, row: dict[str, str] | None = None) -> Judged:
    """Do to a file what screening does before the model."""
    try:
        decoded, prepared = load_for_model(data, SPEC)
    except ImageError as error:
        return Judged(row=row or {}, reasons=(type(error).__name__,))
    report = assess_image(decoded, prepared, LIMITS)
    side = guess_laterality(prepared.image_hwc)
    return Judged(
        row=row or {}, reasons=report.reasons, measures=report.measures, looks_like=side.eye
    )


def judge_set(folder: Path, splits: tuple[str, ...]) -> list[Judged]:
    """Every picture of some splits of a data set."""
    with (folder / "index.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("split", "train") in splits]
    return [judge((folder / row["image"]).read_bytes(), row) for row in rows]


def share(found: Iterable[bool]) -> dict[str, float]:
    """Count, share and interval."""
    flags = list(found)
    count = sum(flags)
    if not flags:
        return {"count": 0, "of": 0}
    interval = wilson_interval(count, len(flags))
    return {
        "count": count,
        "of": len(flags),
        "share": count / len(flags),
        "low": interval.low,
        "high": interval.high,
    }


def refused(pictures: Iterable[Judged]) -> dict[str, float]:
    """How many are refused."""
    return share(bool(one.reasons) for one in pictures)


def reject_auroc(pictures: list[Judged]) -> dict[str, float]:
    """Reject against good, of each statistic alone and of the one nearest its limit."""
    graded = [one for one in pictures if one.row.get("quality") in ("good", "reject")]
    graded = [one for one in graded if one.measures]
    labels = [int(one.row["quality"] == "reject") for one in graded]
    if len(set(labels)) < 2:
        return {}
    values = {
        name: auroc(labels, [one.measures[name] for one in graded]) for name in graded[0].measures
    }
    return {**values, "nearest its limit": auroc(labels, [strain(one) for one in graded])}


def strain(one: Judged) -> float:
    """Largest quotient of a statistic and its limit, turned so that 1 is the limit."""
    m, limits = one.measures, LIMITS
    return max(
        m["detail"] / limits.max_detail,
        limits.min_detail / max(m["detail"], 1e-6),
        limits.min_colour / max(m["colour"], 1e-6),
        limits.min_luma / max(m["luma"], 1e-6),
        limits.min_hue_spread / max(m["hue_spread"], 1e-6),
        m["burnt_share"] / limits.max_burnt,
        m["black_share"] / limits.max_black,
        m["shadow_share"] / limits.max_shadow,
        m["glare_share"] / limits.max_glare,
    )


def laterality(pictures: list[Judged]) -> dict[str, Any]:
    """How often it speaks, how often it is then right, and how often two eyes are opposite."""
    seen = [one for one in pictures if one.measures]
    spoken = [one for one in seen if one.looks_like is not None]
    sides: dict[str, dict[str, str]] = {}
    for one in spoken:
        sides.setdefault(one.row["patient_id"], {})[one.row["eye"]] = str(one.looks_like)
    pairs = [pair for pair in sides.values() if len(pair) == 2]
    return {
        "speaks": share(one.looks_like is not None for one in seen),
        "right": share(one.looks_like == one.row["eye"] for one in spoken),
        "opposite_pairs": share(pair["OD"] != pair["OS"] for pair in pairs),
    }


def other_things(folder: Path | None) -> Iterator[tuple[str, str, bytes]]:
    """(photograph, framing, PNG): whole, cropped, cropped to a circle on black."""
    shipped = Path(sklearn.__file__).parent / "datasets" / "images"
    for place in (shipped, folder):
        files = () if place is None else sorted(place.iterdir())
        for path in (file for file in files if file.suffix.lower() in SUFFIXES):
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if image is None or min(image.shape[:2]) < 64:
                continue
            yield path.name, "whole", as_png(image)
            rng = np.random.default_rng(0)
            for _ in range(NUM_CROPS):
                crop = random_crop(image, rng)
                yield path.name, "crop", as_png(crop)
                yield path.name, "circle", as_png(in_circle(crop))


def random_crop(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A square of 0.2 to 1 of the short side, as 320 px."""
    side = int(rng.uniform(0.2, 1) * min(image.shape[:2]))
    top, left = (rng.integers(0, length - side + 1) for length in image.shape[:2])
    method = cv2.INTER_AREA if side > 320 else cv2.INTER_LINEAR
    return cv2.resize(image[top : top + side, left : left + side], (320, 320), interpolation=method)


def in_circle(image: np.ndarray) -> np.ndarray:
    """Black outside a circle of 0.95 of the side."""
    axis = np.arange(len(image)) + 0.5 - len(image) / 2
    inside = np.hypot(axis[:, None], axis) < 0.475 * len(image)
    return np.where(inside[..., None], image, 0).astype(np.uint8)


def as_png(image: np.ndarray) -> bytes:
    """Encode."""
    return bytes(cv2.imencode(".png", image)[1])


def measure_other(folder: Path | None) -> dict[str, dict[str, float]]:
    """Refused share by photograph and framing, and of all."""
    found: dict[str, list[bool]] = {}
    for name, framing, data in other_things(folder):
        is_refused = bool(judge(data).reasons)
        for key in (f"{name}, {framing}", f"all, {framing}"):
            found.setdefault(key, []).append(is_refused)
    return {key: share(flags) for key, flags in found.items()}


def measure_time(data: Path) -> dict[str, float]:
    """Median milliseconds of this thread's processor time for one picture of 224 px."""
    decoded, prepared = load_for_model(
        sorted((data / "gamma1024" / "images").iterdir())[0].read_bytes(), SPEC
    )
    calls = {
        "gate_ms": lambda: assess_image(decoded, prepared, LIMITS),
        "laterality_ms": lambda: guess_laterality(prepared.image_hwc),
    }
    found = {}
    for name, call in calls.items():
        spent = []
        for _ in range(200):
            started = time.thread_time_ns()
            call()
            spent.append(time.thread_time_ns() - started)
        found[name] = float(np.median(spent)) / 1e6
    return found


def measure(data: Path, split: str, photographs: Path | None) -> dict[str, Any]:
    """Everything, as one JSON object."""
    splits = ("test",) if split == "test" else ("train", "val")
    eyepacs = judge_set(data / "eyepacs400", splits)
    odir = judge_set(data / "odir256", ("test",) if split == "test" else ("val",))
    wrong = sorted((data / "wrong_modality").glob("*.png"))
    scans = [data / "oct_samples" / name for name in SCANS]
    groups = {
        **{f"EyePACS {word}": [one for one in eyepacs if one.row["quality"] == word]
           for word in ("good", "usable", "reject")},
        "ODIR normal": [one for one in odir if one.row["normal"] == "1"],
        "ODIR all": odir,
        "GAMMA": judge_set(data / "gamma1024", ("train",)),
        "autofluorescence": [judge(path.read_bytes()) for path in wrong],
        "autofluorescence as colour": [judge(as_png(cv2.imread(str(path)))) for path in wrong],
        "OCT and SLO": [judge(path.read_bytes()) for path in scans],
        "OCT and SLO as colour": [judge(as_png(cv2.imread(str(path)))) for path in scans],
    }  # fmt: skip
    return {
        "split": split,
        "refused": {name: refused(pictures) for name, pictures in groups.items()},
        "other_things_refused": measure_other(photographs),
        "eyepacs_reject_auroc": reject_auroc(eyepacs),
        "laterality": {"ODIR": laterality(odir), "EyePACS": laterality(eyepacs)},
        **measure_time(data),
    }


def line(name: str, value: dict[str, float]) -> str:
    """One share as text."""
    if not value["of"]:
        return f"  {name:<34} none"
    return (
        f"  {name:<34} {value['count']:>5} of {value['of']:<5} {value['share']:7.2%}  "
        f"[{value['low']:.2%}, {value['high']:.2%}]"
    )


@click.command()
@click.option("--data", envvar="EDGE_SCREEN_DATA", required=True, type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(["tuning", "test"]), default="tuning")
@click.option("--photographs", type=click.Path(path_type=Path), help="More that are no fundus.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(data: Path, split: str, photographs: Path | None, as_json: bool) -> None:
    """Measure and print."""
    found = measure(data, split, photographs)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"split {split}: refused before the model")
    for name, value in {**found["refused"], **found["other_things_refused"]}.items():
        click.echo(line(name, value))
    click.echo("EyePACS, reject against good, AUROC of a statistic (0.5 says nothing)")
    for name, value in found["eyepacs_reject_auroc"].items():
        click.echo(f"  {name:<34} {value:.3f}")
    for name, parts in found["laterality"].items():
        click.echo(f"laterality, {name}")
        for part, value in parts.items():
            click.echo(line(part.replace("_", " "), value))
    click.echo(f"gate {found['gate_ms']:.2f} ms, laterality {found['laterality_ms']:.2f} ms")


if __name__ == "__main__":
    main()
