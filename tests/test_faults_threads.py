"""Many threads, many runs: no result changes its picture, no decision changes.

`make faults` runs the promised counts: 8 threads x 1,000 pictures, and 1,000 pictures x 3 runs x
1 and 2 threads in the engine.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_factory import BuiltBundle, build_bundle, fundus_png
from calibration_graphs import build_student
from conftest import Scale
from fundus_factory import centred_fundus, jpeg_bytes
from test_calibration_quantize import make_portable

from calibration.cpu_form import to_cpu_form
from edge_runtime.examination import Examination
from edge_runtime.screener import Screener

pytestmark = pytest.mark.faults

_THREADS = 8


def photographs(num: int) -> list[bytes]:
    """Different small files: PNG and JPEG in turn, every tenth damaged."""
    files = []
    for index in range(num):
        if index % 2:
            data = jpeg_bytes(centred_fundus(96, seed=index))
        else:
            data = fundus_png(side_px=96, seed=index)
        files.append(data[:-60] if index % 10 == 9 else data)
    return files


def examination(files: list[bytes], index: int) -> Examination:
    """The pictures of `index` and the one after it as the two eyes of a patient of that number."""
    other = files[(index + 1) % len(files)]
    return Examination.both(od=files[index], os=other, examination_id=f"patient {index}")


def without_times(result: Any) -> dict[str, Any]:
    facts: dict[str, Any] = result.to_dict()
    for field in fields_of(facts):
        field.pop("timings_ms")
    return facts


def fields_of(facts: dict[str, Any]) -> list[dict[str, Any]]:
    return [field for eye in facts["eyes"] for field in eye["fields"]]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> BuiltBundle:
    """A residual network of 224 px in INT8, so that the engine's integer kernels run."""
    folder = tmp_path_factory.mktemp("student") / "bundle"
    model = build_student(size_px=224)
    pictures = np.stack([centred_fundus(224, seed=seed) for seed in range(4)])
    portable = make_portable(model, pictures)
    models = {"fp32": model, "int8": portable, "int8_cpu": to_cpu_form(portable)}
    return build_bundle(folder, models=models, size_px=224, gradability_threshold=0.1)


def test_threads_share_a_screener(tmp_path: Path, scale: Scale, say: Callable[[str], None]) -> None:
    num = scale(30, 1000)
    files = photographs(num)
    built = build_bundle(tmp_path / "bundle", gradability_threshold=0.1)
    wrong: list[str] = []
    answered: Counter[str] = Counter()
    lock = threading.Lock()
    with Screener.open(built.folder, trusted_keys=built.trusted_keys) as screener:
        alone = [without_times(screener.screen(examination(files, i))) for i in range(num)]

        def work(thread: int) -> None:
            order = np.random.default_rng(thread).permutation(num)
            for index in map(int, order):
                result = without_times(screener.screen(examination(files, index)))
                with lock:
                    answered[result["disposition"]] += 1
                    if result != alone[index]:
                        wrong.append(f"thread {thread}, patient {index}")

        threads = [threading.Thread(target=work, args=(i,)) for i in range(_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    say(f"{_THREADS} threads x {num} patients: {dict(answered)}; differing: {len(wrong)}")
    assert wrong == []
    assert answered.total() == _THREADS * num
    for index, facts in enumerate(alone):
        assert facts["examination_id"] == f"patient {index}"
        hashes = [hashlib.sha256(files[i % num]).hexdigest() for i in (index, index + 1)]
        assert [field["image_sha256"] for field in fields_of(facts)] == hashes
    # A swap would show: hardly any two patients have the same probabilities.
    shown = {str([field["labels"] for field in fields_of(facts)]) for facts in alone}
    assert len(shown) > 0.85 * num
    assert answered["ungradable"] > 0
    assert len(answered) > 1


def test_decisions_repeat(student: BuiltBundle, scale: Scale, say: Callable[[str], None]) -> None:
    num, runs = scale(12, 1000), 3
    files = photographs(num)
    seen: dict[int, list[list[dict[str, Any]]]] = {}
    for num_threads in (1, 2):
        with Screener.open(
            student.folder, trusted_keys=student.trusted_keys, num_threads=num_threads
        ) as screener:
            seen[num_threads] = [
                [without_times(screener.screen(data)) for data in files] for _ in range(runs)
            ]
    eyes = [[facts["eyes"] for facts in run] for results in seen.values() for run in results]
    different = [i for i in range(num) if any(run[i] != eyes[0][i] for run in eyes)]
    answers = Counter(facts["disposition"] for facts in seen[1][0])
    say(
        f"{num} pictures x {runs} runs x 1 and 2 threads, {dict(answers)}: "
        f"{len(different)} with another probability or decision"
    )
    assert different == []
    assert len({str(one) for one in eyes[0]}) == num
    assert any(field["labels"] for facts in seen[1][0] for field in fields_of(facts))
