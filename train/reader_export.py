"""A reader study as iMRMC input, for a formal multi-reader multi-case analysis elsewhere.

The format is that of FDA's iMRMC (github.com/DIDSR/iMRMC), which RJafroc reads, too: free
lines with NR, N0, N1 and NM (readers, cases without and with the finding, modalities),
'BEGIN DATA:', then `reader,case,modality,score`. Reader -1 with modality 0 is the truth.

A group is a modality, and so is the model: its decision stands in for every reader, so that
each reader has both and the two modalities are paired. Scores are decisions 0 and 1, whose
AUC is the balanced accuracy.
"""

from __future__ import annotations

import csv
import io

import numpy as np

from train.reader_tables import MODEL, ReaderStudy
from train.readers import verdicts

__all__ = ["imrmc_identifiers", "imrmc_text"]


def imrmc_text(study: ReaderStudy, *, undecided: str = "refer") -> str:
    """The file's content; everything is numbered, as `imrmc_identifiers` lists.

    The format knows no patients: two eyes of one patient count as two independent cases.
    Give it one eye a patient where that matters.

    Raises:
        ConfigError: `undecided` is no rule.
    """
    readers = verdicts(study.decisions_rc, study.read_rc, study.truth_c, undecided)
    model = verdicts(
        study.model_c[None], np.ones((1, len(study.truth_c)), np.bool_), study.truth_c, undecided
    )
    modality = {name: m for m, name in enumerate(_modalities(study), start=1)}
    lines = [
        "edge-screen reader study; research use only, not a medical device",
        *(["synthetic eyes, no patients"] if study.synthetic else []),
        f"NR: {len(study.reader_ids)}",
        f"N0: {int((~study.truth_c).sum())}",
        f"N1: {int(study.truth_c.sum())}",
        f"NM: {len(modality)}",
        "",
        "BEGIN DATA:",
    ]
    lines += [f"-1,{case},0,{int(truth)}" for case, truth in enumerate(study.truth_c, start=1)]
    for row, group in enumerate(study.groups.tolist()):
        for c in np.flatnonzero(readers.counted_oc[row] & model.counted_oc[0]):
            place = f"{row + 1},{c + 1}"
            lines.append(f"{place},{modality[group]},{int(readers.positive_oc[row, c])}")
            lines.append(f"{place},{modality[MODEL]},{int(model.positive_oc[0, c])}")
    return "\n".join(lines) + "\n"


def imrmc_identifiers(study: ReaderStudy) -> str:
    """CSV `kind,number,name`: which reader, case and modality a number means."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["kind", "number", "name"])
    for kind, names in (
        ("reader", study.reader_ids.tolist()),
        ("case", study.case_ids.tolist()),
        ("modality", _modalities(study)),
    ):
        writer.writerows([kind, number, name] for number, name in enumerate(names, start=1))
    return out.getvalue()


def _modalities(study: ReaderStudy) -> list[str]:
    return [*sorted(set(study.groups.tolist())), MODEL]
