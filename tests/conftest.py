"""What many tests stand on, made once a session."""

from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    """Tests run side by side, and one thread makes CPU numbers the same on every machine; some tests change the number."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The embedded data sets at their smallest: folder, coco, ade20k."""
    from tasks.scenes import write_demo

    return write_demo(tmp_path_factory.mktemp("tiny") / "data", scale="tiny")
