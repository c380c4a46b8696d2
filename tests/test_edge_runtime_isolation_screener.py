"""With decoding children or without, the screener says the same; what they break, it outlives."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bundle_factory import BuiltBundle, build_bundle
from click.testing import CliRunner
from fundus_factory import centred_fundus, exif_block, jpeg_bytes, png_bytes, with_exif
from isolation_factory import child_pids, fake_child, state_of

from edge_runtime.bundle import read_bundle
from edge_runtime.cli import main
from edge_runtime.engines import open_engine
from edge_runtime.errors import EngineError
from edge_runtime.examination import Examination
from edge_runtime.isolation import IsolatedLoader, IsolationLimits
from edge_runtime.loading import LoadSettings
from edge_runtime.result import Decision, ScreeningResult
from edge_runtime.screener import Screener

GOOD = jpeg_bytes(centred_fundus(300))
OTHER = png_bytes(centred_fundus(200, seed=1))
LIMITS = IsolationLimits(timeout_s=20.0)
PICTURES = {
    "jpeg": GOOD,
    "png": OTHER,
    "turned": with_exif(GOOD, exif_block(8)),
    "dark": png_bytes(centred_fundus(200) // 12),
    "enlarged": png_bytes(centred_fundus(100, fill=0.65)),
    "empty": b"",
    "cut": GOOD[:-300],
    "one channel": png_bytes(centred_fundus(100)[..., 0]),
    "no field": png_bytes(centred_fundus(100, fill=0.05)),
    "missing": None,
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltBundle:
    folder = tmp_path_factory.mktemp("isolated") / "bundle"
    return build_bundle(folder, gradability_threshold=0.1)


@pytest.fixture(scope="module")
def screeners(built: BuiltBundle) -> Iterator[tuple[Screener, Screener]]:
    """One that decodes here and one that has children decode."""
    where = {"trusted_keys": built.trusted_keys}
    with (
        Screener.open(built.folder, **where) as here,
        Screener.open(built.folder, **where, isolation=LIMITS) as there,
    ):
        yield here, there


def said(result: ScreeningResult) -> dict[str, Any]:
    """The JSON without the time that everything took, but with the stages that ran."""
    text = result.to_dict()
    for field in (field for eye in text["eyes"] for field in eye["fields"]):
        field["timings_ms"] = sorted(field["timings_ms"])
    return text


@pytest.mark.parametrize("evidence", [False, True])
@pytest.mark.parametrize("name", PICTURES)
def test_results_are_equal(screeners: tuple[Screener, Screener], name: str, evidence: bool) -> None:
    here, there = (
        said(one.screen(Examination.both(od=PICTURES[name], os=OTHER), evidence=evidence))
        for one in screeners
    )
    assert here == there


def test_the_pictures_cover_every_outcome(screeners: tuple[Screener, Screener]) -> None:
    results = [screeners[0].screen(Examination.single(one)) for one in PICTURES.values()]
    assert {result.disposition for result in results} >= {Decision.NO_REFER, Decision.UNGRADABLE}
    assert any(result.warnings for result in results)
    reasons = {reason for result in results for reason in result.eyes[0].reasons}
    assert {"image unreadable", "missing image", "dark", "no field of view found"} <= reasons


def test_warm_up_starts_a_child_that_is_gone(built: BuiltBundle) -> None:
    before = child_pids()
    with Screener.open(built.folder, trusted_keys=built.trusted_keys, isolation=LIMITS) as screener:
        (pid,) = child_pids() - before
        os.kill(pid, signal.SIGKILL)
        while state_of(pid) != "Z":
            time.sleep(0.01)
        screener.warmup(1)
        (other,) = child_pids() - before
        assert other != pid
        assert screener.screen(GOOD).disposition is Decision.NO_REFER
        assert child_pids() - before == {other}
    assert child_pids() == before


@pytest.mark.parametrize(
    ("behaviour", "reason", "text"),
    [
        ("os.kill(os.getpid(), 11)", "decoder stopped", "SIGSEGV"),
        ("os.kill(os.getpid(), 9)", "decoder stopped", "SIGKILL"),
        ("sys.exit(12)", "decoder stopped", "MB allowed"),
        ("send(number, b'nonsense')", "image unreadable", "cannot be right"),
        ("time.sleep(60)", "deadline exceeded", "later than the caller allowed"),
    ],
)
def test_what_a_child_does_makes_the_eye_ungradable_never_healthy(
    built: BuiltBundle, behaviour: str, reason: str, text: str
) -> None:
    bundle = read_bundle(built.folder, trusted_keys=built.trusted_keys)
    settings = LoadSettings(
        spec=bundle.manifest.preprocess_spec(),
        quality=bundle.manifest.quality(),
        protocol=bundle.manifest.protocol,
    )
    loader = IsolatedLoader(settings, LIMITS, command=fake_child(behaviour))
    with Screener(bundle, open_engine(bundle), loader=loader) as screener:
        result = screener.screen(GOOD, deadline_ms=2000)
    (eye,) = result.eyes
    assert result.disposition is eye.disposition is Decision.UNGRADABLE
    assert eye.reasons == (reason,)
    assert text in (eye.fields[0].error or "")
    assert eye.fields[0].image_sha256 is not None


def test_open_fails_where_no_child_can_be_started(
    built: BuiltBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = child_pids()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(EngineError, match=r"cannot be started \(exit code 1\)"):
        Screener.open(built.folder, trusted_keys=built.trusted_keys, isolation=LIMITS)
    assert child_pids() == before


def test_open_leaves_no_child_behind_when_the_engine_fails(built: BuiltBundle) -> None:
    before = child_pids()
    with pytest.raises(EngineError):
        Screener.open(
            built.folder, trusted_keys=built.trusted_keys, engine="tensorrt", isolation=LIMITS
        )
    assert child_pids() == before


def test_a_closed_screener_is_ungradable(built: BuiltBundle) -> None:
    screener = Screener.open(built.folder, trusted_keys=built.trusted_keys, isolation=LIMITS)
    screener.close()
    (eye,) = screener.screen(GOOD).eyes
    assert eye.reasons == ("engine error",)


def test_the_command_isolates(
    built: BuiltBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "eye.jpg"
    path.write_bytes(GOOD)
    arguments = ["screen", str(built.folder), str(path), "--json"]
    plain = CliRunner().invoke(main, arguments)
    isolated = CliRunner().invoke(main, [*arguments, "--isolate"])
    assert plain.exit_code == isolated.exit_code == 0
    assert _without_timings(plain.stdout) == _without_timings(isolated.stdout)
    monkeypatch.setattr(sys, "executable", "/bin/false")  # so it does start a child
    assert CliRunner().invoke(main, [*arguments, "--isolate"]).exit_code == EngineError.exit_code
    assert CliRunner().invoke(main, arguments).exit_code == 0


def _without_timings(line: str) -> str:
    return line.partition('"timings_ms"')[0] + line.rpartition('"total"')[2].partition("}")[2]
