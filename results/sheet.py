"""A table of measured and published numbers side by side, before it becomes text."""

from dataclasses import dataclass, field
from typing import Literal

from results.published import Reference

DAGGER = "†"
Verdict = Literal["agrees", "above", "below"]


@dataclass(frozen=True)
class Place:
    """One place of a sheet."""

    mean: float | None = None
    """Measured, over seeds."""
    std: float | None = None
    """Over seeds; None for a single one."""
    seeds: int = 0
    stderr: float | None = None
    """Sampling error of the evaluation set, for a single seed."""
    state: str = ""
    """`failed`, `div.` or `stopped` where nothing could be measured."""
    published: Reference | None = None
    unlike: tuple[str, ...] = ()
    """Why the measured number is not one of the published protocol."""
    best: bool = False
    """Whether it is significantly better than every other measured number of its column."""
    tolerance: float = 0.0

    @property
    def difference(self) -> float | None:
        """Measured minus published, of one and the same protocol only."""
        if self.mean is None or self.published is None or self.unlike:
            return None
        return self.mean - self.published.value

    @property
    def verdict(self) -> Verdict | None:
        """Whether the measured number is the published one within the tolerance, or within two deviations over its seeds."""
        gap = self.difference
        if gap is None:
            return None
        if abs(gap) <= max(self.tolerance, 2 * (self.std or 0.0)) + 1e-9:
            return "agrees"
        return "above" if gap > 0 else "below"

    @property
    def measured_text(self) -> str:
        """The measured number as tables show it, or why there is none."""
        if self.mean is None:
            return self.state
        spread = f" ± {self.std:.2f} ({self.seeds})" if self.std is not None else ""
        return f"{self.mean:.2f}{spread}{DAGGER if self.unlike else ''}"

    @property
    def published_text(self) -> str:
        """The published number in brackets, with the difference and its verdict."""
        if self.published is None:
            return ""
        gap = self.difference
        return f"[{self.published.text}]" if gap is None else f"[{self.published.text}, {gap:+.2f} {self.verdict}]"

    @property
    def text(self) -> str:
        """All of it on one line."""
        return " ".join(word for word in (self.measured_text, self.published_text) if word) or "-"


@dataclass(frozen=True)
class Sheet:
    """A titled table with what has to be said under it."""

    title: str
    corner: str
    """Head of the first column."""
    columns: tuple[str, ...]
    higher_is_better: tuple[bool, ...]
    rows: tuple[str, ...]
    places: dict[tuple[str, str], Place] = field(default_factory=dict)
    """By row and column; what is not there is empty."""
    notes: tuple[str, ...] = ()

    def place(self, row: str, column: str) -> Place:
        """One place, also an empty one."""
        return self.places.get((row, column), Place())
