"""What the teacher says of a picture, and its tokens at two depths.

Legend: N images, S side in pixels, T tokens, D width of the teacher.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from train.teacher import Teacher, TeacherOutput

__all__ = ["TeacherEye", "TeacherView"]

_MIDDLE_SHARE = 0.75  # of the blocks lie before the middle tokens


@dataclass(frozen=True, kw_only=True)
class TeacherView:
    """One look.

    Attributes:
        output: what the teacher says.
        middle_ntd: (N, T, D) tokens after three quarters of the blocks; with one block those
            that enter it.
        final_ntd: (N, T, D) tokens after the final norm.
    """

    output: TeacherOutput
    middle_ntd: torch.Tensor
    final_ntd: torch.Tensor


class TeacherEye:
    """A teacher that only looks: no gradient, evaluation mode."""

    def __init__(self, teacher: Teacher, *, bfloat16: bool) -> None:
        """Use a teacher where it is; `bfloat16` runs it in that precision."""
        self.teacher, self.use_bfloat16 = teacher.eval(), bfloat16
        blocks = teacher.encoder.blocks
        depth = int(_MIDDLE_SHARE * len(blocks))
        self._middle = blocks[depth] if len(blocks) else teacher.encoder.norm

    @property
    def width(self) -> int:
        """D."""
        return self.teacher.encoder.config.width

    @property
    def grid(self) -> int:
        """Tokens a side."""
        return math.isqrt(self.teacher.encoder.config.num_tokens)

    def look(self, cfp_nchw: torch.Tensor) -> TeacherOutput:
        """(N, 3, S, S) normalised -> what the teacher says."""
        with (
            torch.no_grad(),
            torch.autocast(cfp_nchw.device.type, torch.bfloat16, enabled=self.use_bfloat16),
        ):
            output: TeacherOutput = self.teacher(cfp_nchw)
        return output

    def look_inside(self, cfp_nchw: torch.Tensor) -> TeacherView:
        """The same, with the tokens on the way."""
        seen: list[torch.Tensor] = []

        def keep(_: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
            seen.append(inputs[0])

        handle = self._middle.register_forward_pre_hook(keep)
        try:
            output = self.look(cfp_nchw)
        finally:
            handle.remove()
        return TeacherView(output=output, middle_ntd=seen[0].float(), final_ntd=output.tokens)
