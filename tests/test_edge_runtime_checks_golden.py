"""Recorded answers beside an engine's: within tolerance or not, and no number is never within."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bundle_factory import build_bundle
from numpy.typing import NDArray

from edge_runtime.bundle import Bundle, read_bundle
from edge_runtime.checks.golden import GoldenComparison, compare_golden, require_golden
from edge_runtime.engines import Engine, ModelOutput, open_engine
from edge_runtime.errors import EngineError, VerificationError


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    built = build_bundle(tmp_path_factory.mktemp("golden") / "bundle")
    return read_bundle(built.folder, trusted_keys=built.trusted_keys)


class Shifted:
    """An engine whose logits are off."""

    def __init__(self, engine: Engine, by: float) -> None:
        self.inner, self.by = engine, by
        self.name, self.precision, self.facts = engine.name, engine.precision, engine.facts

    def run(self, image_nhwc: NDArray[np.uint8]) -> ModelOutput:
        output = self.inner.run(image_nhwc)
        return replace(output, logits=output.logits + np.float32(self.by))

    def close(self) -> None:
        self.inner.close()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_engine_that_recorded_them_gives_them_again(bundle: Bundle, precision: str) -> None:
    engine = open_engine(bundle, engine="onnxruntime", precision=precision)
    found = compare_golden(bundle, engine)
    assert found.passed
    assert found.num_pictures == len(bundle.golden().image_nhwc)
    assert found.num_probabilities == found.num_pictures * (len(bundle.manifest.labels) + 1)
    require_golden(bundle, engine)
    assert compare_golden(bundle, engine, num_pictures=1).num_pictures == 1
    engine.close()


@pytest.mark.parametrize("by", [2.0, -2.0])
@pytest.mark.parametrize(
    ("name", "remedy"), [("tensorrt", "build it again"), ("onnxruntime", "--provider cpu")]
)
def test_other_answers_are_refused_with_the_figures(
    bundle: Bundle, by: float, name: str, remedy: str
) -> None:
    engine = Shifted(open_engine(bundle, engine="onnxruntime", precision="int8"), by)
    engine.name = name
    with pytest.raises(VerificationError, match=rf"int8.*largest difference .*{remedy}"):
        require_golden(bundle, engine)
    engine.close()


def test_an_answer_that_is_no_number_is_refused(bundle: Bundle) -> None:
    engine = Shifted(open_engine(bundle, engine="onnxruntime", precision="int8"), float("nan"))
    with pytest.raises(EngineError, match="logit of nan"):
        require_golden(bundle, engine)
    engine.close()


@pytest.mark.parametrize(
    ("max_difference", "num_changed", "passed"),
    [(0.0, 0, True), (0.01, 0, True), (0.0101, 0, False), (0.0, 1, False), (np.nan, 0, False)],
)
def test_what_passes(max_difference: float, num_changed: int, passed: bool) -> None:
    found = GoldenComparison(
        num_pictures=3,
        num_probabilities=9,
        max_difference=max_difference,
        atol_probability=0.01,
        num_changed=num_changed,
        num_rounded=1,
    )
    assert found.passed is passed
    assert "1 more within the tolerance of a threshold" in found.detail
