"""The written LazyConfig against the cell it stands for."""

import ast
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.solver import LRMultiplier

from backbones.layers import layer_ids
from backbones.source import open_source
from mae_bench.core.errors import ConfigError
from mae_bench.core.optim import parameter_groups
from mae_bench.core.run import Run
from mae_bench.core.schedule import ScheduleConfig
from tasks.edges import detection_run
from tasks.edges.detection_model import decay_exemption
from tasks.handle import open_data
from tasks.suite.detection import RECIPES, export_native
from tests.data.test_data_coco_lvis import write as write_lvis

pytestmark = [
    pytest.mark.edge,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # pycocotools under NumPy 2
]


@pytest.fixture
def source():
    return open_source("tiny=random:vit_demo_patch8")


def written(source: Any, config: Any, path: Path, **options: Any) -> Any:
    export_native(source, config, path, **options)
    ast.parse(path.read_text())
    assert max(map(len, path.read_text().splitlines())) < 180
    return LazyConfig.load(str(path))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"window": 3, "rel_pos": True, "drop_path": 0.1, "decay_norms": True},
        {"head.cascade": True, "head.norm": "BN"},
        {"frozen": True, "optim.layer_decay": 1.0},
    ],
)
def test_config_builds_the_same_model_and_groups(source, settings, splits, tmp_path, changes):
    config = settings.override(changes)
    split = splits()[0]
    ours = detection_run.build(source, split, config, Run(out=tmp_path / "run"), masks=True)
    native = written(source, config, tmp_path / "cell.py", num_classes=2)
    theirs: Any = instantiate(native.model)
    shapes = [{name: (value.shape, value.requires_grad) for name, value in m.named_parameters()} for m in (ours, theirs)]
    assert shapes[0] == shapes[1]
    theirs.load_state_dict(ours.state_dict())
    samples = [{"image": torch.randint(0, 256, (3, 64, 48), dtype=torch.uint8), "height": 128, "width": 96}]
    with torch.no_grad():
        (a,), (b,) = (model.eval()(samples) for model in (ours, theirs))
    assert len(a["instances"]) > 0 and torch.equal(a["instances"].pred_boxes.tensor, b["instances"].pred_boxes.tensor)
    for name in ("pixel_mean", "pixel_std"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))
    assert ours.backbone.padding_constraints == theirs.backbone.padding_constraints

    native.optimizer.params.model = theirs
    optimizer: Any = instantiate(native.optimizer)
    names = {id(value): name for name, value in theirs.named_parameters()}
    found = {names[id(v)]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for v in group["params"]}
    layer_id, depth = layer_ids(ours)
    exempt = decay_exemption(ours, decay_norms=config.decay_norms)
    groups = parameter_groups(ours, config.optim, layer_id=layer_id, depth=depth, no_decay=exempt)
    wanted = {
        name: (pytest.approx(config.optim.lr * group["lr_scale"]), group["weight_decay"])
        for group in groups
        for name in group["names"]
    }
    assert found == wanted


@pytest.mark.parametrize(
    "schedule",
    [
        {"kind": "multistep", "warmup_steps": 10, "warmup_start": 0.001, "milestones": (60, 80)},
        {"kind": "cosine", "warmup_steps": 10, "end": 0.01},
        {"kind": "poly", "power": 0.9},
        {"kind": "constant", "warmup_steps": 5},
    ],
)
def test_schedule_is_the_same_at_every_step(source, settings, tmp_path, schedule):
    config = settings.model_copy(update={"steps": 100, "schedule": ScheduleConfig(**schedule)})
    native = written(source, config, tmp_path / "cell.py")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    curve: Any = instantiate(native.lr_multiplier)
    multiplier = LRMultiplier(optimizer, curve, 100)
    for step in range(100):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(config.schedule.factor(step, 100), abs=1e-9), step
        optimizer.step()
        multiplier.step()


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning")  # Detectron2's own reader of bitmaps
@pytest.mark.parametrize("masks", [None, "polygon", "rle"])
def test_loaders_give_the_users_data(source, settings, make_coco, tmp_path, masks):
    data = open_data(f"coco={make_coco(masks=masks)}")
    try:
        native = written(source, settings, tmp_path / "cell.py", handle=data)
        assert native.model.roi_heads.num_classes == 2 and ("mask_head" in native.model.roi_heads) == (masks is not None)
        native.dataloader.train.num_workers = native.dataloader.test.num_workers = 0
        loader: Any = instantiate(native.dataloader.train)
        batch = next(iter(loader))
        assert len(batch) == settings.batch_size and batch[0]["image"].shape[0] == 3 and len(batch[0]["instances"]) > 0
        if masks:
            assert type(batch[0]["instances"].gt_masks).__name__ == {"polygon": "PolygonMasks", "rle": "BitMasks"}[masks]
        test: Any = instantiate(native.dataloader.test)
        assert sum(map(len, test)) == 3
        assert native.train.max_iter == settings.steps
        LazyConfig.load(str(tmp_path / "cell.py"))  # once more, with the data registered
    finally:
        for which in ("train", "val"):
            DatasetCatalog.remove(f"mae_bench_coco_{which}")
            MetadataCatalog.remove(f"mae_bench_coco_{which}")


def test_lvis_is_registered_as_lvis(source, settings, tmp_path):
    data = open_data(f"lvis={write_lvis(tmp_path / 'lvis')}")
    names = [f"lvis_v1_lvis_{which}" for which in ("train", "val")]
    try:
        native = written(source, settings.override({"repeat_threshold": 0.5}), tmp_path / "cell.py", handle=data)
        assert native.dataloader.train.dataset.names == names[0] and native.model.roi_heads.num_classes == 2
        # Reading it needs LVIS' own package, which this does not install.
        facts = MetadataCatalog.get(names[1])
        assert Path(facts.json_file).is_file() and facts.image_root == f"{tmp_path / 'lvis'}/" and facts.evaluator_type == "lvis"
    finally:
        for name in names:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_every_recipe_can_be_written(source, tmp_path, recipe):
    config, lvis = RECIPES[recipe], "lvis" in recipe
    data = "lvis_v1" if lvis else "coco_2017"
    native = written(source, config, tmp_path / "cell.py", num_classes=1203 if lvis else 80, data=data)
    assert native.train.max_iter == config.steps and native.dataloader.train.dataset.names == f"{data}_train"
    assert ("sampler" in native.dataloader.train) == lvis
    predictor = native.model.roi_heads.box_predictors[0] if config.head.cascade else native.model.roi_heads.box_predictor
    assert predictor.test_topk_per_image == config.head.detections
    assert ("get_fed_loss_cls_weights" in predictor) == lvis


def test_what_detectron2_has_no_words_for_is_refused(source, settings, tmp_path):
    for changes in (
        {"optim.name": "lars"},
        {"optim.clip_grad": 1.0},
        {"weights": "x.pkl"},
        {"schedule.kind": "poly", "schedule.end": 0.1},
    ):
        with pytest.raises(ConfigError):
            export_native(source, settings.override(changes), tmp_path / "cell.py")
    assert not (tmp_path / "cell.py").exists()
