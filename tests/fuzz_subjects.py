"""Subjects that break a promise on purpose, to see that the fuzzer notices each."""

from __future__ import annotations

import ctypes
import time

import cv2
import numpy as np
from image_fuzz import NO_REFER, UNGRADABLE, Subject, Verdict

__all__ = ["crashing", "hanging", "lax", "untyped"]


def lax() -> Subject:
    """Believes a decoder that drops its warnings: whatever gives pixels is decided."""

    def screen(data: bytes) -> Verdict:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
        if pixels is None:
            return Verdict(disposition=UNGRADABLE, reason="image unreadable")
        return Verdict(disposition=NO_REFER, reason="")

    return screen


def crashing(victim: bytes) -> Subject:
    """Reads from address 0 when it is handed one certain file."""

    def screen(data: bytes) -> Verdict:
        if data == victim:
            ctypes.string_at(0)
        return Verdict(disposition=UNGRADABLE, reason="image unreadable")

    return screen


def hanging(victim: bytes) -> Subject:
    """Never answers to one certain file."""

    def screen(data: bytes) -> Verdict:
        while data == victim:
            time.sleep(1)
        return Verdict(disposition=UNGRADABLE, reason="image unreadable")

    return screen


def untyped() -> Subject:
    """Lets an error escape that no caller expects, once in a while."""

    def screen(data: bytes) -> Verdict:
        error = "IndexError" if len(data) % 5 == 0 else None
        return Verdict(disposition=UNGRADABLE, reason="internal error", untyped=error)

    return screen
