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


def crashing() -> Subject:
    """Reads from address 0 when a file has an odd length."""

    def screen(data: bytes) -> Verdict:
        if len(data) % 2:
            ctypes.string_at(0)
        return Verdict(disposition=UNGRADABLE, reason="image unreadable")

    return screen


def hanging() -> Subject:
    """Never answers when a file is longer than every intact one."""

    def screen(data: bytes) -> Verdict:
        while len(data) > 300_000:
            time.sleep(1)
        return Verdict(disposition=UNGRADABLE, reason="image unreadable")

    return screen


def untyped() -> Subject:
    """Lets an error escape that no caller expects, once in a while."""

    def screen(data: bytes) -> Verdict:
        error = "IndexError" if len(data) % 5 == 0 else None
        return Verdict(disposition=UNGRADABLE, reason="internal error", untyped=error)

    return screen
