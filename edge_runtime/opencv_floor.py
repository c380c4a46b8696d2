"""The oldest OpenCV that may decode a patient's picture."""

from __future__ import annotations

import re

import cv2

from edge_runtime.errors import EngineError

__all__ = ["OPENCV_FLOOR", "opencv_problem", "require_opencv"]

OPENCV_FLOOR = (4, 12)


def opencv_problem() -> str | None:
    """Return what is wrong with the OpenCV that is imported here, None when nothing is.

    `cv2.__version__` is asked and not the installed package: several packages bring a `cv2`,
    and the last one installed wins.
    """
    found = tuple(int(part) for part in re.findall(r"\d+", cv2.__version__)[:2])
    if len(found) == len(OPENCV_FLOOR) and found >= OPENCV_FLOOR:
        return None
    floor = ".".join(map(str, OPENCV_FLOOR))
    return (
        f"OpenCV is {cv2.__version__}, older than {floor}: older decoders may return another "
        f"picture's pixels; install opencv-python-headless {floor} or newer"
    )


def require_opencv() -> None:
    """Refuse to screen with an older OpenCV.

    Raises:
        EngineError: with the version found, the floor and the reason.
    """
    problem = opencv_problem()
    if problem is not None:
        raise EngineError(problem)
