"""The student as its INT8 file computes it: rounded weights, rounded activations, float heads.

Weights are those of the student itself: training this trains the student.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from distill.qat.fake_quant import FakeQuant
from distill.qat.rounded_conv import RoundedConv
from distill.qat.rounded_graph import rounded_graph
from distill.student import Student, StudentOutput

__all__ = ["RoundedStudent"]


class RoundedStudent(nn.Module):
    """Same call and answer as `Student`.

    Attributes:
        student: whose weights these are.
        ranges: one rounding for each quantised tensor but the picture, by its name in the trace,
            in the order they are computed.
    """

    def __init__(self, student: Student) -> None:
        """Trace; ranges are 1 until they are measured.

        Raises:
            ConfigError: the backbone cannot be traced, or a layer has no INT8 form.
        """
        super().__init__()
        self.student = student
        traced, quantizers = rounded_graph(student.backbone)
        self.ranges = nn.ModuleDict(quantizers)
        # In a tuple: its layers are the student's and are not to be registered twice.
        self._traced = (traced,)

    def forward(self, cfp_nchw: torch.Tensor) -> StudentOutput:
        """(N, 3, S, S) normalised float32 -> StudentOutput."""
        return self.student.read(self._traced[0](cfp_nchw))

    def range_values(self) -> dict[str, float]:
        """Tensor -> largest absolute value that INT8 holds."""
        return {name: float(one.get_buffer("amax")) for name, one in self.ranges.items()}

    @contextmanager
    def watching(self, watch: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
        """Inside, nothing is rounded and `watch` sees (name, values) of each of `ranges`."""
        convs = [m for m in self._traced[0].modules() if isinstance(m, RoundedConv)]
        for conv in convs:
            conv.paused = True
        for name, one in self.ranges.items():
            assert isinstance(one, FakeQuant)
            one.watch = partial(watch, name)
        try:
            yield
        finally:
            for conv in convs:
                conv.paused = False
            for one in self.ranges.values():
                assert isinstance(one, FakeQuant)
                one.watch = None
