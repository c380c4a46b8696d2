"""Write and read the truth file of one eye: every latent, without pickle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from train.phantom.eye import RenderedEye
from train.phantom.latent import FloatArray, LatentEye, Vessel

__all__ = ["read_truth", "write_truth"]


def write_truth(path: Path, rendered: RenderedEye) -> None:
    """Write `path` (.npz, uncompressed, the same bytes for the same eye).

    Arrays: `latents_json` (a string: every scalar latent and the labels),
    `boundaries_px` (2, 11, W), lesion rows (x, y, radius), and for both `vessels` and
    `new_vessels`: `_points_xy` (N, 2), `_widths` (N,), `_lengths` (points of each vessel),
    `_is_vein`, `_order`.
    """
    eye = rendered.eye
    scalars = {**eye.scalars(), "labels": eye.labels()}
    arrays = {
        "latents_json": np.array(json.dumps(scalars, sort_keys=True)),
        "boundaries_px": rendered.boundaries_px,
        **_lesion_rows(eye),
        **_pack_vessels("vessels", eye.vessels),
        **_pack_vessels("new_vessels", eye.lesions.new_vessels),
    }
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read_truth(path: Path) -> dict[str, object]:
    """Read a truth file: scalar latents by name, arrays by name, `labels` as a dict."""
    with np.load(path, allow_pickle=False) as archive:
        truth: dict[str, object] = {name: archive[name] for name in archive.files}
    scalars = json.loads(str(truth.pop("latents_json")))
    return {**scalars, **truth}


def _lesion_rows(eye: LatentEye) -> dict[str, FloatArray]:
    lesions = eye.lesions
    return {
        "drusen": lesions.drusen,
        "microaneurysms": lesions.microaneurysms,
        "hemorrhages": lesions.hemorrhages,
        "exudates": lesions.exudates,
        "preretinal": lesions.preretinal,
        "pigment_clumps": lesions.pigment_clumps,
    }


def _pack_vessels(name: str, vessels: tuple[Vessel, ...]) -> dict[str, np.ndarray]:
    points = [vessel.points_xy for vessel in vessels] or [np.zeros((0, 2), np.float32)]
    widths = [vessel.widths for vessel in vessels] or [np.zeros(0, np.float32)]
    return {
        f"{name}_points_xy": np.concatenate(points),
        f"{name}_widths": np.concatenate(widths),
        f"{name}_lengths": np.array([len(v.widths) for v in vessels], np.int32),
        f"{name}_is_vein": np.array([v.is_vein for v in vessels], np.bool_),
        f"{name}_order": np.array([v.order for v in vessels], np.int32),
    }
