"""Two models on the same cells: paired tests, effects with intervals, corrected for their number."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mae_bench.core.config import nearest
from mae_bench.core.errors import ConfigError, InputError
from results.labels import GroupKey, RowKey, record_group, record_row
from results.names import PER_IMAGE, plain
from results.significance import holm
from results.store import StoredCell, read_object
from results.table import Table

RESAMPLES = 10_000
Z_95 = 1.959963984540054
NO_TEST = "none: one seed, and no answer of each image nor a sampling error; measure several --seeds"
"""Of detection and segmentation, whose AP and mIoU are no means over images, this is all that can be said of a single seed."""


@dataclass(frozen=True)
class Comparison:
    """One metric of one protocol on one data set, of two models."""

    protocol: str
    metric: str
    first: float
    """Mean of the first model over the seeds that both have."""
    second: float
    difference: float
    """Second minus first."""
    low: float | None
    high: float | None
    """95 % interval of the difference."""
    p: float | None
    """Two-sided."""
    p_holm: float | None
    """The same, corrected for the number of tests in the table (Holm, 1979)."""
    test: str
    seeds: int
    """That both models have."""
    better: str = ""
    """Name of the model that is better at the 5 % level after the correction."""


def compare(table: Table, first: str, second: str) -> list[Comparison]:
    """Compare two models wherever both were measured under one protocol on one data set with one seed.

    Args:
        table: of the output folders.
        first: name of a model as tables show it.
        second: of the other one.

    Raises:
        ConfigError: an unknown name, or the same one twice.
        InputError: the two have no cell in common.
    """
    rows = [_row(table, name) for name in (first, second)]
    if rows[0] == rows[1]:
        raise ConfigError(f"{first!r} is to be compared with itself; give two models")
    cells: dict[tuple[RowKey, GroupKey, int], StoredCell] = {}
    shown = set(map(id, table.records))
    for cell in table.cells:
        if cell.record is not None and id(cell.record) in shown:
            cells[record_row(cell.record), record_group(cell.record), cell.record.seed] = cell
    found = []
    for group in table.groups:
        seeds = [sorted(seed for row, key, seed in cells if row == one and key == group.key) for one in rows]
        shared = [seed for seed in seeds[0] if seed in seeds[1]]
        pairs = [(cells[rows[0], group.key, seed], cells[rows[1], group.key, seed]) for seed in shared]
        found += [one for metric in group.metrics if (one := _compare(group.label, metric, pairs)) is not None]
    if not found:
        raise InputError(f"{plain(first)} and {plain(second)} have no finished cell in common; run both on one task and data")
    return _corrected(found, table, rows)


def _row(table: Table, name: str) -> RowKey:
    labels = dict(zip(table.row_labels, table.rows, strict=True))
    if name in labels:
        return labels[name]
    if any(row[0] == name for row in table.rows):
        known = [label for label, row in labels.items() if row[0] == name]
        raise ConfigError(f"{len(known)} checkpoints are called {name!r}; say which: {' or '.join(known)}")
    raise ConfigError(f"no model {plain(name)!r} was measured; {nearest(name, list(labels))}")


def _compare(label: str, metric: str, pairs: Sequence[tuple[StoredCell, StoredCell]]) -> Comparison | None:
    scores = [
        (one.record.metrics[metric], other.record.metrics[metric])
        for one, other in pairs
        if one.record is not None and other.record is not None and metric in one.record.metrics and metric in other.record.metrics
    ]
    if not scores:
        return None
    sides = np.array([[one.value, other.value] for one, other in scores])
    gaps = sides[:, 1] - sides[:, 0]
    images = _images(metric, pairs)
    common = (label, metric, float(sides[:, 0].mean()), float(sides[:, 1].mean()))
    if images is not None:
        return Comparison(*common, *_by_image(*images, gap=float(gaps.mean())), seeds=len(scores))
    if len(gaps) > 1:
        return Comparison(*common, *_by_seed(gaps), seeds=len(scores))
    errors = [score.stderr for score in scores[0]]
    return Comparison(*common, *_by_error(float(gaps[0]), errors), seeds=1)


Numbers = tuple[float, float | None, float | None, float | None, None, str]
"""Difference, its interval, p, a place for the corrected p, the name of the test."""


def _by_seed(gaps: "np.ndarray") -> Numbers:
    from scipy.stats import t

    mean, error = float(gaps.mean()), float(gaps.std(ddof=1)) / math.sqrt(len(gaps))
    reach = float(t.ppf(0.975, len(gaps) - 1)) * error
    p = float(2 * t.sf(abs(mean) / error, len(gaps) - 1)) if error else float(mean == 0)
    return mean, mean - reach, mean + reach, p, None, "paired t over seeds"


def _by_error(gap: float, errors: Sequence[float | None]) -> Numbers:
    one, other = errors
    if one is None or other is None or not one + other:
        return gap, None, None, None, None, NO_TEST
    error = math.hypot(one, other)
    return (
        gap,
        gap - Z_95 * error,
        gap + Z_95 * error,
        math.erfc(abs(gap) / error / math.sqrt(2)),
        None,
        "sampling errors, unpaired",
    )


def _by_image(one: "np.ndarray", other: "np.ndarray", *, gap: float) -> Numbers:
    """McNemar's exact test for right and wrong, else a bootstrap of the images; values are scaled to the metric's unit."""
    from scipy.stats import binomtest

    gaps = other - one
    draws = np.random.default_rng(0)
    means = np.array([gaps[draws.integers(0, len(gaps), len(gaps))].mean() for _ in range(RESAMPLES)])
    scale = gap / gaps.mean() if gaps.mean() else 100.0
    low, high = sorted(float(value) * scale for value in np.percentile(means, (2.5, 97.5)))
    if set(np.unique(gaps)) <= {-1.0, 0.0, 1.0}:
        up, down = int((gaps > 0).sum()), int((gaps < 0).sum())
        p = float(binomtest(up, up + down).pvalue) if up + down else 1.0
        return gap, low, high, p, None, "McNemar, exact, over images"
    share = float(min((means <= 0).mean(), (means >= 0).mean()))
    return gap, low, high, min(1.0, max(2 * share, 1 / RESAMPLES)), None, "paired bootstrap of images"


def _images(metric: str, pairs: Sequence[tuple[StoredCell, StoredCell]]) -> "tuple[np.ndarray, np.ndarray] | None":
    """Values of each image, the mean over seeds, where every cell has left as many; None where one has not."""
    sides = [[_values(cell.folder, metric) for cell in side] for side in zip(*pairs, strict=True)]
    found = [values for side in sides for values in side]
    if any(values is None or len(values) != len(found[0] or ()) or len(values) < 2 for values in found):
        return None
    one, other = (np.array(side, dtype=float).mean(axis=0) for side in sides)
    return one, other


def _values(folder: Path, metric: str) -> list[float] | None:
    values = read_object(folder / PER_IMAGE).get(metric)
    good = isinstance(values, list) and all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    return values if good else None


def _corrected(found: Sequence[Comparison], table: Table, rows: Sequence[RowKey]) -> list[Comparison]:
    corrected = iter(holm([one.p for one in found if one.p is not None]))
    names = [table.row_labels[table.rows.index(row)] for row in rows]
    lower = {name for record in table.records for name, score in record.metrics.items() if not score.higher_is_better}
    done = []
    for one in found:
        p = next(corrected) if one.p is not None else None
        second = (one.difference > 0) != (one.metric in lower)
        done.append(replace(one, p_holm=p, better=names[second] if p is not None and p < 0.05 else ""))
    return done
