"""Children for the tests of isolation: real ones, and programs that misbehave as told."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path

from edge_runtime.bundle_parts.manifest import Protocol
from edge_runtime.eye_pipeline import StageClock
from edge_runtime.fundus.quality import QualityLimits
from edge_runtime.image import DecodeLimits
from edge_runtime.isolation.child import versions
from edge_runtime.isolation.wire import Frame, pack_head
from edge_runtime.loading import LoadedPicture, LoadSettings, PictureLoader
from edge_runtime.preprocess import PreprocessSpec
from edge_runtime.strict_json import canonical_json

SETTINGS = LoadSettings(
    spec=PreprocessSpec(size_px=80),
    quality=QualityLimits(),
    protocol=Protocol(
        fields_per_eye=1,
        field_degrees=45.0,
        cameras=("any",),
        min_pixels_per_degree=None,
        warn_pixels_per_degree=None,
    ),
    decode=DecodeLimits(max_megapixels=40),
)
READY = Frame(number=0, text=canonical_json(versions()))

# Speaks the wire by itself, so that it starts fast and shares no code with what it tests.
_FAKE = """
import hashlib, os, signal, struct, sys, time
def read(count):
    data = b""
    while len(data) < count:
        more = os.read(0, count - len(data))
        if not more: sys.exit(0)
        data += more
    return data
def head():
    return struct.unpack("<4sQII", read(20))
def send(number, text, data=b"", magic=b"ESD1"):
    whole = struct.pack("<4sQII", magic, number, len(text), len(data)) + text + data
    while whole: whole = whole[os.write(1, whole):]
_, _, num_text, num_data = head()
read(num_text + num_data)
os.write(1, bytes.fromhex(sys.argv[1]))
while True:
    _, number, num_text, num_data = head()
"""
_TAKE = "    read(num_text); data = read(num_data); sha = hashlib.sha256(data).hexdigest()\n"


def fake_child(behaviour: str, *, takes_picture: bool = True, ready: Frame = READY) -> list[str]:
    """Return the command of a child that is ready and then runs `behaviour` on every request.

    `number`, `num_data` and, where it takes the picture, `data` and `sha` are defined there.
    """
    said = (pack_head(ready) + ready.text + ready.data).hex()
    lines = "".join(f"    {line}\n" for line in behaviour.splitlines())
    program = _FAKE + (_TAKE if takes_picture else "") + lines
    return [sys.executable, "-I", "-S", "-c", program, said]


def error_text(error: str, message: str | None) -> str:
    """Return the expression, for `fake_child`, of an answer's text."""
    names = ("decoded", "preprocessed", "report", "quality_ms")
    said = {"error": error, "message": message, **dict.fromkeys(names)}
    return f"('{json.dumps(said)[:-1]}, \"sha256\": \"' + sha + '\"}}').encode()"


def load(loader: PictureLoader, data: bytes, *, deadline_s: float | None = None) -> LoadedPicture:
    """Load one picture with a clock of its own."""
    clock = StageClock(None if deadline_s is None else time.perf_counter() + deadline_s)
    return loader.load(data, hashlib.sha256(data).hexdigest(), clock)


def num_open_files() -> int:
    """How many file descriptors this process holds."""
    return len(list(Path("/proc/self/fd").iterdir()))


def state_of(pid: int) -> str | None:
    """Return the kernel's letter for a process ('Z' for a zombie), None when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()[0]


def child_pids() -> set[int]:
    """Processes that this one started and has not reaped, zombies included."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue
            if int(text.rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(entry.name))
    return found
