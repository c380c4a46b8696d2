"""Run the mutants in child processes, so that a crash or a hang is one failure and not the end.

Each child works through ranges of indices and says in shared memory which one it has begun, and
when. A child that dies or stays on one mutant is replaced; that mutant is a failure, the rest of
its range is done by the next child.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from image_fuzz import Account, Failure, Subject, examine, make_mutant

__all__ = ["Campaign", "run_campaign"]

_HANG_S = 20.0  # nothing heard for so long: the child is ended; what is merely slow ends itself
_NUM_PROCESSES = 2

Range = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """Which mutants, and by whom they are judged. `open_subject` runs in the child."""

    size: str
    num: int
    open_subject: Callable[[], Subject]
    seed: int = 0
    chunk: int = 250
    hang_s: float = _HANG_S


def run_campaign(campaign: Campaign, *, say: Callable[[str], None] = print) -> Account:
    """Run every mutant of a campaign; return the account, and say how far it is."""
    starts = range(0, campaign.num, campaign.chunk)
    waiting = deque((start, min(start + campaign.chunk, campaign.num)) for start in starts)
    account, begun = Account(), time.monotonic()
    children = [_Child(campaign) for _ in range(min(_NUM_PROCESSES, len(waiting)))]
    step = max(campaign.num // 20, campaign.chunk)
    try:
        while waiting or any(child.work for child in children):
            for child in children:
                if child.work is None and waiting:
                    child.give(waiting.popleft())
            before = account.num
            for done, left in [child.poll() for child in _ready(children)]:
                account.add(done)
                waiting.extend(left)
            if account.num // step > before // step:
                rate = account.num / (time.monotonic() - begun)
                say(f"{campaign.size}: {account.num} of {campaign.num}, {rate:.0f} a second")
    finally:
        for child in children:
            child.stop()
    return account


def _ready(children: list[_Child]) -> list[_Child]:
    """Children that have an answer, died, or are overdue."""
    busy = [child for child in children if child.work]
    heard = set(wait([thing for child in busy for thing in child.signals()], timeout=0.2))
    return [child for child in busy if heard.intersection(child.signals()) or child.overdue()]


class _Child:
    """One process, and what it is at."""

    def __init__(self, campaign: Campaign) -> None:
        self._campaign = campaign
        self.work: Range | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        # Index of the mutant, and the time at which it was begun (both 0 while there is none).
        self._at = context.Array("d", [0.0, 0.0], lock=False)
        self._process = context.Process(
            target=_work, args=(self._campaign, there, self._at), daemon=True
        )
        self._process.start()
        there.close()

    def signals(self) -> tuple[Any, ...]:
        """What becomes ready when the child answers or ends."""
        return (self._here, self._process.sentinel)

    def give(self, work: Range) -> None:
        """Hand a range of indices to an idle child."""
        self.work = work
        self._here.send(work)

    def overdue(self) -> bool:
        """Whether the child has been at one mutant for too long."""
        return self._at[1] > 0 and time.monotonic() - self._at[1] > self._campaign.hang_s

    def poll(self) -> tuple[Account, list[Range]]:
        """What the child has done of its range, and the ranges that are left of it."""
        assert self.work is not None
        (start, stop), self.work = self.work, None
        hung = self.overdue()
        if not hung and self._here.poll():
            try:
                return self._here.recv(), []
            except EOFError:
                pass
        if hung:
            self._process.kill()
        self._process.join()
        index, seen = int(self._at[0]), self._at[1] > 0
        end = f"no answer for {self._campaign.hang_s:g} s"
        end = end if hung else f"the process ended with {self._process.exitcode}"
        if not seen:
            raise RuntimeError(f"a child cannot begin: {end}")
        self._start()
        return _lost(self._campaign, index, end), [
            (low, high) for low, high in ((start, index), (index + 1, stop)) if low < high
        ]

    def stop(self) -> None:
        """End the child."""
        self._here.close()
        self._process.kill()
        self._process.join()


def _lost(campaign: Campaign, index: int, end: str) -> Account:
    """The account of one mutant that ended its process."""
    mutant = make_mutant(campaign.size, campaign.seed, index)
    failure = Failure(index=index, form=mutant.form, way=mutant.way, what=end)
    account = Account(num=1, failures=[failure])
    account.outcomes["crash or hang"] += 1
    return account


def _work(campaign: Campaign, pipe: Connection, at: Any) -> None:
    """What a child does: judge ranges of mutants until the pipe closes."""
    _silence_decoders()
    subject = campaign.open_subject()
    while True:
        try:
            start, stop = pipe.recv()
        except EOFError:
            return
        account = Account()
        for index in range(start, stop):
            mutant = make_mutant(campaign.size, campaign.seed, index)
            at[0], at[1] = float(index), time.monotonic()
            examine(subject, mutant, account)
        at[1] = 0.0
        pipe.send(account)


def _silence_decoders() -> None:
    """libjpeg and libpng write a line a damaged file to the standard error; one thread a child."""
    import cv2

    cv2.setNumThreads(1)
    quiet = os.open(Path(os.devnull), os.O_WRONLY)
    os.dup2(quiet, 2)
