"""Carry out a plan: what the record knows is taken from there, the rest is screened in threads.

Answers come in the order of the plan, whatever order they are found in. Where there is a record,
an answer is in it, on the disk, before anyone is told of it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

from edge_runtime import __version__
from edge_runtime.errors import DataError
from edge_runtime.image import DecodeLimits
from edge_runtime.result import ScreeningResult
from edge_runtime.screener import Screener
from edge_runtime.screening.answers import Answers
from edge_runtime.screening.entries import ReportEntry, Screened
from edge_runtime.screening.plan import PlannedExamination, ScreenPlan
from edge_runtime.screening.reading import (
    EyeContents,
    ReadExamination,
    read_examination,
    refer_to_files,
)
from edge_runtime.screening.record import ScreenRecord, record_key
from edge_runtime.screening.shared_pictures import PicturesSeen

__all__ = ["TRIED_AGAIN", "Done", "ScreenRun"]

# Reasons that speak of this machine and not of the picture: such an answer is not kept for good.
TRIED_AGAIN = frozenset({"decoder stopped", "engine error", "internal error", "deadline exceeded"})


@dataclass(frozen=True, kw_only=True)
class Done:
    """One examination with its answer.

    Attributes:
        is_known: It was in the record before.
        shared_with: input_index of the earlier examinations that were given a picture of this one.
    """

    input_index: int
    planned: PlannedExamination
    screened: Screened
    is_known: bool
    shared_with: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    """One examination that was taken from the plan and not handed on yet.

    Holds no picture: behind one in work, all the rest of a folder may wait that the record knows.
    """

    input_index: int
    planned: PlannedExamination
    contents: tuple[EyeContents, ...] | None
    key: str | None
    is_known: bool


@dataclass(kw_only=True)
class ScreenRun:
    """One run over a plan.

    Attributes:
        plan: What is to be screened.
        screener: An open screener.
        answers: Where answers are kept; a `ScreenRecord` is looked up first.
        tell: Called for every answer, in the order of the plan.
        is_stopped: Looked at before each examination; those in work are finished.
        num_threads: None takes the processors that this process may use.
        evidence: Whether answers carry evidence maps.
        places: Place of every answer, by input_index; filled by `run`.
    """

    plan: ScreenPlan
    screener: Screener
    answers: Answers
    tell: Callable[[Done], None]
    is_stopped: Callable[[], bool]
    num_threads: int | None = None
    evidence: bool = False
    places: dict[int, int] = field(default_factory=dict)
    _queue: deque[_Waiting] = field(default_factory=deque)
    _in_work: Counter[str | None] = field(default_factory=Counter)
    _seen: PicturesSeen = field(default_factory=PicturesSeen)
    _shared: dict[int, set[int]] = field(default_factory=dict)

    def run(self) -> None:
        """Go through the plan to its end, or until stopped."""
        self.places.clear()
        self._shared.clear()
        self._seen = PicturesSeen()
        results = self.screener.screen_batch(
            (one.examination for one in self._unknown()),
            num_threads=self.num_threads,
            evidence=self.evidence,
        )
        for result in results:
            self._answer(self._take(), result)
            self._tell_known()

    def entries(self) -> Iterator[ReportEntry]:
        """Yield every examination of the plan with its answer, read from where it is kept.

        Two that share a picture name each other, whichever was answered first.
        """
        for index, planned in enumerate(self.plan.examinations):
            place = self.places.get(index)
            screened = None if place is None else self.answers.read(place)
            others = sorted(self._shared.get(index, ()))
            yield ReportEntry(
                input_index=index,
                planned=planned,
                screened=screened,
                shared_with=tuple((i, self._examination_id(i)) for i in others),
            )

    def _examination_id(self, input_index: int) -> str | None:
        return self.plan.examinations[input_index].examination_id

    def _unknown(self) -> Iterator[ReadExamination]:
        """Yield what must be screened. Runs in the consumer's thread, ahead of the answers."""
        for index, planned in enumerate(self.plan.examinations):
            if self.is_stopped():
                return
            read, key = self._read(planned)
            is_twin = key is not None and self._in_work[key] > 0
            is_known = is_twin or self._find(key, planned) is not None
            self._put(
                _Waiting(
                    input_index=index,
                    planned=planned,
                    contents=read.contents,
                    key=key,
                    is_known=is_known,
                )
            )
            if is_known:
                self._tell_known()
            else:
                yield read

    def _put(self, waiting: _Waiting) -> None:
        self._queue.append(waiting)
        self._in_work[waiting.key] += 1

    def _take(self) -> _Waiting:
        waiting = self._queue.popleft()
        self._in_work[waiting.key] -= 1
        if not self._in_work[waiting.key]:
            del self._in_work[waiting.key]
        return waiting

    def _read(self, planned: PlannedExamination) -> tuple[ReadExamination, str | None]:
        """Return the pictures and the key of their answer, None where it cannot be kept."""
        if not isinstance(self.answers, ScreenRecord):
            return refer_to_files(planned), None
        read = read_examination(planned, max_bytes=int(DecodeLimits().max_megabytes * 1e6))
        if read.contents is None:
            return read, None
        engine = self.screener.engine
        key = record_key(
            read.contents,
            bundle_sha256=self.screener.bundle.sha256,
            engine=(engine.name, engine.precision, engine.facts.details),
            is_isolated=self.screener.is_isolated,
            software_version=__version__,
        )
        return read, key

    def _find(self, key: str | None, planned: PlannedExamination) -> int | None:
        if key is None or not isinstance(self.answers, ScreenRecord):
            return None
        return self.answers.find(key, planned.examination_id)

    def _answer(self, waiting: _Waiting, result: ScreeningResult) -> None:
        """Keep a new answer, then tell it."""
        result, shared_with = self._seen.check(waiting.input_index, result)
        screened = Screened(
            result=result,
            screened_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            software_version=__version__,
        )
        # What hangs on the other examinations of the list is not the pictures' own answer.
        key = None if shared_with or _is_tried_again(result) else waiting.key
        self._hand_on(waiting, screened, self.answers.add(key, screened), shared_with)

    def _tell_known(self) -> None:
        """Tell the answers that the record has, up to the first that is still in work."""
        while self._queue and self._queue[0].is_known:
            waiting = self._take()
            place = self._find(waiting.key, waiting.planned)
            if place is None:  # its twin's answer was not kept: the machine failed on it
                read, key = self._read(waiting.planned)
                result = self.screener.screen(read.examination, evidence=self.evidence)
                self._answer(replace(waiting, key=key), result)
            else:
                self._answer_known(waiting, place)

    def _answer_known(self, waiting: _Waiting, place: int) -> None:
        """Tell an answer of the record; one given to another examination is written once more.

        So every examination has its own line, under its own id.
        """
        known = self.answers.read(place)
        _require_of(known.result, waiting.contents)
        given = replace(known.result, examination_id=waiting.planned.examination_id)
        result, shared_with = self._seen.check(waiting.input_index, given)
        if shared_with or given.examination_id != known.result.examination_id:
            known = replace(known, result=result)
            place = self.answers.add(None if shared_with else waiting.key, known)
        self._hand_on(waiting, known, place, shared_with)

    def _hand_on(
        self, waiting: _Waiting, screened: Screened, place: int, shared_with: tuple[int, ...]
    ) -> None:
        self.places[waiting.input_index] = place
        for other in shared_with:
            self._shared.setdefault(other, set()).add(waiting.input_index)
            self._shared.setdefault(waiting.input_index, set()).add(other)
        self.tell(
            Done(
                input_index=waiting.input_index,
                planned=waiting.planned,
                screened=screened,
                is_known=waiting.is_known,
                shared_with=shared_with,
            )
        )


def _require_of(result: ScreeningResult, contents: tuple[EyeContents, ...] | None) -> None:
    """Never tell the answer of other pictures, whatever key it was found under.

    Raises:
        DataError: The answer names other eyes or other files.
    """
    given = {eye: [sha256 for sha256, _ in pictures] for eye, pictures in contents or ()}
    found = {eye.eye: [one.image_sha256 for one in eye.fields] for eye in result.eyes}
    # Behind the pictures given, an eye has an entry for each that the protocol misses.
    same = found.keys() == given.keys() and all(
        found[eye][: len(hashes)] == hashes for eye, hashes in given.items()
    )
    if not same:
        raise DataError(
            "the record holds the answer of other pictures under the key of these: it was changed; "
            "move its folder away and start again, or name another --out"
        )


def _is_tried_again(result: ScreeningResult) -> bool:
    reasons = {text for eye in result.eyes for one in eye.fields for text in one.quality.reasons}
    return not TRIED_AGAIN.isdisjoint(reasons)
