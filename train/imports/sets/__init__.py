"""Published sets by name: each module reads one layout, or a family of like ones."""

from __future__ import annotations

from train.imports.sets.aptos import APTOS
from train.imports.sets.brset import BRSET
from train.imports.sets.deepdrid import DEEPDRID
from train.imports.sets.eyepacs import EYEPACS
from train.imports.sets.gamma import GAMMA
from train.imports.sets.idrid import IDRID_GRADING, IDRID_SEGMENTATION
from train.imports.sets.layout import SetLayout
from train.imports.sets.messidor import MESSIDOR_2
from train.imports.sets.named_classes import FIVES, HRF
from train.imports.sets.odir import ODIR_5K
from train.imports.sets.refuge import REFUGE
from train.imports.sets.rfmid import RFMID
from train.imports.sets.vessels import CHASE_DB1, DRIVE, STARE

__all__ = ["SETS", "SetLayout"]

_ALL = (
    *(ODIR_5K, EYEPACS, APTOS, MESSIDOR_2, IDRID_GRADING, IDRID_SEGMENTATION, DEEPDRID, BRSET),
    *(REFUGE, GAMMA, RFMID, DRIVE, CHASE_DB1, STARE, HRF, FIVES),
)
SETS: dict[str, SetLayout] = {layout.facts.name: layout for layout in _ALL}
