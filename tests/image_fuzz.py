"""Damage intact pictures and screen them, mutant after mutant, and keep account.

One mutant is fixed by (size, seed, index). To see one again, and to keep its file:

    python tests/image_fuzz.py --size 256px --seed 0 --index 4711 --save mutant.bin
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
from damage import damaged
from fault_bundle import open_screener
from fault_pictures import FORMATS, NUM_PICTURES, intact_file
from strict_decoders import strict_refusal

from edge_runtime.errors import ImageError
from edge_runtime.image import decode_image

__all__ = ["Account", "Failure", "Mutant", "Verdict", "examine", "make_mutant", "screen_subject"]

LIMIT_S = 2.0  # of processor time for one file
NO_REFER, UNGRADABLE = "no_refer", "ungradable"


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One damaged file: of which format it was, what was done, and the intact original."""

    index: int
    form: str
    way: str
    data: bytes
    original: bytes


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the subject said: disposition, the reason if ungradable, an error of no known type."""

    disposition: str
    reason: str
    untyped: str | None = None


Subject = Callable[[bytes], Verdict]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One broken promise, and the mutant that shows it."""

    index: int
    form: str
    way: str
    what: str


@dataclass(kw_only=True)
class Account:
    """What happened to the mutants so far; accounts add up."""

    num: int = 0
    unchanged: int = 0
    strict_refuses: int = 0
    slowest_s: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    no_refer_by_format: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: Account) -> None:
        """Take over what another account counted."""
        self.num += other.num
        self.unchanged += other.unchanged
        self.strict_refuses += other.strict_refuses
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.outcomes += other.outcomes
        self.no_refer_by_format += other.no_refer_by_format
        self.failures += other.failures

    def lines(self) -> list[str]:
        """The account in words, for a log or a note."""
        said = [
            f"{self.num} mutants ({self.unchanged} came out unchanged): "
            + ", ".join(f"{name} {count}" for name, count in self.outcomes.most_common()),
            f"strict decoding refuses {self.strict_refuses}; decided no_refer: "
            + (", ".join(f"{k} {n}" for k, n in sorted(self.no_refer_by_format.items())) or "none"),
            f"slowest file {self.slowest_s:.2f} s; failures: {len(self.failures)}",
        ]
        return said + [f"  FAILED {one}" for one in self.failures[:20]]


def make_mutant(size: str, seed: int, index: int) -> Mutant:
    """The mutant of that index; formats take turns, the rest is drawn."""
    rng = np.random.default_rng([seed, index])
    form = FORMATS[index % len(FORMATS)]
    num = NUM_PICTURES[size]
    original = intact_file(form, size, int(rng.integers(num)))
    other_form = form if rng.random() < 0.7 else FORMATS[rng.integers(len(FORMATS))]
    other = intact_file(other_form, size, int(rng.integers(num)))
    way, data = damaged(original, rng, other, form.own_damage)
    return Mutant(index=index, form=form.name, way=way, data=data, original=original)


def screen_subject() -> Subject:
    """The product: `Screener.screen`; and a full `decode_image` of what that decodes smaller."""
    screener = open_screener()

    def screen(data: bytes) -> Verdict:
        untyped = None
        try:
            if data[:3] == b"\xff\xd8\xff" or data[128:132] == b"DICM":
                decode_image(data)
        except ImageError:
            pass
        except Exception as error:  # the promise under test: nothing but ImageError
            untyped = f"decode_image raised {type(error).__name__}: {error}"
        (eye,) = screener.screen(data).eyes
        reason = eye.reasons[0] if eye.reasons else ""
        if reason == "internal error":
            untyped = untyped or f"screen met {eye.fields[0].error}"
        return Verdict(disposition=eye.disposition.value, reason=reason, untyped=untyped)

    return screen


def examine(subject: Subject, mutant: Mutant, account: Account) -> None:
    """Hand one mutant to the subject and to the strict decoder; note what is broken."""
    verdict, seconds = _timed(subject, mutant.data)
    refusal = strict_refusal(mutant.data)
    broken = []
    if seconds > LIMIT_S:
        broken.append(f"took {seconds:.1f} s")
    if verdict.untyped is not None:
        broken.append(verdict.untyped)
    if refusal is not None and verdict.disposition != UNGRADABLE:
        broken.append(f"{verdict.disposition} although strict decoding says {refusal}")
    account.num += 1
    account.unchanged += mutant.data == mutant.original
    account.strict_refuses += refusal is not None
    account.slowest_s = max(account.slowest_s, seconds)
    account.outcomes[verdict.reason or verdict.disposition] += 1
    account.no_refer_by_format[mutant.form] += verdict.disposition == NO_REFER
    account.failures += [
        Failure(index=mutant.index, form=mutant.form, way=mutant.way, what=what) for what in broken
    ]


def _timed(subject: Subject, data: bytes) -> tuple[Verdict, float]:
    """The verdict and the processor time it took, which other work on the machine does not touch.

    What waits instead of working is ended by `fuzz_processes.py`.
    """
    started = time.process_time()
    verdict = subject(data)
    return verdict, time.process_time() - started


@click.command()
@click.option("--size", type=click.Choice(list(NUM_PICTURES)), required=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--index", type=int, required=True)
@click.option("--save", type=click.Path(path_type=Path), help="Where to write the damaged file.")
def main(size: str, seed: int, index: int, save: Path | None) -> None:
    """Make one mutant again, screen it and say what happens."""
    mutant = make_mutant(size, seed, index)
    click.echo(f"{mutant.form}, {mutant.way}: {len(mutant.data)} bytes")
    click.echo(f"strict decoding: {strict_refusal(mutant.data) or 'accepts'}")
    if save is not None:
        save.write_bytes(mutant.data)
    sys.stdout.flush()  # the next line may crash
    account = Account()
    examine(screen_subject(), mutant, account)
    click.echo("\n".join(account.lines()))


if __name__ == "__main__":
    main()
