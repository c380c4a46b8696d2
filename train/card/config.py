"""Settings of an evaluation card; they are saved whole in card.json."""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.errors import ConfigError
from train.data.index import SPLITS

__all__ = ["CardConfig"]


@dataclass(frozen=True, kw_only=True)
class CardConfig:
    """How a card is computed.

    Attributes:
        split: of every data set; 'test' unless seen eyes were asked for aloud.
        in_domain: names of the data sets whose source the models were trained on.
        also: (output of a model, column of a data set) pairs scored besides equal names.
        specificities: at which sensitivity is read from each set's own ROC curve.
        num_bins: of the calibration error and the reliability diagram.
        min_patients: smaller subgroups are suppressed.
        min_positives: subgroups with fewer positive eyes are suppressed.
        age_edges: years at which an age band begins.
        num_draws: bootstrap resamples of patients, the same for every model.
        seed: of the resamples.
        level: coverage of the intervals.
    """

    split: str = "test"
    in_domain: tuple[str, ...] = ()
    also: tuple[tuple[str, str], ...] = ()
    specificities: tuple[float, ...] = (0.90, 0.95)
    num_bins: int = 10
    min_patients: int = 20
    min_positives: int = 5
    age_edges: tuple[float, ...] = (40.0, 60.0, 75.0)
    num_draws: int = 2000
    seed: int = 0
    level: float = 0.95

    def __post_init__(self) -> None:
        """Refuse what no card can be computed with."""
        if self.split not in SPLITS:
            raise ConfigError(f"split is '{self.split}'; use one of {', '.join(SPLITS)}")
        if not all(0.0 < one < 1.0 for one in (*self.specificities, self.level)):
            raise ConfigError(
                f"specificities {self.specificities} and level {self.level} must lie between 0 "
                "and 1"
            )
        if list(self.age_edges) != sorted(set(self.age_edges)):
            raise ConfigError(f"age_edges {self.age_edges} must ascend")
        for name in ("num_bins", "min_patients", "min_positives", "num_draws"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; give 1 or more")
