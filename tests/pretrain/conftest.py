"""What the tests of pretraining share."""

import pytest

from tasks.handle import DataHandle, open_data
from tests.pretrain.photographs import jpeg, photograph


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> DataHandle:
    """Sixteen photographs of 320x240 in two classes; val has one of each."""
    root = tmp_path_factory.mktemp("images")
    for split, count in (("train", 16), ("val", 2)):
        for index in range(count):
            path = root / split / "ab"[index % 2] / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(photograph(320, 240, index), quality=90))
    return open_data(f"folder={root}")
