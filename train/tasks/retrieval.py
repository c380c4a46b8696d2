"""Retrieval between the two images of an eye, by one protocol for every arm.

Most arms have no OCT encoder, so the scan is described without one: by the whitened
principal components of its flattened form, fitted on training scans. A ridge regression
from frozen CFP features to those components, fitted on training pairs, says what the scan
should be; cosine similarity finds it. An arm with projection heads of its own is also
measured as it is ('zero_shot').

The gallery has one item an eye and only eyes of one side, so each patient is in it once
and laterality, which an untrained network reads, finds nothing. An eye that lacks a scan
takes no part, neither here nor in what is fitted. Ties are split: a constant
embedding scores exactly chance.

Legend: N eyes, K components, E width of an embedding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import Ridge

from edge_runtime.errors import ConfigError, DataError
from train.dataset_arrays import SplitArrays
from train.oct_targets import OctTargetConfig, WhitenedComponents, make_oct_targets
from train.tasks.data import TaskData
from train.tasks.features import FrozenFeatures
from train.tasks.registry import TaskSpec
from train.tasks.results import Measurement
from train.tasks.settings import TaskSettings
from train.tasks.weighted_metrics import ScoredEyes

__all__ = [
    "OctCodes",
    "Ranks",
    "RetrievalHeads",
    "measure_retrieval",
    "oct_codes",
    "rank_of_own",
    "recall_at",
]

FloatArray = npt.NDArray[np.float64]
Embed = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.floating]]
_RECALLS = (1, 5, 10)
_HEADLINE = 10
# Penalties an eye; the one that ranks validation eyes best is used.
_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True, kw_only=True)
class OctCodes:
    """Whitened components of the scans: the same for every encoder, so made once.

    Attributes:
        train: (N, K) float64, mean 0 and variance about 1.
        val: (M, K).
        test: (L, K).
    """

    train: FloatArray
    val: FloatArray
    test: FloatArray


@dataclass(frozen=True, kw_only=True)
class RetrievalHeads:
    """Embeddings of an arm that learnt both modalities.

    Attributes:
        embed_cfp: (N, S, S, 3) uint8 -> (N, E).
        embed_oct: (N, 2, Z, X) uint8 -> (N, E).
    """

    embed_cfp: Embed
    embed_oct: Embed


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Where each query's own item is among the gallery.

    Attributes:
        better: (N,) items strictly more similar than the own one.
        tied: (N,) items as similar as the own one, itself included.
    """

    better: npt.NDArray[np.int64]
    tied: npt.NDArray[np.int64]

    def expected(self) -> FloatArray:
        """(N,) rank from 1 on, ties in random order."""
        return self.better + (self.tied + 1) / 2


def oct_codes(data: TaskData, num_components: int) -> OctCodes:
    """Describe every scan by whitened components fitted on the training scans.

    Raises:
        ConfigError: there are fewer training eyes than components.
        DataError: the splits were loaded without B-scans, or a split has no eye with both.
    """
    splits = (data.train, data.val, data.test)
    targets, complete = [_targets(split) for split in splits], _complete(data.train)
    fitted = WhitenedComponents.fit(targets[0][complete], num_components)
    directions = fitted.directions.numpy().T.astype(np.float64) / fitted.spreads.numpy()
    codes = [one.reshape(len(one), -1) @ directions for one in targets]
    mean = codes[0][complete].mean(0)
    return OctCodes(train=codes[0] - mean, val=codes[1] - mean, test=codes[2] - mean)


def rank_of_own(query_ne: FloatArray, gallery_ne: FloatArray) -> Ranks:
    """Rank item i of the gallery for query i by cosine similarity.

    Equal gallery items are compared once, so they tie exactly, whatever the rounding.

    Raises:
        DataError: an embedding is not finite.
    """
    query, gallery = _unit(query_ne), _unit(gallery_ne)
    distinct, which, counts = np.unique(gallery, axis=0, return_inverse=True, return_counts=True)
    similarity = query @ distinct.T
    own = np.take_along_axis(similarity, which.reshape(-1, 1), axis=1)
    return Ranks(better=(similarity > own) @ counts, tied=(similarity == own) @ counts)


def recall_at(ranks: Ranks, k: int) -> FloatArray:
    """(N,) probability that the own item is among the first k, ties in random order."""
    hit: FloatArray = np.clip((k - ranks.better) / ranks.tied, 0.0, 1.0)
    return hit


def measure_retrieval(
    features: FrozenFeatures,
    data: TaskData,
    specs: Sequence[TaskSpec],
    settings: TaskSettings,
    *,
    codes: OctCodes | None = None,
    heads: RetrievalHeads | None = None,
) -> Iterator[Measurement]:
    """One measurement a direction, and one more each where the arm has heads of its own.

    Args:
        features: of the frozen encoder.
        data: with B-scans.
        specs: 'cfp_to_oct', 'oct_to_cfp' or both.
        settings: of the run.
        codes: made before by `oct_codes`, to share them between encoders.
        heads: projection heads, where the checkpoint has both.
    """
    start = time.perf_counter()
    try:
        codes = oct_codes(data, settings.num_oct_components) if codes is None else codes
        cfp, penalty = _predicted_codes(features, codes, data)
    except (ConfigError, DataError) as error:
        for spec in specs:
            yield Measurement(
                task=spec.name, readout="ridge", num_labels=0, eyes=None, note=str(error)
            )
    else:
        seconds, extra = (time.perf_counter() - start) / len(specs), {"ridge_penalty": penalty}
        for spec in specs:
            yield _row(spec, "ridge", cfp, codes.test, data.test, extra, seconds)
    if heads is not None and data.test.scans_nvzx is not None and _complete(data.test).any():
        start = time.perf_counter()
        own_cfp = np.asarray(heads.embed_cfp(data.test.images_nhwc), np.float64)
        own_oct = np.asarray(heads.embed_oct(data.test.scans_nvzx), np.float64)
        seconds = (time.perf_counter() - start) / len(specs)
        for spec in specs:
            yield _row(spec, "zero_shot", own_cfp, own_oct, data.test, {}, seconds)


def _targets(split: SplitArrays) -> npt.NDArray[np.float32]:
    if split.scans_nvzx is None:
        raise DataError(
            "retrieval needs B-scans in every split; load the data with_oct=True if they are there"
        )
    if not _complete(split).any():
        raise DataError("retrieval needs eyes with both B-scans in every split; one has none")
    return make_oct_targets(split.scans_nvzx, OctTargetConfig())


def _complete(split: SplitArrays) -> npt.NDArray[np.bool_]:
    """(N,) bool, the eyes with both B-scans."""
    if split.scans_present_nv is None:
        return np.ones(len(split), np.bool_)
    return np.asarray(split.scans_present_nv.all(1), np.bool_)


def _predicted_codes(
    features: FrozenFeatures, codes: OctCodes, data: TaskData
) -> tuple[FloatArray, float]:
    """Components predicted for test CFPs, and the penalty chosen on validation eyes."""
    groups, complete = _galleries(data.val), _complete(data.train)
    known, wanted = features.train[complete], codes.train[complete]
    best: tuple[float, float, FloatArray] | None = None
    for penalty in _PENALTIES:
        model = Ridge(alpha=penalty * len(wanted)).fit(known, wanted)
        # scikit-learn drops the axis of a single component.
        val, test = (
            model.predict(part).reshape(len(part), -1) for part in (features.val, features.test)
        )
        logs = [np.log(rank_of_own(val[g], codes.val[g]).expected()) for g in groups]
        rank = float(np.concatenate(logs).mean())
        if best is None or rank < best[0]:
            best = (rank, penalty, test)
    assert best is not None
    return best[2], best[1]


def _galleries(split: SplitArrays) -> list[npt.NDArray[np.int64]]:
    """Rows of each gallery: the first visit with both scans of every eye of one side."""
    rows = np.flatnonzero(_complete(split))
    eye_ids = np.char.add(np.char.add(split.patient_ids, " "), split.eyes)[rows]
    first = rows[np.sort(np.unique(eye_ids, return_index=True)[1])]
    sides = [first[split.eyes[first] == side] for side in ("OD", "OS")]
    return [side for side in sides if len(side)]


def _row(
    spec: TaskSpec,
    readout: str,
    cfp: FloatArray,
    scans: FloatArray,
    test: SplitArrays,
    extra: dict[str, float],
    seconds: float,
) -> Measurement:
    query, gallery = (cfp, scans) if spec.name == "cfp_to_oct" else (scans, cfp)
    groups = _galleries(test)
    ranks = [rank_of_own(query[rows], gallery[rows]) for rows in groups]
    sizes = np.concatenate([np.full(len(rows), len(rows)) for rows in groups])
    numbers = dict(extra)
    for k in _RECALLS:
        numbers[f"recall_at_{k}"] = float(np.concatenate([recall_at(r, k) for r in ranks]).mean())
        numbers[f"chance_recall_at_{k}"] = float(np.minimum(1.0, k / sizes).mean())
    numbers["median_rank"] = float(np.median(np.concatenate([r.expected() for r in ranks])))
    numbers["chance_median_rank"] = float(np.median((sizes + 1) / 2))
    numbers["mean_gallery_size"] = float(sizes.mean())
    hits = np.concatenate([recall_at(one, _HEADLINE) for one in ranks])
    return Measurement(
        task=spec.name,
        readout=readout,
        num_labels=0,
        eyes=ScoredEyes(
            patient_ids=test.patient_ids[np.concatenate(groups)],
            truth=np.zeros(len(hits), np.float32),
            scores=hits[None].astype(np.float32),
        ),
        chance=numbers[f"chance_recall_at_{_HEADLINE}"],
        extra=numbers,
        seconds=seconds,
    )


def _unit(embedding_ne: FloatArray) -> FloatArray:
    """Rows of length 1; a row of zeros stays, and ties with everything."""
    values = np.asarray(embedding_ne, np.float64)
    if not np.isfinite(values).all():
        raise DataError("an embedding is not finite; train the encoder again")
    length = np.linalg.norm(values, axis=1, keepdims=True)
    # Adding 0 turns -0 into 0, which np.unique would tell apart.
    unit: FloatArray = values / np.where(length > 0, length, 1.0) + 0.0
    return unit
