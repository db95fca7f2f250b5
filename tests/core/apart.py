"""A test in a forked process, where it would leave something behind that later tests cannot stand."""

import json
import os
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from tests.core.killing import forked


def apart(work: Callable[..., Any]) -> Callable[..., None]:
    """A function that does the same in a forked process, and fails or skips here as it does there."""

    def call(**words: Any) -> None:
        reading, writing = os.pipe()
        child = forked(lambda: _tell(writing, _outcome(work, words)))
        os.close(writing)
        with os.fdopen(reading) as found:
            content = found.read()
        _, status = os.waitpid(child, 0)
        if not content:
            pytest.fail(f"the test's process ended with status {status}", pytrace=False)
        outcome, text = json.loads(content)
        if outcome == "skipped":
            pytest.skip(text)
        if outcome == "failed":
            pytest.fail(text, pytrace=False)

    return call


def _tell(writing: int, outcome: tuple[str, str]) -> None:
    with os.fdopen(writing, "w") as out:
        json.dump(outcome, out)


def _outcome(work: Callable[..., Any], words: dict[str, Any]) -> tuple[str, str]:
    try:
        work(**words)
    except pytest.skip.Exception as reason:
        return "skipped", str(reason)
    except BaseException:  # a failure of pytest's own is no Exception
        return "failed", traceback.format_exc()
    return "passed", ""
