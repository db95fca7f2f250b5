"""A test that runs in a forked process fails, skips and passes as it would here."""

import os
import signal

import pytest

from tests.core.apart import apart


def fail(word):
    assert word == "right"


def test_failures_and_skips_come_back():
    assert apart(fail)(word="right") is None
    with pytest.raises(pytest.fail.Exception, match="wrong"):
        apart(fail)(word="wrong")
    with pytest.raises(pytest.skip.Exception, match="not here"):
        apart(lambda: pytest.skip("not here"))()
    with pytest.raises(pytest.fail.Exception, match="ended with status 9"):
        apart(lambda: os.kill(os.getpid(), signal.SIGKILL))()


PROCESS = os.getpid()


@pytest.mark.apart
def test_a_marked_test_has_a_process_of_its_own():
    assert os.getppid() == PROCESS != os.getpid()
