"""Whether one measured number is better than another by more than chance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from results.sheet import Place, Sheet

LEVEL = 0.05
RULE = (
    "bold: better than every other number measured under the same protocol in its column, at the 5 % level, by Welch's t-test "
    "over seeds where both have several, else by the sampling errors of the evaluation set"
)


@dataclass(frozen=True)
class Test:
    """One comparison."""

    p: float
    """Two-sided."""
    kind: str


def differ(one: Place, other: Place) -> Test | None:
    """Test whether two measured numbers differ; None where nothing is known of their spread."""
    if one.mean is None or other.mean is None:
        return None
    if one.std is not None and other.std is not None and one.seeds > 1 and other.seeds > 1:
        return Test(welch((one.mean, one.std, one.seeds), (other.mean, other.std, other.seeds)), "Welch's t-test over seeds")
    if one.stderr is not None and other.stderr is not None and one.stderr + other.stderr > 0:
        z = (one.mean - other.mean) / math.hypot(one.stderr, other.stderr)
        return Test(math.erfc(abs(z) / math.sqrt(2)), "sampling errors")
    return None


def welch(one: tuple[float, float, int], other: tuple[float, float, int]) -> float:
    """Two-sided p of Welch's t-test, of mean, sample standard deviation and count of each side."""
    (mean, std, count), (mean_2, std_2, count_2) = one, other
    shares = std**2 / count, std_2**2 / count_2
    if sum(shares) == 0:
        return 1.0 if mean == mean_2 else 0.0
    from scipy.stats import t

    freedom = sum(shares) ** 2 / (shares[0] ** 2 / (count - 1) + shares[1] ** 2 / (count_2 - 1))
    return float(2 * t.sf(abs(mean - mean_2) / math.sqrt(sum(shares)), freedom))


def holm(values: Sequence[float]) -> list[float]:
    """P values corrected for their number as Holm (1979) does, in the order given."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    found, least = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(values) - rank) * values[index]))
        found[index] = least
    return found


def with_best(sheet: Sheet) -> Sheet:
    """Mark the best measured number of each column where it is significantly better than every other one."""
    places = dict(sheet.places)
    for column, higher in zip(sheet.columns, sheet.higher_is_better, strict=True):
        rows = [row for row in sheet.rows if sheet.place(row, column).mean is not None and not sheet.place(row, column).unlike]
        best = _best({row: sheet.place(row, column) for row in rows}, higher)
        if best:
            places[best, column] = replace(sheet.place(best, column), best=True)
    return replace(sheet, places=places)


def _best(found: Mapping[str, Place], higher: bool) -> str:
    """The row that is better than all others, or an empty text."""
    if len(found) < 2:
        return ""
    sign = 1 if higher else -1
    ordered = sorted(found, key=lambda row: -sign * (found[row].mean or 0.0))
    tests = [differ(found[ordered[0]], found[row]) for row in ordered[1:]]
    return ordered[0] if all(test is not None and test.p < LEVEL for test in tests) else ""
