"""The choice of a triple: nearest in time, against a slow search over every combination."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from train.pairing.match import Triple, choose_triple, slot_of
from train.pairing.raw import RawImage
from train.pairing.sources import FileSource
from train.pairing.times import parse_moment

SLOTS = {"cfp": ("cfp", "macula"), "oct_h": ("oct", "macula_h"), "oct_v": ("oct", "macula_v")}


def _image(row, slot, minute):
    modality, kind = SLOTS[slot]
    return RawImage(
        row=row,
        patient_id="P1",
        eye="OD",
        acquired=parse_moment(f"2026-01-05T10:{minute:02d}"),
        site="north",
        modality=modality,
        scan_kind=kind,
        source=FileSource(root=Path(), name=f"{row:03d}.png"),
        labels={},
    )


visits = st.lists(st.tuples(st.sampled_from(sorted(SLOTS)), st.integers(0, 12)), max_size=9).map(
    lambda items: [_image(row, *item) for row, item in enumerate(items)]
)


def _slow_choice(images):
    """Every combination, compared by gap and then by the stated order."""
    by_slot = {name: [one for one in images if slot_of(one) == name] for name in SLOTS}
    return min(
        (Triple(cfp=c, oct_h=h, oct_v=v) for c, h, v in product(*by_slot.values())),
        key=lambda t: (t.gap_us, t.cfp.order, t.oct_h.order, t.oct_v.order),
        default=None,
    )


@given(visits)
def test_the_choice_is_the_nearest_of_all_combinations(images):
    found = choose_triple(images, allow_missing="none")
    slow = _slow_choice(images)
    if slow is None:
        assert found in {name for name in SLOTS if name not in map(slot_of, images)}
    else:
        assert found.gap_us == slow.gap_us
        assert found.cfp == slow.cfp
        best = {slow.oct_h.order, slow.oct_v.order}
        assert {found.oct_h.order, found.oct_v.order} == best


@given(visits, st.randoms())
def test_the_order_of_rows_does_not_matter(images, random):
    shuffled = list(images)
    random.shuffle(shuffled)
    for allow in ("none", "oct_v", "oct"):
        there, here = (choose_triple(one, allow_missing=allow) for one in (images, shuffled))
        assert there == here


@given(visits)
def test_only_what_may_be_missing_is_missing(images):
    slots = set(map(slot_of, images))
    for allow, may_lack in (("none", set()), ("oct_v", {"oct_v"}), ("oct", {"oct_h", "oct_v"})):
        found = choose_triple(images, allow_missing=allow)
        if isinstance(found, str):
            assert found not in slots
            assert found not in may_lack
        else:
            assert {slot_of(image) for image in found.images} == slots  # nothing left out
            assert set(SLOTS) - slots <= may_lack


def test_ties_go_to_the_earlier_and_then_to_the_first_name():
    cfp = _image(5, "cfp", 6)
    scans = [_image(row, "oct_h", minute) for row, minute in ((9, 8), (8, 4), (7, 4))]
    found = choose_triple([cfp, *scans], allow_missing="oct_v")
    assert found.oct_h.row == 7
    twins = [_image(4, "cfp", 6), cfp]
    assert choose_triple([*twins, *scans], allow_missing="oct_v").cfp.row == 4
