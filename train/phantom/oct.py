"""Layer boundaries of the foveal OCT scans of a latent eye.

Depths are fractions of the scan's height, growing downwards. The eleven boundaries run from
the inner limiting membrane to the choroid's outer edge, in the order of BOUNDARY_NAMES.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from train.phantom.latent import Anatomy, Disease, FloatArray, LatentEye

__all__ = ["BOUNDARY_NAMES", "SCAN_HALF_LENGTH", "ScanGeometry", "scan_geometry"]

SCAN_HALF_LENGTH = 0.46  # field units; about 3 mm
BOUNDARY_NAMES = (
    "ilm",
    "rnfl_gcl",
    "gcl_ipl",
    "ipl_inl",
    "inl_opl",
    "opl_onl",
    "elm",
    "ez",
    "rpe_top",
    "bruch",
    "choroid_outer",
)


@dataclass(frozen=True, eq=False)
class ScanGeometry:
    """Where everything lies in one B-scan.

    Attributes:
        along: Position of every column along the scan from the fovea, float32 (W,).
        boundaries: float32 (11, W), ordered, each within 0 to 1.
        swelling: Edema at every column, float32 (W,), 0 to 1.
        splitting: Schisis at every column, float32 (W,), 0 to 1.
        fluid: Thickness of subretinal fluid, float32 (W,).
    """

    along: FloatArray
    boundaries: FloatArray
    swelling: FloatArray
    splitting: FloatArray
    fluid: FloatArray


def scan_geometry(
    rng: np.random.Generator, eye: LatentEye, axis: int, width_px: int
) -> ScanGeometry:
    """Lay out one scan through the fovea.

    Args:
        rng: Source of the operator's placement of the scan (height, tilt).
        eye: The latent eye.
        axis: 0 for the horizontal scan, 1 for the vertical one.
        width_px: Columns of the scan.
    """
    columns = (np.arange(width_px, dtype=np.float32) + 0.5) / width_px * 2 - 1
    along = columns * SCAN_HALF_LENGTH
    disease = eye.disease
    center, off = disease.edema_offset_xy[axis], disease.edema_offset_xy[1 - axis]
    squared = ((along - center) ** 2 + off**2) / disease.edema_radius**2
    swelling = disease.edema * np.exp(-squared)
    splitting = disease.schisis * np.exp(-((np.abs(along) / 0.34) ** 4))
    fluid = _subretinal_fluid(disease, along - center)
    layers = _layer_thickness(eye.anatomy, disease, along, axis, swelling, splitting)
    bruch = _bruch(rng, eye.anatomy, columns, axis)
    drusen = _drusen_height(eye, along, axis)
    rpe = 0.022 + drusen
    rpe *= 1 - 0.6 * disease.atrophy * np.exp(-((along / 0.12) ** 4))
    *inner, outer_nuclear, receptors = layers
    outer_nuclear = np.maximum(0.4 * outer_nuclear, outer_nuclear - 0.8 * drusen)  # gives way
    layers = (*inner, outer_nuclear, receptors)
    stacked = _stack(bruch, rpe, fluid, layers, eye.anatomy.choroid_thickness)
    return ScanGeometry(along, stacked, swelling, splitting, fluid)


def _subretinal_fluid(disease: Disease, along: FloatArray) -> FloatArray:
    if disease.edema <= 0.4 or disease.edema_type <= 0.7:
        return np.zeros_like(along)
    return np.asarray(0.07 * (disease.edema - 0.4) * np.exp(-((along / 0.1) ** 2)))


def _layer_thickness(
    anatomy: Anatomy,
    disease: Disease,
    along: FloatArray,
    axis: int,
    swelling: FloatArray,
    splitting: FloatArray,
) -> tuple[FloatArray, ...]:
    """Thickness of RNFL, GCL, IPL, INL, OPL, ONL and photoreceptors, each (W,)."""
    pit, scale = np.exp(-((along / anatomy.pit_width) ** 2)), anatomy.retina_scale
    rim = np.exp(-(((np.abs(along) - 0.22) / 0.12) ** 2))
    spared = 1 - disease.glaucoma * 0.5
    nerve = _nerve_fibres(anatomy, disease, along, axis) * (1 - pit)
    ganglion = (0.045 + 0.045 * rim) * (1 - 0.97 * pit) * spared * scale + 0.03 * swelling
    inner_plexiform = (0.045 + 0.02 * rim) * (1 - 0.9 * pit) * scale
    inner_nuclear = (0.045 + 0.015 * rim) * (1 - 0.8 * pit) * scale + 0.085 * swelling
    outer_plexiform = 0.035 * (1 - 0.5 * pit) * scale + 0.02 * swelling
    outer_nuclear = (0.085 + 0.05 * pit * (1 - 0.2 * anatomy.pit_depth)) * scale
    outer_nuclear = outer_nuclear + 0.12 * swelling + 0.15 * splitting
    receptors = 0.075 + 0.015 * pit
    inner = (nerve, ganglion, inner_plexiform, inner_nuclear)
    return (*inner, outer_plexiform, outer_nuclear, receptors)


def _nerve_fibres(anatomy: Anatomy, disease: Disease, along: FloatArray, axis: int) -> FloatArray:
    """RNFL: thicker towards the disc and towards the arcades; thinned by glaucoma."""
    columns = along / SCAN_HALF_LENGTH
    if axis == 0:
        fibres = 0.035 + 0.055 * np.clip(anatomy.nasal_sign * columns, 0, 1)
    else:
        fibres = 0.02 + 0.085 * np.abs(columns) ** 1.5
    return np.asarray(fibres * (1 - 0.75 * disease.glaucoma))


def _bruch(
    rng: np.random.Generator, anatomy: Anatomy, columns: FloatArray, axis: int
) -> FloatArray:
    """Depth of Bruch's membrane: placement, tilt, curvature (steep in myopia), waviness."""
    height, tilt = 0.74 + rng.normal(0, 0.025), rng.normal(0, 0.03)
    tilt += 0.02 * anatomy.nasal_sign if axis == 0 else 0.0
    waves = rng.standard_normal((1, 5), dtype=np.float32)
    wave = cv2.resize(waves, (len(columns), 1), interpolation=cv2.INTER_CUBIC)[0]
    bend = (0.02 + 0.16 * anatomy.myopia) * columns * columns
    return np.asarray(height + tilt * columns - bend + 0.006 * wave)


def _drusen_height(eye: LatentEye, along: FloatArray, axis: int) -> FloatArray:
    """How far drusen lift the pigment epithelium, (W,)."""
    height = np.zeros_like(along)
    for row in eye.lesions.drusen:
        position = row[axis] - eye.anatomy.fovea_xy[axis]
        off, radius = row[1 - axis] - eye.anatomy.fovea_xy[1 - axis], row[2]
        if abs(off) < 0.06:
            peak = 0.035 * (radius / 0.022) * np.exp(-((off / 0.04) ** 2))
            height += peak * np.exp(-(((along - position) / (radius * 1.1)) ** 2))
    return height


def _stack(
    bruch: FloatArray,
    rpe: FloatArray,
    fluid: FloatArray,
    layers: tuple[FloatArray, ...],
    choroid: float,
) -> FloatArray:
    """Pile the layers on Bruch's membrane and keep the pile inside the scan."""
    *inner, receptors = layers
    rpe_top = bruch - rpe
    ellipsoid = rpe_top - receptors * 0.55 - fluid
    edges = [bruch + choroid, bruch, rpe_top, ellipsoid, ellipsoid - receptors * 0.35]
    for thickness in reversed(inner):
        edges.append(edges[-1] - thickness)
    stacked = np.stack(edges[::-1]).astype(np.float32)
    stacked += max(0.0, 0.03 - float(stacked[0].min()))
    stacked -= max(0.0, float(stacked[9].max()) - 0.97)
    return np.maximum.accumulate(np.clip(stacked, 0.0, 0.995), axis=0)
