"""What an operator does next: for each answer, and for each reason why a picture was refused.

One source for the report page and for the tables of `docs/operator.md`, which a test holds to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.result import Decision

__all__ = ["ANSWERS", "REFUSALS", "Answer", "Refusal", "next_step"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One of the three answers: the large word, what it means, what to do."""

    word: str
    meaning: str
    next_step: str


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """One row of the table of refusals; `reasons` are texts that a result can carry."""

    reasons: tuple[str, ...]
    happened: str
    next_step: str


ANSWERS = {
    Decision.REFER: Answer(
        word="REFER",
        meaning="At least one disease label of a gradable eye reached its operating point.",
        next_step="Refer for an examination by an eye doctor.",
    ),
    Decision.NO_REFER: Answer(
        word="NO REFER",
        meaning="Every expected eye was read, is gradable, and every label stayed below its "
        "operating point.",
        next_step="Follow the local recall interval.",
    ),
    Decision.UNGRADABLE: Answer(
        word="UNGRADABLE",
        meaning="At least one expected eye could not be judged, and no other eye refers.",
        next_step="Take the picture again; if that fails, refer.",
    ),
}

REFUSALS = (
    Refusal(
        reasons=("missing image",),
        happened="No picture was given for an expected eye or for a field that the bundle's "
        "protocol asks for, or the path does not exist.",
        next_step="Take it, or check the path and the card.",
    ),
    Refusal(
        reasons=("image unreadable",),
        happened="Empty, cut, damaged, a folder, not JPEG, "
        "PNG, TIFF, BMP or DICOM, one channel (grayscale), CMYK, 16 bits, partly transparent, "
        "several pages or frames, two pictures in one file, a DICOM file of both eyes. "
        "The line below the reason says which.",
        next_step="Copy it again from the camera; export 8-bit RGB JPEG or PNG.",
    ),
    Refusal(
        reasons=("decoder stopped",),
        happened="The child process that decoded the picture (`--isolate`) was too slow, needed "
        "too much memory or ended: by the picture, or because the machine was busy.",
        next_step="Try again; if it repeats, copy it again from the camera.",
    ),
    Refusal(
        reasons=("laterality conflict",),
        happened="The picture was given as one eye and its DICOM file names the other. Nothing is "
        "changed by the program.",
        next_step="Find out which eye it shows; enter it so, or correct it at the camera.",
    ),
    Refusal(
        reasons=("image too large",),
        happened="More than 40 megapixels, 60 MB, 100 scans, or 4 MB of LZW in a TIFF; refused "
        "before decoding.",
        next_step="Give the camera's own JPEG, or export it smaller, or without LZW.",
    ),
    Refusal(
        reasons=("image differs from its expected SHA-256",),
        happened="The bytes are not what the camera recorded.",
        next_step="Transfer it again.",
    ),
    Refusal(
        reasons=("no field of view found",),
        happened="No circular field on a dark border, or one too small.",
        next_step="Centre and focus; give the uncropped original.",
    ),
    Refusal(
        reasons=("not a colour fundus photograph",),
        happened="No colour, wrong colours, one tint, many hues, or edges that no retina has: "
        "another modality, a scene, a screen, text, noise.",
        next_step="Use the colour photograph of the eye, not red-free, OCT or a screenshot.",
    ),
    Refusal(
        reasons=("dark", "overexposed"),
        happened="Too little light in the field / its green channel is burnt out.",
        next_step="Adjust flash and pupil distance; clean the lens.",
    ),
    Refusal(
        reasons=("blur",),
        happened="Hardly any detail.",
        next_step="Focus; ask the patient to blink and hold still.",
    ),
    Refusal(
        reasons=("artefact",),
        happened="A shadow of lid or lashes, a reflection or flare over much of the field, a flat "
        "area without noise (lost data), or a straight step across it (shifted blocks, a lid's "
        "bright edge).",
        next_step="Open the lids wide, clean the lens, take it again; if a straight step stays, "
        "copy the file again.",
    ),
    Refusal(
        reasons=("off-centre", "small field"),
        happened="The field leaves the frame / fills too little of it.",
        next_step="Align the camera.",
    ),
    Refusal(
        reasons=("too few pixels per degree",),
        happened="The file has fewer pixels across the field than the bundle's protocol asks for "
        "(`edge-screen inspect`, line `pixels`).",
        next_step="Give the camera's original, not a reduced copy.",
    ),
    Refusal(
        reasons=("low gradability probability",),
        happened="The model cannot judge this picture.",
        next_step="Take it again; if it stays, refer (cataract, small pupil).",
    ),
    Refusal(
        reasons=("a probability lies in the abstention band",),
        happened="The maker of the bundle asked for a band near the threshold in which nothing is "
        "said; the label says `doubtful`.",
        next_step="Take another picture; if it stays, refer.",
    ),
    Refusal(
        reasons=("same image given for two eyes",),
        happened="Right and left are one picture, in one file or in two; the eye is not cleared.",
        next_step="Find the other eye's picture.",
    ),
    Refusal(
        reasons=("same image given for two fields of an eye",),
        happened="Both fields are one picture, in one file or in two; the eye is not cleared.",
        next_step="Find the other field's picture.",
    ),
    Refusal(
        reasons=("same image given for two examinations",),
        happened="A picture of this examination was given for an earlier one of the list, too, in "
        "one file or in a copy; this one is not cleared, and both are named on stderr "
        "and in the reports.",
        next_step="Find out whose picture it is.",
    ),
    Refusal(
        reasons=("engine error", "internal error"),
        happened="The model did not run, or returned no finite number.",
        next_step="`edge-screen doctor`, `edge-screen verify`; then call the vendor.",
    ),
    Refusal(
        reasons=("deadline exceeded",),
        happened="The answer came later than the device allows.",
        next_step="Try again; if it repeats, `edge-screen bench`.",
    ),
)

_BY_REASON = {reason: one.next_step for one in REFUSALS for reason in one.reasons}


def next_step(reason: str) -> str:
    """Return what to do about a reason; one that has no row asks for a new picture."""
    return _BY_REASON.get(reason, ANSWERS[Decision.UNGRADABLE].next_step)
