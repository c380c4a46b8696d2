"""Names of the structures and the four switches that let them into pretraining, all off.

Each switch is independent of the others and has a neutral value that turns it off, so that
an ablation changes one number and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.errors import ConfigError

__all__ = ["ATTENTION_FORMS", "STRUCTURES", "VIEW_STRUCTURES", "StructureConfig"]

STRUCTURES = ("fov", "vessels", "disc", "macula")  # the K maps, in this order everywhere
# What a view of the OCT looks at; 'other' is only kept inside the field of view.
VIEW_STRUCTURES = {"macula_h": "macula", "macula_v": "macula", "disc": "disc", "other": "fov"}
ATTENTION_FORMS = ("off", "map", "line")


@dataclass(frozen=True, kw_only=True)
class StructureConfig:
    """The four switches of structure-guided pretraining; the defaults switch all of them off.

    Attributes:
        focus: structures that switches 1 and 3 mean, joined by '+'; their maximum counts.
        hide_weight: switch 1, how much likelier a token wholly inside the focus is hidden
            than one outside; below 1 it is likelier visible (1/1.5 is the method's proposal).
            1 = off.
        attention: switch 2, 'map' biases OCT queries towards the view's structure, 'line'
            towards the place that the query's scan column was measured at. 'off' = off.
        attention_eps: floor of the bias; 0.05 is soft, 0 is hard.
        line_width: of 'line', in field units (the circle has radius 1).
        loss_alpha: switch 3, how much more a patch wholly inside the focus counts. 0 = off.
        target_weight: switch 4, weight of predicting the maps from CFP tokens. 0 = off.
    """

    focus: str = "disc+macula"
    hide_weight: float = 1.0
    attention: str = "off"
    attention_eps: float = 0.05
    line_width: float = 0.2
    loss_alpha: float = 0.0
    target_weight: float = 0.0

    def __post_init__(self) -> None:
        """Refuse unknown names and values out of range.

        Raises:
            ConfigError: names the field, its value and what is allowed.
        """
        for name in self.focus.split("+"):
            if name not in STRUCTURES:
                known = ", ".join(STRUCTURES)
                raise ConfigError(f"focus {self.focus!r} names {name!r}; join some of {known} by +")
        if self.attention not in ATTENTION_FORMS:
            allowed = ", ".join(ATTENTION_FORMS)
            raise ConfigError(f"attention is {self.attention!r}; choose one of {allowed}")
        self._check("hide_weight", 0.01, 100.0)
        self._check("attention_eps", 0.0, 1.0)
        self._check("line_width", 0.01, 2.0)
        self._check("loss_alpha", 0.0, 100.0)
        self._check("target_weight", 0.0, 100.0)

    def _check(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        # Written so that NaN is refused, too.
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not low <= value <= high
        ):
            raise ConfigError(f"{name} is {value!r}; give a number from {low:g} to {high:g}")

    @property
    def needs_structures(self) -> bool:
        """Whether any switch is on, so that maps must be made at all."""
        return (
            self.hide_weight != 1
            or self.attention != "off"
            or self.loss_alpha > 0
            or self.target_weight > 0
        )

    @property
    def focus_columns(self) -> tuple[int, ...]:
        """Positions in STRUCTURES of the focus."""
        return tuple(STRUCTURES.index(name) for name in self.focus.split("+"))
