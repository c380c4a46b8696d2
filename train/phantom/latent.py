"""The latent eye: everything that decides what a synthetic eye looks like.

Lengths are in field units: the photographed circle has radius 1 (about 6.5 mm on the
retina for a 45 degree field), x grows to the right of the picture, y downwards.
Depths in the OCT scan are fractions of the scan's height. Severities run from 0 (absent) to 1.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from datetime import date
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import ConfigError

__all__ = [
    "LABEL_NAMES",
    "UNGRADABLE_KINDS",
    "Anatomy",
    "Capture",
    "Disease",
    "FloatArray",
    "LatentEye",
    "Lesions",
    "Vessel",
]

FloatArray = NDArray[np.floating[Any]]

LABEL_NAMES = (
    "macular_edema",
    "myopic_schisis",
    "glaucoma",
    "referable_dr",
    "dr_grade",
    "amd",
    "gradable",
)
UNGRADABLE_KINDS = ("media", "defocus", "dark", "overexposed", "lid", "decentred")


def _require_unit(owner: str, **values: float) -> None:
    for name, value in values.items():
        if not 0.0 <= value <= 1.0:
            raise ConfigError(f"{owner}.{name} is {value}; give a value from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """A healthy eye's shape and colour."""

    laterality: Literal["OD", "OS"]
    age_years: float
    axial_length_mm: float
    myopia: float
    pigment: float
    fovea_xy: tuple[float, float]
    disc_xy: tuple[float, float]
    disc_radius: float
    disc_aspect: float
    cup_ratio: float
    cup_shift: float
    cup_tilt: float
    macular_pigment: float
    foveal_reflex: float
    retina_scale: float
    pit_depth: float
    pit_width: float
    choroid_thickness: float

    def __post_init__(self) -> None:
        """Refuse an unknown laterality and values outside their range."""
        if self.laterality not in ("OD", "OS"):
            raise ConfigError(f"laterality is {self.laterality!r}; give 'OD' or 'OS'")
        _require_unit("Anatomy", myopia=self.myopia, pigment=self.pigment, cup=self.cup_ratio)

    @property
    def nasal_sign(self) -> int:
        """+1 where the disc lies to the right of the fovea (OD), -1 for OS."""
        return 1 if self.laterality == "OD" else -1


@dataclass(frozen=True, kw_only=True)
class Disease:
    """What is wrong with the eye, as severities."""

    edema: float = 0.0
    edema_offset_xy: tuple[float, float] = (0.0, 0.0)
    edema_radius: float = 0.18
    edema_type: float = 0.0
    schisis: float = 0.0
    schisis_rays: int = 13
    schisis_phase: float = 0.0
    glaucoma: float = 0.0
    dr: float = 0.0
    dr_grade: int = 0
    amd: float = 0.0
    atrophy: float = 0.0

    def __post_init__(self) -> None:
        """Refuse severities outside 0 to 1 and grades outside 0 to 4."""
        _require_unit("Disease", edema=self.edema, schisis=self.schisis, glaucoma=self.glaucoma)
        _require_unit("Disease", dr=self.dr, amd=self.amd, atrophy=self.atrophy)
        if self.dr_grade not in range(5):
            raise ConfigError(f"dr_grade is {self.dr_grade}; give a grade from 0 to 4")


@dataclass(frozen=True, kw_only=True, eq=False)
class Vessel:
    """One unbranched piece of the vessel tree."""

    points_xy: FloatArray
    widths: FloatArray
    is_vein: bool
    order: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesions:
    """Places of lesions: float32 arrays of rows (x, y, radius)."""

    drusen: FloatArray
    microaneurysms: FloatArray
    hemorrhages: FloatArray
    exudates: FloatArray
    preretinal: FloatArray
    pigment_clumps: FloatArray
    new_vessels: tuple[Vessel, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Capture:
    """How the eye was photographed: camera, light, clarity of the media, and failures."""

    site: str
    gain: float
    tint: float
    illumination_xy: tuple[float, float]
    vignette: float
    sensor_noise: float
    media_opacity: float
    veil: float = 0.0
    defocus: float = 0.0
    lid_cover: float = 0.0
    lid_angle: float = 0.0
    field_shift_xy: tuple[float, float] = (0.0, 0.0)
    ungradable_kind: str = ""

    def __post_init__(self) -> None:
        """Refuse kinds of failure that no renderer knows."""
        if self.ungradable_kind and self.ungradable_kind not in UNGRADABLE_KINDS:
            raise ConfigError(
                f"ungradable_kind is {self.ungradable_kind!r}; give one of {UNGRADABLE_KINDS}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentEye:
    """One eye on one day: the single source of all its pictures, masks and labels."""

    patient_id: str
    acquired: date
    anatomy: Anatomy
    disease: Disease
    lesions: Lesions
    vessels: tuple[Vessel, ...]
    capture: Capture
    render_seed: int

    @property
    def eye_id(self) -> str:
        """File stem of the eye, such as P000123_OD."""
        return f"{self.patient_id}_{self.anatomy.laterality}"

    def labels(self) -> dict[str, int]:
        """Label values in the order of LABEL_NAMES: 0 or 1, and dr_grade from 0 to 4."""
        d = self.disease
        values: tuple[int, ...] = (
            d.edema > 0,
            d.schisis > 0,
            d.glaucoma > 0,
            d.dr_grade >= 2,
            d.dr_grade,
            d.amd > 0,
            not self.capture.ungradable_kind,
        )
        return {name: int(value) for name, value in zip(LABEL_NAMES, values, strict=True)}

    def scalars(self) -> dict[str, object]:
        """Every latent that is not an array, flat, for the truth file."""
        flat: dict[str, object] = {"patient_id": self.patient_id, "render_seed": self.render_seed}
        flat["acquired"] = self.acquired.isoformat()
        for part in (self.anatomy, self.disease, self.capture):
            assert is_dataclass(part)
            flat.update({field.name: getattr(part, field.name) for field in fields(part)})
        return flat
