"""Failpoints: faults that tests put into a running process by `MAE_BENCH_FAULT=<site>:<kind>[:nth]`.

Sites are `engine.step`, `checkpoint.write` and `record.write`; kinds are `kill` (SIGKILL), `term` (SIGTERM to oneself), `error`
(an unexpected exception), `nan` and `oom` (read by the site itself). Without the variable nothing happens.
"""

import os
import signal
from collections import Counter

VARIABLE = "MAE_BENCH_FAULT"
_visits: Counter[str] = Counter()


def visit(site: str) -> str | None:
    """Count a visit of a site and act when it is the one asked for; give the kind when the site is to act itself."""
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return None
    place, kind, nth = [*wanted.split(":"), "1"][:3]
    if place != site:
        return None
    _visits[site] += 1
    if _visits[site] != int(nth):
        return None
    if kind in ("kill", "term"):
        os.kill(os.getpid(), signal.SIGKILL if kind == "kill" else signal.SIGTERM)
    if kind == "error":
        raise RuntimeError(f"injected fault at {site}")
    return kind
