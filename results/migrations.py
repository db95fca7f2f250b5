"""Records of earlier schemas, brought up to the next one; reading them changes no file."""

from collections.abc import Callable
from typing import Any

from results.request import cell_key


def _from_1(data: dict[str, Any]) -> dict[str, Any]:
    """The precision has become a part of the key."""
    how = data["protocol"]
    key = cell_key(
        sha256=data["model"]["sha256"],
        task=how["task"],
        digest=how["config_digest"],
        fingerprint=data["dataset"]["fingerprint"],
        seed=data["seed"],
        version=how.get("version", 1),
        precision=data["machine"].get("precision", "fp32"),
    )
    return {**data, "schema": 2, "key": key}


def _from_2(data: dict[str, Any]) -> dict[str, Any]:
    """The number of accelerators has been added; it was always one where there was any."""
    return {**data, "schema": 3, "cost": {**data["cost"], "gpus": int(data["machine"]["device"] != "cpu")}}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1, 2: _from_2}
"""From each older schema to the next one."""
