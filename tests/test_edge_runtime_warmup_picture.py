"""The drawn photograph must go all the way that a camera's picture goes."""

from __future__ import annotations

import pytest

from edge_runtime.fundus.quality import QualityLimits, assess_image
from edge_runtime.preprocess import PreprocessSpec, load_for_model
from edge_runtime.warmup_picture import warmup_jpeg


@pytest.mark.parametrize("size_px", [32, 224, 512])
def test_it_is_decoded_at_a_reduced_scale_and_passes_the_quality_gate(size_px: int) -> None:
    data = warmup_jpeg(size_px)
    assert data[:2] == b"\xff\xd8"
    decoded, preprocessed = load_for_model(data, PreprocessSpec(size_px=size_px))
    assert decoded.reduction > 1
    assert preprocessed.image_hwc.shape == (size_px, size_px, 3)
    assert assess_image(decoded, preprocessed, QualityLimits()).reasons == ()
    assert data == warmup_jpeg(size_px)
