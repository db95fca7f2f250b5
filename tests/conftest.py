"""What tests of several folders stand on."""

import random
import signal
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch


def _seed(name: str) -> None:
    """Random numbers that the name tells: not the tests before, nor which of the processes runs which of them."""
    number = zlib.crc32(name.encode())
    random.seed(number)
    np.random.seed(number)
    torch.default_generator.manual_seed(number)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object]) -> None:
    """Fixtures of any scope have their own random numbers."""
    _seed(fixturedef.argname)


@pytest.fixture(autouse=True)
def _one_thread():
    """Tests run side by side, and one thread makes CPU numbers the same on every machine; some tests change the number."""
    torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Seed each test, and run one that is marked `apart` in a forked process."""
    _seed(pyfuncitem.nodeid)
    if pyfuncitem.get_closest_marker("apart") is None:
        return None
    from tests.core.apart import apart  # loads accelerate, which most tests do without

    names = pyfuncitem._fixtureinfo.argnames
    apart(pyfuncitem.obj)(**{name: pyfuncitem.funcargs[name] for name in names})
    return True


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The embedded data sets at their smallest: folder, coco, ade20k."""
    from tasks.scenes import write_demo

    return write_demo(tmp_path_factory.mktemp("tiny") / "data", scale="tiny")


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Starts jobs by submitit, whose LocalExecutor stands in for a cluster."""
    submitit = pytest.importorskip("submitit")
    from mae_bench.processes import submitter

    # It cancels by SIGINT, which jobs ignore if tests that a shell runs in the background do.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr("submitit.core.core.Job._results_timeout_s", 1)
    executor = submitit.LocalExecutor(folder=tmp_path / "slurm")
    executor.update_parameters(timeout_min=5)
    yield submitter(executor)
    signal.signal(signal.SIGINT, before)
