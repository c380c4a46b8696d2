"""The label columns that training learns by default, named once."""

from __future__ import annotations

__all__ = ["DISEASES", "GRADABLE"]

# Binary diseases, in the order of the teacher's and the student's outputs.
DISEASES = ("macular_edema", "myopic_schisis", "glaucoma", "referable_dr", "amd")
GRADABLE = "gradable"
