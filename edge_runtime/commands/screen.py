"""What `edge-screen screen` does; `edge_runtime.commands.screen_cli` only declares it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.batch import available_cpus, one_opencv_thread
from edge_runtime.commands.outputs import refuse_overwriting
from edge_runtime.commands.screen_text import engine_text, screening_text
from edge_runtime.errors import ConfigError
from edge_runtime.reports.overlay import overlay_png
from edge_runtime.reports.writer import ReportFiles, write_reports
from edge_runtime.result import NOTICE, Decision, ScreeningResult
from edge_runtime.safe_files import write_file
from edge_runtime.screener import Screener
from edge_runtime.screening.answers import Answers, Forgotten, KeptInMemory
from edge_runtime.screening.examination_list import read_examinations
from edge_runtime.screening.inputs import plan_images, plan_two_eyes
from edge_runtime.screening.plan import ScreenPlan
from edge_runtime.screening.progress import (
    INTERRUPTED_EXIT_CODE,
    Interruption,
    ScreenProgress,
    catch_interrupt,
)
from edge_runtime.screening.record import RECORD_NAME, ScreenRecord
from edge_runtime.screening.run import Done, ScreenRun
from edge_runtime.screening.shared_pictures import SAME_PICTURE
from edge_runtime.standing_warnings import standing_warnings

if TYPE_CHECKING:
    from edge_runtime.isolation import IsolationLimits

__all__ = ["UNGRADABLE_EXIT_CODE", "ScreenInputs", "ScreenRequest", "run_screen"]

UNGRADABLE_EXIT_CODE = 3


@dataclass(frozen=True, kw_only=True)
class ScreenInputs:
    """Which pictures: files, folders and patterns; or two eyes; or a list of examinations."""

    images: tuple[Path, ...] = ()
    recursive: bool = False
    od: Path | None = None
    os_: Path | None = None
    examination_id: str | None = None
    list_path: Path | None = None

    def plan(self) -> ScreenPlan:
        """Return the examinations in order.

        Raises:
            ConfigError: If a folder, a pattern or the list cannot be used, or holds no picture.
        """
        if self.list_path is not None:
            return read_examinations(self.list_path)
        if self.images:
            return plan_images(
                self.images, recursive=self.recursive, examination_id=self.examination_id
            )
        return plan_two_eyes(self.od, self.os_, examination_id=self.examination_id)


@dataclass(frozen=True, kw_only=True)
class ScreenRequest:
    """What the operator asked `edge-screen screen` for."""

    bundle_dir: Path
    inputs: ScreenInputs
    record_dir: Path | None = None
    reports: ReportFiles = field(default_factory=ReportFiles)
    evidence_dir: Path | None = None
    precision: str = "int8"
    engine: str = "auto"
    provider: str = "cpu"
    num_threads: int | None = None
    allow_unproven_int8: bool = False
    isolate: bool = False
    cache_dir: Path | None = None
    trusted_keys: Path | None = None
    as_json: bool = False


def run_screen(request: ScreenRequest) -> int:
    """Screen in the order given.

    Returns:
        0, 3 when an examination is ungradable, 130 when interrupted.

    Raises:
        EdgeScreenError: What stands in the way of screening at all; never one picture.
    """
    try:
        return _run(request)
    except KeyboardInterrupt:  # a second Ctrl-C, or one before the first picture
        click.echo("interrupted", err=True)
        return INTERRUPTED_EXIT_CODE


def _run(request: ScreenRequest) -> int:
    _refuse_swapped(request)
    plan = request.inputs.plan()
    refuse_overwriting(_outputs(request), _read_files(request, plan), bundle_dir=request.bundle_dir)
    for reason, number in plan.skipped.items():
        click.echo(f"skipped {number}: {reason}", err=True)
    if request.evidence_dir is not None:
        _make_folder(request.evidence_dir)
    with ExitStack() as stack:
        stack.enter_context(one_opencv_thread())
        screener = stack.enter_context(_open(request))
        answers = _open_answers(request, stack)
        request.reports.require_folders()
        interruption = stack.enter_context(catch_interrupt())
        teller = _Teller(request, len(plan.examinations))
        run = ScreenRun(
            plan=plan,
            screener=screener,
            answers=answers,
            tell=teller.tell,
            is_stopped=interruption.is_set,
            num_threads=request.num_threads,
            evidence=request.evidence_dir is not None,
        )
        run.run()
        teller.end(engine_text(screener.engine))
        _write_reports(request, run, screener)
        return _exit_code(teller, interruption, len(plan.examinations))


def _refuse_swapped(request: ScreenRequest) -> None:
    """Say so where a bundle stands among the pictures and none stands in its place."""
    if os.access(request.bundle_dir / "bundle.json", os.F_OK):  # never raises, as is_file does
        return
    for path in request.inputs.images:
        if os.access(path / "bundle.json", os.F_OK):
            raise ConfigError(
                f"{path} is a bundle and {request.bundle_dir} is none; BUNDLE comes first, then "
                "the pictures"
            )


def _outputs(request: ScreenRequest) -> dict[str, Path]:
    """Option -> what it writes."""
    places = {
        "--csv": request.reports.csv_path,
        "--html": request.reports.html_path,
        "--out": None if request.record_dir is None else request.record_dir / RECORD_NAME,
        "--evidence-dir": request.evidence_dir,
    }
    return {option: path for option, path in places.items() if path is not None}


def _read_files(request: ScreenRequest, plan: ScreenPlan) -> Iterator[tuple[str, Path]]:
    """Yield what is read; pictures by their place, because their names can be patients'."""
    if request.inputs.list_path is not None:
        yield f"the list {request.inputs.list_path} (--examinations)", request.inputs.list_path
    for index, planned in enumerate(plan.examinations):
        for picture in (one for eye in planned.eyes for one in eye.pictures):
            if picture.path is not None:
                yield f"the picture of input_index {index}", picture.path


def _open(request: ScreenRequest) -> Screener:
    return Screener.open(
        request.bundle_dir,
        trusted_keys=request.trusted_keys,
        allow_unproven_int8=request.allow_unproven_int8,
        engine=request.engine,
        provider=request.provider,
        precision=request.precision,
        cache_dir=request.cache_dir,
        isolation=_isolation(request) if request.isolate else None,
    )


def _isolation(request: ScreenRequest) -> IsolationLimits:
    """The default limits, with a child for every thread."""
    from edge_runtime.isolation import IsolationLimits

    return IsolationLimits(max_children=request.num_threads or available_cpus())


def _open_answers(request: ScreenRequest, stack: ExitStack) -> Answers:
    if request.record_dir is None:
        return KeptInMemory() if request.reports.any else Forgotten()
    record = stack.enter_context(ScreenRecord(request.record_dir))
    if record.torn_bytes:
        click.echo(
            "the last line of the record was not written to its end (the run before was cut "
            "off); it was taken out and its pictures are screened again",
            err=True,
        )
    return record


def _write_reports(request: ScreenRequest, run: ScreenRun, screener: Screener) -> None:
    write_reports(
        request.reports,
        run.entries,
        labels=screener.bundle.manifest.label_names,
        standing_warnings=standing_warnings(screener.bundle, screener.engine),
        load_square=screener.model_input,
    )


class _Teller:
    """Prints every answer, draws the progress, and counts."""

    def __init__(self, request: ScreenRequest, total: int) -> None:
        self._request = request
        self._progress = ScreenProgress(sys.stderr, total)
        self.num_done = self.num_known = self.num_ungradable = 0

    def tell(self, done: Done) -> None:
        """Print one answer, with its evidence pictures where they were asked for."""
        result = done.screened.result
        if self._request.as_json:
            value = {"input_index": done.input_index, **result.to_dict()}
            self._print(json.dumps(value, allow_nan=False, separators=(",", ":")))
        else:
            names = [eye.name for eye in done.planned.eyes]
            self._print(screening_text(result, names, done.input_index))
        if self._request.evidence_dir is not None:
            _write_overlays(self._request.evidence_dir, done.input_index, result)
        for index in done.shared_with:
            self._progress.clear()
            click.echo(
                f"input_index {index} and input_index {done.input_index}: {SAME_PICTURE}; find out "
                "whose picture it is, and look at both answers again",
                err=True,
            )
        self.num_done += 1
        self.num_known += done.is_known
        self.num_ungradable += result.disposition is Decision.UNGRADABLE
        self._progress.step(is_known=done.is_known)

    def end(self, engine: str) -> None:
        """Print what holds for all answers."""
        self._progress.clear()
        if self.num_known:
            click.echo(f"taken from the record: {self.num_known} of {self.num_done}", err=True)
        if not self._request.as_json:
            click.echo(f"{engine}\n{NOTICE}")

    def _print(self, text: str) -> None:
        """Print at once, for a pipe; the progress makes room where both share a terminal."""
        if sys.stdout.isatty():
            self._progress.clear()
        click.echo(text)


def _exit_code(teller: _Teller, interruption: Interruption, total: int) -> int:
    if interruption.is_set() and teller.num_done < total:
        click.echo(f"interrupted: {teller.num_done} of {total} examinations done", err=True)
        return INTERRUPTED_EXIT_CODE
    return UNGRADABLE_EXIT_CODE if teller.num_ungradable else 0


def _write_overlays(folder: Path, index: int, result: ScreeningResult) -> None:
    """Write one PNG a field that was run; names carry the position, never a file name."""
    pairs = [(eye.eye, k, one) for eye in result.eyes for k, one in enumerate(eye.fields, start=1)]
    for eye, number, one in pairs:
        if one.evidence is None:
            continue
        path = folder / f"{index:04d}_{eye}{'' if number == 1 else f'_{number}'}.png"
        try:
            write_file(path, overlay_png(eye, one), mode=0o600)  # a patient's, as the reports
        except OSError as error:
            raise ConfigError(f"{path} cannot be written ({error.strerror})") from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--evidence-dir {folder} cannot be made ({error.strerror}); name another folder"
        ) from error
    if any(folder.glob("[0-9]*_*.png")):  # one left from then would pass for this patient's
        raise ConfigError(
            f"--evidence-dir {folder} holds the pictures of an earlier run; name another folder"
        )
