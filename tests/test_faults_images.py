"""Damaged pictures: no crash, no hang, and never 'no refer' from what strict decoding refuses.

`make fuzz` runs the counts that are promised; without it the same tests run on a few files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import fuzz_subjects
import image_fuzz
import pytest
from click.testing import CliRunner
from conftest import Scale
from fault_bundle import open_screener
from fault_pictures import (
    FORMATS,
    NUM_PICTURES,
    SIZES_PX,
    PictureFormat,
    intact_file,
    picture,
)
from fuzz_processes import Campaign, run_campaign
from image_fuzz import Account, make_mutant, screen_subject
from strict_decoders import strict_refusal

from edge_runtime.errors import ImageError
from edge_runtime.image import decode_image
from edge_runtime.result import Decision
from edge_runtime.screener import Screener

pytestmark = pytest.mark.fuzz


@pytest.fixture(scope="module")
def screener() -> Screener:
    return open_screener()


def no_failures(account: Account, say: Callable[[str], None]) -> None:
    """Say what was counted; fail with how to see the first failures again."""
    for line in account.lines():
        say(line)
    assert not account.failures, "\n".join(account.lines())


@pytest.mark.parametrize("size", SIZES_PX)
def test_every_intact_picture_is_no_refer(
    size: str, scale: Scale, screener: Screener, say: Callable[[str], None]
) -> None:
    """Without this the property below could hold for want of anything that passes."""
    forms, seeds = FORMATS, range(NUM_PICTURES[size])
    if not scale.full:
        forms, seeds = (FORMATS, range(1)) if size == "256px" else (FORMATS[:6:5], range(1))
    files = [intact_file(form, size, seed) for form in forms for seed in seeds]
    answers = Counter(screener.screen(data).disposition.value for data in files)
    say(f"{size}: {answers['no_refer']} of {len(files)} intact files are no_refer")
    assert answers == {"no_refer": len(files)}
    assert [strict_refusal(data) for data in files] == [None] * len(files)


@pytest.mark.parametrize(("size", "short", "full"), [("256px", 120, 100_000), ("3mp", 6, 10_000)])
def test_damaged_pictures(
    size: str, short: int, full: int, scale: Scale, say: Callable[[str], None]
) -> None:
    num = scale(short, full)
    campaign = Campaign(size=size, num=num, open_subject=screen_subject, chunk=60)
    account = run_campaign(campaign, say=say)
    no_failures(account, say)
    assert account.num == num
    assert account.strict_refuses > 0.5 * num
    if num > 5000:  # every format gives files that are damaged where nobody can see it
        assert all(account.no_refer_by_format[form.name] for form in FORMATS)


def test_the_fuzzer_sees_a_decoder_that_drops_its_warnings() -> None:
    account = run_campaign(Campaign(size="256px", num=60, open_subject=fuzz_subjects.lax))
    missed = [one for one in account.failures if "although strict decoding" in one.what]
    assert len(missed) == len(account.failures) > 1
    (found,) = {strict_refusal(make_mutant("256px", 0, missed[0].index).data)}
    assert found is not None
    assert missed[0].what.endswith(found)


def test_the_fuzzer_counts_crashes_and_goes_on() -> None:
    subject = partial(fuzz_subjects.crashing, make_mutant("256px", 0, 1).data)
    account = run_campaign(Campaign(size="256px", num=3, open_subject=subject))
    assert [one.index for one in account.failures] == [1]
    assert "ended with -11" in account.failures[0].what
    assert account.num == 3


def test_the_fuzzer_ends_what_hangs() -> None:
    subject = partial(fuzz_subjects.hanging, make_mutant("256px", 0, 1).data)
    account = run_campaign(Campaign(size="256px", num=3, open_subject=subject, hang_s=4.0))
    assert [one.index for one in account.failures] == [1]
    assert "no answer for 4 s" in account.failures[0].what
    assert account.num == 3


def test_the_fuzzer_sees_errors_of_no_known_type() -> None:
    account = run_campaign(Campaign(size="256px", num=10, open_subject=fuzz_subjects.untyped))
    fifth = [i for i in range(10) if len(make_mutant("256px", 0, i).data) % 5 == 0]
    assert [one.index for one in account.failures] == fifth != []


def test_a_mutant_can_be_made_again() -> None:
    for index in range(15):
        once, again = (make_mutant("256px", 7, index) for _ in range(2))
        assert once == again
    assert make_mutant("256px", 7, 0) != make_mutant("256px", 8, 0)


def test_the_command_shows_one_mutant_again(tmp_path: Path) -> None:
    path = tmp_path / "mutant"
    arguments = ["--size", "256px", "--index", "3", "--save", str(path)]
    done = CliRunner().invoke(image_fuzz.main, arguments, catch_exceptions=False)
    mutant = make_mutant("256px", 0, 3)
    assert done.exit_code == 0
    assert done.output.startswith(f"{mutant.form}, {mutant.way}: {len(mutant.data)} bytes\n")
    assert path.read_bytes() == mutant.data
    assert "failures: 0" in done.output


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_every_truncation(
    form: PictureFormat, scale: Scale, screener: Screener, say: Callable[[str], None]
) -> None:
    """Every length of one small file a format; screened where it decodes, which it must not."""
    data = form.encode(picture("256px", 0)[::2, ::2].copy())  # as JPEG about 9 kB
    lengths = range(0, len(data), scale(max(1, len(data) // 300), 1))
    refused = 0
    for length in lengths:
        try:
            decode_image(data[:length])
        except ImageError:
            refused += 1
    say(f"{form.name}: {refused} of {len(lengths)} truncations of {len(data)} bytes refused")
    assert refused == len(lengths)
    assert screener.screen(data).disposition is Decision.NO_REFER
    assert screener.screen(data[:-1]).disposition is Decision.UNGRADABLE
