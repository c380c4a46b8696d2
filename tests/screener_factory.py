"""Two small photographs, and an engine that answers what a test wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from bundle_factory import fundus_png

from edge_runtime.bundle import Bundle
from edge_runtime.bundle_parts.manifest import AbstentionBand
from edge_runtime.engines import EngineFacts, ModelOutput

GOOD = fundus_png()
OTHER = fundus_png(seed=1)


class FakeEngine:
    """An engine whose answer, or whose failure, the test chooses."""

    name = "onnxruntime"
    precision = "int8"
    facts = EngineFacts()
    max_callers = 64

    def __init__(
        self,
        logits: tuple[float, float] = (-3.0, -3.0),
        *,
        gradability: float = 3.0,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self.logits, self.gradability, self.before = logits, gradability, before
        self.num_runs = 0
        self.timeout_s: float | None = None

    def run(self, image_nhwc: np.ndarray, *, timeout_s: float | None = None) -> ModelOutput:
        self.timeout_s = timeout_s
        assert image_nhwc.ndim == 4
        self.num_runs += 1
        self.before()
        return ModelOutput(
            logits=np.array(self.logits, np.float32),
            gradability_logit=self.gradability,
            embedding=np.zeros(4, np.float32),
            evidence=np.full((2, 3, 3), self.logits[0], np.float32),
        )

    def close(self) -> None:
        """Nothing to release."""


def with_band(bundle: Bundle, low: float) -> Bundle:
    """The bundle with an abstention band on its first label."""
    first, second = bundle.manifest.labels
    band = AbstentionBand(low=low, risk=0.1, num_patients=40)
    labels = (replace(first, abstention=band), second)
    return replace(bundle, manifest=replace(bundle.manifest, labels=labels))
