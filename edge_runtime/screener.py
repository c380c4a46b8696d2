"""Image in, decision out: the one class that a camera vendor embeds.

    with Screener.open(bundle_dir) as screener:
        result = screener.screen(Examination.both(od=od_bytes, os=os_bytes))
        for result in screener.screen_batch(Path(one) for one in files):
            ...

`screen` may be called from several threads at once: nothing is written after `open`. Whatever
goes wrong with a picture after `open` (missing, damaged, no field of view, engine failure,
lateness, an error nobody foresaw) makes it 'ungradable' with its reason, and leaves the others
alone.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from edge_runtime.batch import available_cpus, map_in_order
from edge_runtime.bundle import Bundle, read_bundle
from edge_runtime.decision import patient_disposition
from edge_runtime.engines import Engine, open_engine
from edge_runtime.errors import BundleFormatError, ConfigError
from edge_runtime.examination import Examination, EyeImage
from edge_runtime.eye_joining import SAME_FIELD, SAME_IMAGE, join_eyes, pair_warnings
from edge_runtime.eye_pipeline import EyePipeline, StageClock
from edge_runtime.loading import InProcessLoader, PictureLoader
from edge_runtime.opencv_floor import require_opencv
from edge_runtime.opening import load_settings, needed_models, open_loader
from edge_runtime.result import (
    BundleIdentity,
    EngineIdentity,
    FieldResult,
    ScreeningResult,
)
from edge_runtime.standing_warnings import (
    FP16_WARNING,
    FP32_WARNING,
    UNPROVEN_WARNING,
    gate_status,
    require_proven,
    standing_warnings,
)
from edge_runtime.warmup_picture import warmup_jpeg

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_runtime.engines.trt_options import TrtOptions
    from edge_runtime.isolation import IsolationLimits

__all__ = [
    "FP16_WARNING",
    "FP32_WARNING",
    "MORE_FIELDS",
    "SAME_FIELD",
    "SAME_IMAGE",
    "UNPROVEN_WARNING",
    "Screener",
]

_log = logging.getLogger(__name__)

MORE_FIELDS = (
    "more pictures than the {number} field(s) an eye of the protocol; each can refer, and all must "
    "be clear"
)


class Screener:
    """A verified bundle on an open engine. Use as a context manager, or call `close`."""

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        *,
        loader: PictureLoader | None = None,
        allow_unproven_int8: bool = False,
    ) -> None:
        """Join a verified bundle and an engine opened on it; `Screener.open` does both.

        Args:
            bundle: As `read_bundle` gave it.
            engine: Opened on the bundle.
            loader: Makes the model's input, with the bundle's settings; None: this process does.
            allow_unproven_int8: Answer with an INT8 model whose gate did not pass; every result
                says so.

        Raises:
            GateRefusedError: If the engine is INT8 and the gate did not pass.
            BundleFormatError: If the bundle is not calibrated.
        """
        manifest = bundle.manifest
        if not manifest.calibrated:
            raise BundleFormatError(
                f"bundle {manifest.name!r} has no operating points or no INT8 record; "
                "run `edge-screen calibrate` on it"
            )
        if not allow_unproven_int8:
            require_proven(bundle, engine.precision)
        self._bundle = bundle.without_contents()
        self._engine = engine
        self._warnings = standing_warnings(bundle, engine)
        self._loader = loader or InProcessLoader(load_settings(bundle))
        self._pipeline = EyePipeline(manifest=manifest, engine=engine, loader=self._loader)

    @classmethod
    def open(
        cls,
        bundle_dir: Path | str,
        *,
        trusted_keys: Path | str | None = None,
        engine: str = "auto",
        precision: str = "int8",
        num_threads: int = 1,
        allow_unproven_int8: bool = False,
        cache_dir: Path | str | None = None,
        tensorrt: TrtOptions | None = None,
        provider: str = "cpu",
        isolation: IsolationLimits | None = None,
    ) -> Screener:
        """Verify the bundle (signature, hashes, content) and open the engine on its bytes.

        Args:
            bundle_dir: Folder of the bundle.
            trusted_keys: Public key file, or folder of `*.pub`; None looks where
                `edge_runtime.signing.find_trusted_keys` says, never inside the bundle.
            engine: "auto", "onnxruntime" or "tensorrt"; see `edge_runtime.engines.open_engine`.
            precision: "int8", "fp32", or "fp16" (TensorRT only).
            num_threads: Threads inside one run of ONNX Runtime.
            cache_dir: Where `edge-screen engine build` put its engines; None: its default.
            tensorrt: How to run a TensorRT engine; None: the defaults.
            isolation: Limits of child processes that decode; None: this process decodes.
            allow_unproven_int8: Answer with an INT8 model whose gate did not pass; every result
                says so.
            provider: Execution provider of ONNX Runtime, "cpu", "cuda" or "tensorrt"; one that is
                asked for and not given is an error.

        Raises:
            GateRefusedError: If INT8 is asked for and the gate did not pass.
            BundleError: If the bundle cannot be trusted or used.
            ConfigError: If an argument is out of range.
            EngineError: If the engine cannot be opened, OpenCV is too old to decode with, or a
                decoding child cannot be started.
            VerificationError: If an engine on a GPU does not give the bundle's recorded answers.
        """
        require_opencv()
        explicit = None if trusted_keys is None else Path(trusted_keys)
        needed = needed_models(engine, precision, provider)
        bundle = read_bundle(Path(bundle_dir), trusted_keys=explicit, keep_models=needed)
        with ExitStack() as stack:
            loader = open_loader(bundle, isolation)  # a child starts while the engine is opened
            stack.callback(loader.close)
            opened = open_engine(
                bundle,
                engine=engine,
                precision=precision,
                num_threads=num_threads,
                cache_dir=None if cache_dir is None else Path(cache_dir),
                tensorrt=tensorrt,
                provider=provider,
            )
            stack.callback(opened.close)
            screener = cls(bundle, opened, loader=loader, allow_unproven_int8=allow_unproven_int8)
            # Compiled on this device, or kernels of its GPU: checked by nobody before.
            if opened.name == "tensorrt" or provider != "cpu":
                from edge_runtime.checks.golden import require_golden

                require_golden(bundle, opened)
            loader.warm_up()
            stack.pop_all()
        return screener

    @property
    def bundle(self) -> Bundle:
        """The verified bundle, without the bytes of its files: the engine has what it needs."""
        return self._bundle

    @property
    def is_isolated(self) -> bool:
        """Whether pictures are decoded in child processes."""
        return not isinstance(self._loader, InProcessLoader)

    @property
    def engine(self) -> Engine:
        """The open engine; its `facts` say what it runs on."""
        return self._engine

    def screen(
        self,
        examination: Examination | bytes | Path,
        *,
        evidence: bool = False,
        deadline_ms: float | None = None,
    ) -> ScreeningResult:
        """Decide one examination.

        Args:
            examination: The eyes, or one picture (bytes or path) of an unspecified eye.
            evidence: Whether to keep class-evidence maps (attention, not lesions).
            deadline_ms: Time allowed for the whole examination. It is looked at between stages;
                an eye that is not finished by then is ungradable.

        Returns:
            A result for every input; image and engine failures are 'ungradable' eyes in it.

        Raises:
            ConfigError: If `deadline_ms` is not positive.
        """
        examination = _as_examination(examination)
        _check_deadline(deadline_ms)
        try:
            return self._screen(examination, evidence=evidence, deadline_ms=deadline_ms)
        except Exception as error:  # nobody foresaw it, and a batch must not end by it
            _log.error("examination: internal error (%s)", type(error).__name__)
            return self._unforeseen(examination, error)

    def screen_batch(
        self,
        examinations: Iterable[Examination | bytes | Path],
        *,
        num_threads: int | None = None,
        evidence: bool = False,
        deadline_ms: float | None = None,
    ) -> Iterator[ScreeningResult]:
        """Decide many examinations in threads, one examination a thread, on the one open engine.

        The results are those of `screen`, in the order given. At most two examinations a thread
        are taken from `examinations` ahead of the consumer, so that an iterator over a large
        folder is never held in memory. Breaking off the iteration waits for those in work.

        Args:
            examinations: As `screen` takes them.
            num_threads: None takes the CPUs that this process may use, as far as the engine
                lets so many call it. OpenCV's own threads are left as they are: see
                `edge_runtime.batch.one_opencv_thread`.
            evidence: Whether to keep class-evidence maps.
            deadline_ms: Time allowed for one examination, from when a thread begins it.

        Returns:
            An iterator; nothing runs before the first result is asked for.

        Raises:
            ConfigError: If `deadline_ms` is not positive, or `num_threads` out of range.
            Exception: Whatever the iterable raises, and TypeError for what is no examination:
                after the results of everything before it.
        """
        _check_deadline(deadline_ms)
        most = self._engine.max_callers
        if num_threads is None:
            num_threads = min(available_cpus(), most)
        if not 1 <= num_threads <= most:
            raise ConfigError(f"num_threads is {num_threads}; use 1 to {most} with this engine")

        def screen(examination: Examination) -> ScreeningResult:
            return self.screen(examination, evidence=evidence, deadline_ms=deadline_ms)

        items = (_as_examination(one) for one in examinations)
        return map_in_order(screen, items, num_threads=num_threads)

    def model_input(self, data: bytes) -> NDArray[np.uint8]:
        """Return the (S, S, 3) uint8 RGB square that the model sees of a file, made as in `screen`.

        Raises:
            ImageError: If the picture cannot be used.
            EngineError: If the screener is closed, or a decoding child cannot be had.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        return self._loader.load(data, sha256, StageClock()).preprocessed.image_hwc

    def warmup(self, n: int = 3) -> None:
        """Screen a drawn photograph, then run the engine `n` times on a grey picture.

        The first picture of a process waits for code pages, tables and buffers of the decoder,
        the resize and the engine; after this the first patient does not. A decoding child that is
        gone is started again.

        Raises:
            EngineError: If the engine fails: better now than with a patient.
        """
        self._loader.warm_up()
        size_px = self._loader.settings.spec.size_px
        self._pipeline.screen(EyeImage(source=warmup_jpeg(size_px)), evidence=False)
        grey = np.full((1, size_px, size_px, 3), 128, np.uint8)
        for _ in range(n):
            self._engine.run(grey)

    def close(self) -> None:
        """Release engine and children; a later `screen` returns ungradable eyes."""
        self._loader.close()
        self._engine.close()

    def __enter__(self) -> Screener:
        """Return the screener itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the engine."""
        self.close()

    def _screen(
        self, examination: Examination, *, evidence: bool, deadline_ms: float | None
    ) -> ScreeningResult:
        deadline_at = None if deadline_ms is None else time.perf_counter() + deadline_ms / 1e3
        fields: dict[str, list[FieldResult]] = {}
        warnings = list(self._warnings)
        is_alone = sum(image.source is not None for image in examination.images) < 2
        for eye, images in self._expected(examination).items():
            fields[eye] = []
            for number, image in enumerate(images, start=1):
                found, texts = self._pipeline.screen(
                    image, evidence=evidence, deadline_at=deadline_at, is_alone=is_alone
                )
                fields[eye].append(found)
                name = eye if len(images) == 1 else f"{eye} field {number}"
                warnings.extend(f"{name}: {text}" for text in texts)
            if len(images) > self._fields_per_eye:
                warnings.append(f"{eye}: {MORE_FIELDS.format(number=self._fields_per_eye)}")
        warnings.extend(pair_warnings(fields))
        return self._joined(examination, fields, warnings)

    def _unforeseen(self, examination: Examination, error: Exception) -> ScreeningResult:
        """Every field ungradable: whatever was found before is not to be trusted."""
        fields = {
            eye: [self._pipeline.refused(error) for _ in images]
            for eye, images in self._expected(examination).items()
        }
        return self._joined(examination, fields, list(self._warnings))

    def _expected(self, examination: Examination) -> dict[str, tuple[EyeImage, ...]]:
        """The pictures of each eye, with one that is missing for every field not given."""
        return {
            eye: images + (EyeImage(eye=eye, source=None),) * (self._fields_per_eye - len(images))
            for eye, images in examination.by_eye.items()
        }

    @property
    def _fields_per_eye(self) -> int:
        return self._bundle.manifest.protocol.fields_per_eye

    def _joined(
        self,
        examination: Examination,
        fields: Mapping[str, Sequence[FieldResult]],
        warnings: list[str],
    ) -> ScreeningResult:
        eyes = join_eyes(fields, fields_per_eye=self._fields_per_eye)
        bundle = self._bundle
        return ScreeningResult(
            examination_id=examination.examination_id,
            disposition=patient_disposition(eye.disposition for eye in eyes),
            eyes=eyes,
            bundle=BundleIdentity(
                name=bundle.manifest.name,
                version=bundle.manifest.version,
                sha256=bundle.sha256,
                key_id=bundle.key_id,
            ),
            engine=EngineIdentity(
                name=self._engine.name,
                precision=self._engine.precision,
                int8_gate=gate_status(bundle),
                details=self._engine.facts.details,
            ),
            warnings=tuple(warnings),
        )


def _as_examination(value: Examination | bytes | Path) -> Examination:
    return value if isinstance(value, Examination) else Examination.single(value)


def _check_deadline(deadline_ms: float | None) -> None:
    if deadline_ms is not None and not deadline_ms > 0.0:
        raise ConfigError(f"deadline_ms is {deadline_ms}; give a positive number or None")
