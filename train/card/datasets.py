"""The data sets of a card: their eyes with what is known of them, and where they come from."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import ConfigError, DataError
from train.card.config import CardConfig
from train.card.tables import EyeRow
from train.data.index import EyeVisit, read_index
from train.data.origin import read_origin

__all__ = ["DERIVED", "CardData", "DataFacts", "load_data", "require_roles"]

# Where a data set has a grade in the place of a label: label -> (grade, least grade).
DERIVED: Mapping[str, tuple[str, int]] = {
    "diabetic_retinopathy": ("dr_grade", 1),
    "referable_dr": ("dr_grade", 2),
    "glaucoma": ("glaucoma_grade", 1),
}


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What a card says of a data set.

    Attributes:
        name: as given.
        role: 'in-domain' or 'external'.
        split: whose eyes are scored.
        synthetic: its dataset.json says so.
        fingerprint: SHA-256 over rows and files.
        terms: of import.json; '' without one.
        derived: sentences, such as 'referable_dr is dr_grade >= 2'.
        num_eyes: pictures of the split.
        num_patients: their patients.
    """

    name: str
    role: str
    split: str
    synthetic: bool
    fingerprint: str
    terms: str
    derived: tuple[str, ...]
    num_eyes: int
    num_patients: int


@dataclass(frozen=True, kw_only=True)
class CardData:
    """One data set: facts, rows, and the picture of each row in the same order."""

    facts: DataFacts
    eyes: tuple[EyeRow, ...]
    pictures: tuple[Path, ...]


def load_data(name: str, root: Path, config: CardConfig) -> CardData:
    """Read the eyes of one split that have a photograph.

    Raises:
        DataError: the data set breaks its contract, the split has no photograph, or one twice.
    """
    index = read_index(root)
    visits = [visit for visit in index.split(config.split) if "cfp" in visit.files]
    if not visits:
        raise DataError(f"split '{config.split}' of data set '{name}' has no photograph")
    fingerprint = index.fingerprint()
    missing = {
        label: rule
        for label, rule in DERIVED.items()
        if label not in index.label_names and rule[0] in index.label_names
    }
    facts = DataFacts(
        name=name,
        role="in-domain" if name in config.in_domain else "external",
        split=config.split,
        synthetic=read_origin(root, fingerprint=fingerprint).synthetic,
        fingerprint=fingerprint,
        terms=_terms(root),
        derived=tuple(
            f"{label} is {grade} >= {least}" for label, (grade, least) in missing.items()
        ),
        num_eyes=len(visits),
        num_patients=len({visit.patient_id for visit in visits}),
    )
    eyes = tuple(_eye_row(name, visit, missing) for visit in visits)
    _require_distinct(eyes, visits)
    return CardData(facts=facts, eyes=eyes, pictures=tuple(visit.files["cfp"] for visit in visits))


def require_roles(config: CardConfig, names: list[str]) -> None:
    """Refuse a name given twice, and an in-domain data set that is not among them.

    Raises:
        ConfigError: naming it.
    """
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"data set '{name}' is given twice; give each a name of its own")
    for name in config.in_domain:
        if name not in names:
            raise ConfigError(f"in-domain data set '{name}' is not among {', '.join(names)}")


def _eye_row(name: str, visit: EyeVisit, missing: Mapping[str, tuple[str, int]]) -> EyeRow:
    values = {label: value for label, value in visit.labels.items() if math.isfinite(value)}
    for label, (grade, least) in missing.items():
        if grade in values:
            values[label] = float(values[grade] >= least)
    return EyeRow(
        dataset=name,
        patient_id=visit.patient_id,
        eye=visit.eye,
        site=visit.site,
        image_sha256=hashlib.sha256(visit.files["cfp"].read_bytes()).hexdigest(),
        values=values,
    )


def _require_distinct(eyes: Sequence[EyeRow], visits: Sequence[EyeVisit]) -> None:
    """Refuse the same picture of the same eye in two rows: it would count twice."""
    first: dict[tuple[str, ...], int] = {}
    for eye, visit in zip(eyes, visits, strict=True):
        number = first.setdefault(eye.key, visit.row_number)
        if number != visit.row_number:
            raise DataError(
                f"data set '{eye.dataset}': row {visit.row_number} has the eye and the picture of "
                f"row {number} again; remove one"
            )


def _terms(root: Path) -> str:
    """The terms that the importer wrote beside the data set."""
    path = root / "import.json"
    if not path.exists():
        return ""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"import.json cannot be read: {error}; import the set again") from error
    terms = record.get("terms") if isinstance(record, dict) else None
    if not isinstance(terms, str) or not terms:
        raise DataError("import.json has no text 'terms'; import the data set again")
    return terms
