"""Decoding in a capped child process: what a hostile file can do ends with the child.

    pool       IsolatedLoader: one child per concurrent caller, started on demand    parent
    limits     IsolationLimits: what one picture may cost                            parent
    process    one child as its parent sees it: start, exchange a frame, end         parent
    answers    what an answer says, and whether to believe it                        both
    wire       frames on the pipes: number, JSON text, raw data                      both
    child      the program of the child                                             child
    confine    the limits that the child puts on itself                             child

The child gets the bytes of one picture and gives back the model's input, the facts that a result
records and the quality gate's answer; never the decoded image. The parent believes nothing: every
length, shape, range and the SHA-256 of the picture are checked. Nothing is pickled.
"""

from __future__ import annotations

from edge_runtime.isolation.limits import IsolationLimits
from edge_runtime.isolation.pool import IsolatedLoader

__all__ = ["IsolatedLoader", "IsolationLimits"]
