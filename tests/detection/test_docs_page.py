"""The code of docs/detection.md does what the page says, as it stands there."""

import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import timm
import torch

pytest.importorskip("detectron2")

from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog

PAGE = Path(__file__).resolve().parents[2] / "docs" / "detection.md"

pytestmark = pytest.mark.edge


def block(beginning: str) -> str:
    """The indented block of the page that begins so."""
    blocks = re.findall(r"(?:^    .*\n|^\n)+", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (found,) = [text for each in blocks if (text := dedent(each).strip()).startswith(beginning)]
    return found + "\n"


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """`mae.pth` in the folder that the code runs in."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    net = timm.create_model("vit_tiny_patch16_224", depth=4, num_classes=0)
    torch.save({"model": net.state_dict()}, "mae.pth")
    return net


def test_a_lazy_config_of_ones_own(checkpoint, tmp_path):
    (tmp_path / "mine.py").write_text(block("from pathlib import Path\n\nimport detectron2"))
    config: Any = LazyConfig.load("mine.py")
    assert config.train.init_checkpoint == ""
    model: Any = instantiate(config.model)
    blocks = model.backbone.net.net.state_dict()
    loaded = next(value for name, value in blocks.items() if name.endswith("blocks.3.mlp.fc1.weight"))
    assert torch.equal(loaded, checkpoint.blocks[3].mlp.fc1.weight)
    config.optimizer.params.model = model  # as tools/lazyconfig_train_net.py does
    optimizer: Any = instantiate(config.optimizer)
    rates = {group["lr"] for group in optimizer.param_groups}
    assert sorted(rates) == pytest.approx(sorted(1e-4 * 0.7**power for power in range(6)))
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}


def test_export_without_a_cell(checkpoint, tmp_path):
    exec(compile(block("from pathlib import Path\n\nfrom backbones"), str(PAGE), "exec"), {})
    config: Any = LazyConfig.load("cell.py")
    assert config.dataloader.train.dataset.names in DatasetCatalog.list()
    assert config.model.roi_heads.num_classes == 80 and config.train.max_iter == 184_375
