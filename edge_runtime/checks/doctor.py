"""What this machine has, which engine would run here and why, and what stands in the way."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edge_runtime import __version__
from edge_runtime.engines import has_tensorrt
from edge_runtime.engines.cuda_memory import find_bindings
from edge_runtime.engines.ort_providers import askable_providers
from edge_runtime.engines.trt_survey import TrtSurvey, survey_tensorrt
from edge_runtime.opencv_floor import opencv_problem
from edge_runtime.result import NOTICE

__all__ = ["DoctorReport", "cpu_features", "diagnose"]

_PACKAGES = (
    *("numpy", "opencv-python-headless", "simplejpeg", "onnxruntime", "cryptography", "click"),
)
_DISTRIBUTIONS = ("edge-screen", "edge-screen-runtime")
# Instructions that decide how fast INT8 runs: x86 names, then aarch64 names.
_FEATURES = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8",
    "asimd", "asimddp", "i8mm", "sve",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DoctorReport:
    """The state of one machine.

    Attributes:
        engine: Engine that `engine="auto"` opens, None when none can be opened; "tensorrt" only
            for a bundle whose engine was built here.
        engine_reason: Why that one.
        decoder_problem: Why `Screener.open` would refuse this OpenCV, None when it would not.
        providers: Execution providers of the installed onnxruntime.
        askable_providers: Words that `--provider` would not refuse for want of one; whether its
            libraries load is seen when it is opened.
        cuda_bindings: By name, why each cannot be used; an empty text says that it can.
        tensorrt: Which TensorRT is here, and which file and typing each precision would get.
        problems: What must be put right, each with its remedy.
    """

    version: str
    python: str
    system: str
    device_model: str | None
    packages: dict[str, str | None]
    distributions: dict[str, str | None]
    cpu_features: tuple[str, ...]
    providers: tuple[str, ...]
    askable_providers: tuple[str, ...]
    cuda_bindings: dict[str, str]
    tensorrt: TrtSurvey
    engine: str | None
    engine_reason: str
    decoder_problem: str | None
    problems: tuple[str, ...]

    @property
    def can_screen(self) -> bool:
        """Whether `Screener.open` would find an engine and a decoder here."""
        return self.engine is not None and self.decoder_problem is None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of `edge-screen doctor --json`."""
        return {"can_screen": self.can_screen, **asdict(self), "notice": NOTICE}


def diagnose(*, find_version: Callable[[str], str | None] | None = None) -> DoctorReport:
    """Look at this machine; nothing is changed and nothing is sent.

    Args:
        find_version: Version of an installed distribution or None; for tests.
    """
    find = find_version or _installed_version
    packages = {name: find(name) for name in _PACKAGES}
    distributions = {name: find(name) for name in _DISTRIBUTIONS}
    providers, import_error = _providers()
    runs = "CPUExecutionProvider" in providers
    decoder_problem = opencv_problem()
    survey, bindings = survey_tensorrt(), find_bindings()
    gpu_problems = _gpu_problems(survey, bindings) if has_tensorrt() else None
    return DoctorReport(
        version=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        device_model=_first_line(Path("/proc/device-tree/model")),
        packages=packages,
        distributions=distributions,
        cpu_features=cpu_features(_read_text(Path("/proc/cpuinfo"))),
        providers=providers,
        askable_providers=askable_providers(providers),
        cuda_bindings=bindings,
        tensorrt=survey,
        engine=_engine(runs, gpu_problems),
        engine_reason=_engine_reason(runs, import_error, gpu_problems),
        decoder_problem=decoder_problem,
        problems=(
            *_problems(packages, distributions, import_error, decoder_problem),
            *(gpu_problems or ()),
        ),
    )


def cpu_features(cpuinfo: str) -> tuple[str, ...]:
    """Return the instruction sets of a /proc/cpuinfo text that matter for INT8."""
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    present = set(match.group(1).split()) if match else set()
    return tuple(name for name in _FEATURES if name in present)


def _providers() -> tuple[tuple[str, ...], str | None]:
    try:
        import onnxruntime
    except ImportError as error:
        return (), str(error)
    return tuple(onnxruntime.get_available_providers()), None


def _gpu_problems(survey: TrtSurvey, bindings: dict[str, str]) -> tuple[str, ...]:
    """Return what stands in the way of a TensorRT that is installed."""
    problems = [] if survey.problem is None else [survey.problem]
    if all(bindings.values()):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in bindings.items())
        problems.append(
            f"no Python binding of CUDA can be used ({reasons}); install cuda-python with the "
            "major version of the device's CUDA, or pycuda"
        )
    return tuple(problems)


def _engine(runs: bool, gpu_problems: tuple[str, ...] | None) -> str | None:
    """Return what "auto" opens; `gpu_problems` is None where TensorRT is not installed."""
    if gpu_problems is None:
        return "onnxruntime" if runs else None
    return None if gpu_problems else "tensorrt"


def _engine_reason(
    runs: bool, import_error: str | None, gpu_problems: tuple[str, ...] | None
) -> str:
    if gpu_problems:
        return (
            "TensorRT is installed and cannot be used, which `auto` does not hide; put it right, "
            "or give --engine onnxruntime"
        )
    if gpu_problems is not None:
        return (
            "TensorRT for a bundle whose engine `edge-screen engine build` has built here; "
            "onnxruntime on the CPU, with a warning, for any other"
        )
    if import_error is not None:
        return f"onnxruntime cannot be imported: {import_error}"
    if not runs:
        return "the installed onnxruntime has no CPUExecutionProvider"
    return "onnxruntime on the CPU, because TensorRT is not installed"


def _problems(
    packages: dict[str, str | None],
    distributions: dict[str, str | None],
    import_error: str | None,
    decoder_problem: str | None,
) -> tuple[str, ...]:
    problems = []
    if import_error is not None:
        problems.append(f"onnxruntime cannot be imported ({import_error}); install it again")
    if all(distributions.values()):
        problems.append(
            "both edge-screen and edge-screen-runtime are installed here: they own the same "
            "files, and removing one breaks the other; keep one of them"
        )
    if distributions["edge-screen"] is None and distributions["edge-screen-runtime"] is None:
        problems.append("edge-screen runs from a folder and is not installed; install a wheel")
    if packages["opencv-python-headless"] is None:
        problems.append("opencv-python-headless is not installed under this name; install it")
    if decoder_problem is not None:
        problems.append(decoder_problem)
    return tuple(problems)


def _installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _read_text(path: Path) -> str:
    """Return the text of a system file, or nothing where the system has no such file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _first_line(path: Path) -> str | None:
    return _read_text(path).replace("\0", "").strip() or None
