"""The demo's verdicts: each target on both sides of its limit, and a blind check is no success."""

from __future__ import annotations

from dataclasses import replace

import pytest
from demo_report_factory import make_pretraining, make_screening

from export.demo.model import PretrainingSummary, ProbeAuroc, ScreeningSummary, UnreadableFiles
from export.demo.targets import judge_targets

GAINS = {"macular_edema": 0.15, "myopic_schisis": 0.05, "glaucoma": 0.05}
FIELDS = {
    "macular_edema": "edema_auroc_gain",
    "myopic_schisis": "schisis_auroc_gain",
    "glaucoma": "glaucoma_auroc_gain",
}


def pretraining_with(gains: dict[str, float | None], **changes: float) -> PretrainingSummary:
    """Two arms whose difference is exactly `gains`."""
    known = {name: value for name, value in gains.items() if value is not None}
    arms = {
        "oct_informed": {
            n: ProbeAuroc(auroc_mean=0.5 + v, auroc_sd=0.01) for n, v in known.items()
        },
        "cfp_only": {n: ProbeAuroc(auroc_mean=0.5, auroc_sd=0.01) for n in known},
    }
    fields = {FIELDS[name]: value for name, value in gains.items()}
    return make_pretraining(arms=arms, **fields, **changes)


def screening_with(**changes: int) -> ScreeningSummary:
    files = UnreadableFiles(num=9, num_no_refer=0, num_control=2, num_control_no_refer=1)
    return make_screening(unreadable_files=replace(files, **changes))


def judge(
    scale: str = "small",
    *,
    gains: dict[str, float | None] | None = None,
    ratio: float = 0.99,
    drop: float = 0.0,
    leak: float = 0.0,
    leak_control: float = 0.02,
    screening: ScreeningSummary | None = None,
) -> dict[str, tuple[bool, str]]:
    """Name -> (met, note); without arguments everything is met."""
    gains = {name: limit + 0.01 for name, limit in GAINS.items()} | (gains or {})
    summary = pretraining_with(gains, gradient_leak=leak, gradient_leak_control=leak_control)
    targets = judge_targets(scale, summary, ratio, drop, screening or screening_with())
    assert len({target.name for target in targets}) == len(targets)
    return {target.name: (target.met, target.note) for target in targets}


def missed(**case: object) -> list[str]:
    return [name for name, (met, _) in judge(**case).items() if not met]  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", ["smoke", "small", "full"])
def test_everything_can_be_met(scale: str) -> None:
    assert missed(scale=scale) == []
    assert all(note == "" for _, note in judge(scale).values())


@pytest.mark.parametrize(("label", "limit"), GAINS.items())
def test_a_gain_must_exceed_its_limit(label: str, limit: float) -> None:
    words = label.replace("_", " ")
    assert missed(gains={label: limit + 1e-6}) == []
    for gain in (limit, limit - 0.01, -0.1, None):
        assert missed(gains={label: gain}) == [f"AUROC gain by OCT, {words}"]
        assert judge(gains={label: gain})[f"AUROC gain by OCT, {words}"][1] != ""


@pytest.mark.parametrize(
    ("case", "word"),
    [
        ({"ratio": 0.9699}, "student mean AUROC"),
        ({"drop": 0.0101}, "lost by INT8"),
        ({"leak": 1e-12}, "gradient leak"),
        ({"leak_control": 0.0}, "OCT is the source"),
        ({"screening": screening_with(num_no_refer=1)}, "cannot be read"),
    ],
)
def test_each_limit(case: dict[str, object], word: str) -> None:
    (name,) = missed(**case)
    assert word in name


@pytest.mark.parametrize("case", [{"ratio": 0.97}, {"drop": 0.01}, {"drop": -0.3}, {"ratio": 1.2}])
def test_at_the_limit_these_are_met(case: dict[str, float]) -> None:
    assert missed(**case) == []


@pytest.mark.parametrize("changes", [{"num": 0}, {"num_control_no_refer": 0}])
def test_a_check_that_could_not_fail_counts_as_not_measured(changes: dict[str, int]) -> None:
    targets = judge_targets("small", make_pretraining(), 1.0, 0.0, screening_with(**changes))
    (target,) = (one for one in targets if "cannot be read" in one.name)
    assert target.value is None
    assert not target.met


class TestSmoke:
    """Few steps find one of two cues: the better of schisis and glaucoma counts, edema never."""

    def test_edema_is_not_asked_for(self) -> None:
        assert missed(scale="smoke", gains={"macular_edema": -0.2}) == []

    @pytest.mark.parametrize("better", ["myopic_schisis", "glaucoma"])
    def test_one_of_two_is_enough(self, better: str) -> None:
        worse = ({"myopic_schisis", "glaucoma"} - {better}).pop()
        found = judge("smoke", gains={better: 0.06, worse: 0.01})
        (name,) = (name for name in found if name.startswith("AUROC gain"))
        assert better.replace("_", " ") in name.partition("(")[2]
        assert found[name][0]

    def test_neither(self) -> None:
        gains = {"macular_edema": 0.4, "myopic_schisis": 0.05, "glaucoma": 0.049}
        (name,) = missed(scale="smoke", gains=gains)
        assert "best of schisis and glaucoma" in name

    def test_not_measured(self) -> None:
        gains: dict[str, float | None] = {"myopic_schisis": None, "glaucoma": None}
        assert len(missed(scale="smoke", gains=gains)) == 1
