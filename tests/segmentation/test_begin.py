"""What happens before a training, and where there is none."""

import pytest

from mae_bench.core import metrics
from mae_bench.core.errors import InputError
from mae_bench.core.run import Run
from tasks.handle import open_data
from tasks.suite import segmentation
from tests.segmentation.conftest import tiny_source

pytestmark = pytest.mark.edge


def test_processes_share_the_images_where_nothing_is_trained(make_ade, settings, tmp_path, monkeypatch):
    segmentation_run = pytest.importorskip("tasks.edges.segmentation_run")
    joined: list[Run] = []
    monkeypatch.setattr(segmentation_run, "join", joined.append)
    monkeypatch.setattr(segmentation_run, "load_weights", lambda model, path: "as built")
    (tmp_path / "x.pth").write_bytes(b"x")
    begun = settings.override({"weights": str(tmp_path / "x.pth")})
    data, measured = open_data(f"ade20k={make_ade()}"), begun.override({"steps": 0, "warmup_steps": 0})
    segmentation.evaluate(tiny_source(), data, measured, Run(tmp_path / "measured"))
    assert [run.out.name for run in joined] == ["measured"]
    segmentation.evaluate(tiny_source(), data, begun, Run(tmp_path / "trained"))
    assert len(joined) == 1


@pytest.mark.parametrize("side", ["images", "annotations"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_file_of_val_is_named_before_the_training(make_ade, settings, tmp_path, side, workers):
    pytest.importorskip("tasks.edges.segmentation_run")
    root = make_ade()
    data = open_data(f"ade20k={root}")
    data.split("val")
    place = root / side / "validation/1.png"
    place.write_bytes(place.read_bytes()[:-60])
    run = Run(tmp_path / "out", workers=workers)
    with pytest.raises(InputError, match=rf"{side}/validation/1\.png"):
        segmentation.evaluate(tiny_source(), data, settings, run)
    assert not run.checkpoints.exists() and not (run.out / metrics.FILE).exists()
