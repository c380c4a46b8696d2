"""Measure the structure maps against eyes whose structures are known.

    python -m train.structure.measure --data DIR [--layout phantom|drive|gamma]

Places are judged in disc diameters of the true disc; where its size is not known, in nominal
ones (0.24 field units). Vessels are judged only inside the field of view.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path

import click
import cv2
import numpy as np

from edge_runtime.errors import EdgeScreenError, ImageError
from edge_runtime.metrics import auroc
from edge_runtime.preprocess import PreprocessSpec, load_for_model
from train.data.index import DataIndex
from train.structure.disc import NOMINAL_RADIUS
from train.structure.geometry import SquareGeometry
from train.structure.maps import StructureMaps, structure_maps
from train.structure.truth import LAYOUTS, KnownEye, known_eyes, phantom_eyes, read_vessels

__all__ = ["EyeMeasure", "GroupMeasure", "measure_eyes", "measure_structure", "summarized", "table"]

_FAR = 1.0  # disc diameters: a place further off is made up


@dataclass(frozen=True, kw_only=True)
class EyeMeasure:
    """One eye; NaN where the truth is not known or the structure was not found.

    Attributes:
        group: of the eye.
        seconds: processor time of making the maps.
        disc_found: and the other flags: 1 found, 0 not, NaN where that cannot be judged.
        vessel_auroc: over pixels of the field.
        vessel_dice: of the map above one half.
        disc_error: disc diameters.
        fovea_error: disc diameters.
        side_right: 1 where the eye found is the true one.
    """

    group: str
    seconds: float
    vessels_found: float
    disc_found: float
    macula_found: float
    vessel_auroc: float
    vessel_dice: float
    disc_error: float
    fovea_error: float
    side_right: float


@dataclass(frozen=True, kw_only=True)
class GroupMeasure:
    """What one group of eyes comes to; NaN where nothing could be judged.

    Attributes:
        group: its name.
        num_eyes: eyes the runtime accepts.
        vessels_missing: share not found; so `disc_missing`, `macula_missing`.
        vessel_auroc: mean; so `vessel_dice`. An eye whose vessels were not found counts.
        disc_median: error in disc diameters where found; `disc_p95` its 95th percentile.
        disc_far: share of the places given that are more than 1 disc diameter off.
        fovea_median: and so on as for the disc.
        side_right: share of right laterality where one was given.
    """

    group: str
    num_eyes: int
    vessels_missing: float
    vessel_auroc: float
    vessel_dice: float
    disc_missing: float
    disc_median: float
    disc_p95: float
    disc_far: float
    macula_missing: float
    fovea_median: float
    fovea_p95: float
    fovea_far: float
    side_right: float


def measure_structure(
    index: DataIndex, *, split: str = "test", size_px: int = 96, num_eyes: int | None = None
) -> list[EyeMeasure]:
    """Measure a synthetic data set.

    Args:
        index: of a data set that the phantom wrote.
        split: train, val or test.
        size_px: S of the preprocessing.
        num_eyes: the first so many; None = all.

    Raises:
        DataError: the truth is missing.
    """
    return measure_eyes(islice(phantom_eyes(index, split), num_eyes), size_px=size_px)


def measure_eyes(
    eyes: Iterable[KnownEye], *, size_px: int, with_side: bool = False
) -> list[EyeMeasure]:
    """Make the maps of every eye that the runtime accepts and compare.

    Args:
        eyes: photographs with truth.
        size_px: S of the preprocessing.
        with_side: hand the true laterality to the maps where it is known.
    """
    measures = []
    for eye in eyes:
        try:
            decoded, made = load_for_model(eye.cfp.read_bytes(), PreprocessSpec(size_px=size_px))
        except ImageError:
            continue
        geometry = SquareGeometry.of(made.field_of_view, decoded.reduction)
        started = time.process_time()
        maps = structure_maps(made.image_hwc, eye=eye.eye if with_side else None)
        seconds = time.process_time() - started
        measures.append(_compared(eye, maps, geometry, seconds))
    return measures


def _compared(
    eye: KnownEye, maps: StructureMaps, geometry: SquareGeometry, seconds: float
) -> EyeMeasure:
    area, dice = _vessel_scores(eye, maps, geometry)
    diameter = 2 * (eye.disc_radius or NOMINAL_RADIUS)
    known = eye.eye is not None and maps.eye is not None
    _, vessels, disc, macula = (float(one.found) for one in maps.quality)
    return EyeMeasure(
        group=eye.group,
        seconds=seconds,
        vessels_found=vessels,
        disc_found=disc,
        macula_found=macula,
        vessel_auroc=area,
        vessel_dice=dice,
        disc_error=_distance(eye.disc_xy_px, maps.disc_xy, geometry) / diameter,
        fovea_error=_distance(eye.fovea_xy_px, maps.fovea_xy, geometry) / diameter,
        side_right=float(maps.eye == eye.eye) if known else np.nan,
    )


def _distance(
    true_px: tuple[float, float] | None,
    found: tuple[float, float] | None,
    geometry: SquareGeometry,
) -> float:
    """Field units between a true and a found place, NaN without either."""
    if true_px is None or found is None:
        return np.nan
    return float(np.hypot(*np.subtract(geometry.point(*true_px), found)))


def _vessel_scores(
    eye: KnownEye, maps: StructureMaps, geometry: SquareGeometry
) -> tuple[float, float]:
    """AUROC and Dice inside the field of view."""
    if eye.vessels is None:
        return np.nan, np.nan
    inside = maps.fov > 0
    truth = geometry.mask(read_vessels(eye.vessels), maps.fov.shape[0])[inside] > 0.5
    soft = maps.vessels[inside]
    if truth.all() or not truth.any():
        return np.nan, np.nan
    called = soft > 0.5
    dice = 2 * (called & truth).sum() / (called.sum() + truth.sum())
    return auroc(truth, soft), float(dice)


def summarized(measures: list[EyeMeasure]) -> list[GroupMeasure]:
    """One row a group, in alphabetic order."""
    groups = sorted({one.group for one in measures})
    return [_summary(name, [one for one in measures if one.group == name]) for name in groups]


def _summary(group: str, measures: list[EyeMeasure]) -> GroupMeasure:
    values = {
        field.name: np.array([getattr(one, field.name) for one in measures], float)
        for field in fields(EyeMeasure)
        if field.name != "group"
    }
    known = {name: column[~np.isnan(column)] for name, column in values.items()}
    mean = {name: float(column.mean()) if len(column) else np.nan for name, column in known.items()}
    disc, fovea = known["disc_error"], known["fovea_error"]
    return GroupMeasure(
        group=group,
        num_eyes=len(measures),
        vessels_missing=1 - mean["vessels_found"],
        vessel_auroc=mean["vessel_auroc"],
        vessel_dice=mean["vessel_dice"],
        disc_missing=1 - mean["disc_found"],
        disc_median=_quantile(disc, 0.5),
        disc_p95=_quantile(disc, 0.95),
        disc_far=float((disc > _FAR).mean()) if len(disc) else np.nan,
        macula_missing=1 - mean["macula_found"],
        fovea_median=_quantile(fovea, 0.5),
        fovea_p95=_quantile(fovea, 0.95),
        fovea_far=float((fovea > _FAR).mean()) if len(fovea) else np.nan,
        side_right=mean["side_right"],
    )


def _quantile(values: np.ndarray, share: float) -> float:
    return float(np.quantile(values, share)) if len(values) else np.nan


def table(rows: list[GroupMeasure]) -> str:
    """The rows as a Markdown table; '-' is not known."""
    names = [field.name for field in fields(GroupMeasure)]
    lines = [" | ".join(names), " | ".join("---" for _ in names)]
    lines += [" | ".join(_cell(getattr(row, name)) for name in names) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def _cell(value: str | float) -> str:
    if isinstance(value, float):
        return "-" if np.isnan(value) else f"{value:.3f}"
    return str(value)


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder of eyes.")
@click.option("--layout", type=click.Choice(list(LAYOUTS)), default="phantom", show_default=True)
@click.option("--split", default="test", show_default=True, help="train, val or test.")
@click.option("--size-px", default=96, show_default=True, help="Side of the preprocessed square.")
@click.option("--num-eyes", type=int, help="Only the first so many.")
@click.option("--with-side", is_flag=True, help="Hand over the true laterality.")
def main(
    data: Path, layout: str, split: str, size_px: int, num_eyes: int | None, with_side: bool
) -> None:
    """Print how well structures are found, by gradability, and how fast."""
    cv2.setNumThreads(1)  # the speed is that of one core
    try:
        eyes = islice(known_eyes(data, layout, split), num_eyes)
        measures = measure_eyes(eyes, size_px=size_px, with_side=with_side)
    except EdgeScreenError as error:
        raise click.ClickException(str(error)) from error
    click.echo(table(summarized(measures)))
    seconds = sum(one.seconds for one in measures)
    click.echo(
        f"{len(measures)} eyes, {len(measures) / max(seconds, 1e-9):.0f} a second of one core"
    )


if __name__ == "__main__":
    main()
