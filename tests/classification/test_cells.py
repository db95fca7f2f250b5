"""Classification tasks as cells: shared features, and what the record says of damaged images and of the network."""

import pytest

from backbones.source import open_source
from mae_bench.cell import main
from mae_bench.core.errors import ConfigError
from mae_bench.core.run import Run
from mae_bench.options import Options, make_options
from mae_bench.plan import make_plan, with_options
from results.record import read_record
from results.request import write_request
from tasks.handle import open_data
from tasks.suite import finetune, knn, linear, logistic, partial


def test_cells_share_features_and_record_what_was_left_out(own_colours, tmp_path):
    root = own_colours(4)
    (root / "train/green/1.png").write_bytes(b"<html>")
    plan = make_plan(
        ["random:vit_demo_patch8"],
        ["knn", "linear:paper-large"],
        [f"folder={root}"],
        tmp_path / "out",
        overrides={"knn.k": "3", "knn.also_k": "[]", "linear.epochs": "1", "linear.warmup_epochs": "0", "linear.cached": "true"},
        seeds=[0],
        options=Options(),
    )
    for cell in plan.cells:
        write_request(cell.folder, cell.request)
        assert main([str(cell.folder)]) == 0
    assert len(list((tmp_path / "out/.features").glob("*.safetensors"))) == 2
    records = [read_record(cell.folder / "record.json", pytest.fail) for cell in plan.cells]
    for record in records:
        assert record is not None and "damaged training images left out: 1, named in skipped.jsonl" in record.deviations
    assert records[1] is not None
    assert any(line.startswith("recipe paper-large has the values of ViT-L") for line in records[1].deviations)


def test_a_cell_with_too_many_damaged_images_goes_on_with_a_higher_limit(own_colours, tmp_path):
    """As `retry --max-skipped` does it; nothing but the limit has changed, so it is the same cell."""
    root = own_colours(4)
    for name in ("green", "red"):
        (root / f"train/{name}/1.png").write_bytes(b"")
    words = (["random:vit_demo_patch8"], ["knn"], [f"folder={root}"], tmp_path / "out")
    plan = make_plan(*words, overrides={"knn.k": "3", "knn.also_k": "[]"}, seeds=[0], options=Options())
    (cell,) = plan.cells
    write_request(cell.folder, cell.request)
    assert main([str(cell.folder)]) == 3
    again = with_options(cell, make_options(device="cpu", max_skipped=0.2))
    assert again.request.key == cell.request.key
    write_request(again.folder, again.request)
    assert main([str(again.folder)]) == 0
    record = read_record(cell.folder / "record.json", pytest.fail)
    assert record is not None and "damaged training images left out: 2, named in skipped.jsonl" in record.deviations


@pytest.mark.parametrize(
    ("task", "recipe"),
    [(knn, "demo"), (linear, "cached"), (linear, "paper"), (finetune, "demo"), (partial, "demo"), (logistic, "demo")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_weights_cut_over_processes_are_refused(task, recipe, colours, tmp_path):
    source, run = open_source("random:vit_demo_patch8"), Run(tmp_path / "out", sharded=True)
    with pytest.raises(ConfigError, match="weights cannot be sharded, since each process predicts by itself with all of them"):
        task.evaluate(source, open_data(f"folder={colours}"), task.RECIPES[recipe], run)
    assert not run.out.exists()
