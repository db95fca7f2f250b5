"""The recipes: what they refuse, what a record says of them, each built at full size."""

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from mae_bench.core.config import build
from mae_bench.core.errors import ConfigError
from mae_bench.core.run import Run
from tasks.suite import segmentation
from tasks.suite.segmentation import RECIPES, Config
from tests.segmentation.full_size import VARIANTS, full_size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pool_scales": [0]}, r"pool_scales=\[0\]: value 1 is 0; .*greater than 0"),
        ({"pool_scales": []}, "pool_scales"),
        ({"out_layers": [1, 2]}, "UPerNet takes the outputs of four blocks"),
        ({"resize_ratio": [2, 1]}, "smaller number first"),
        ({"resize_ratio": [0, 1]}, r"resize_ratio=\[0, 1\]: value 1 is 0; give at least 0\.1"),
        ({"test_scales": []}, "test_scales"),
        ({"test_scales": [0]}, r"test_scales=\[0\]: value 1 is 0; give at least 0\.1"),
        ({"test_mode": "whole", "test_stride": 3}, "test_stride is of sliding windows"),
        ({"steps": 0}, "no weights to measure"),
        ({"steps": 1500}, "warmup_steps=1500 is not less than steps=1500; set warmup_steps too, 150 say"),
        ({"frozen": True}, "set drop_path=0.0 layer_decay=1.0 relative_table=False layer_scale=None"),
        ({"head": "linear", "neck": "resize"}, "a linear head has no use for these; set neck=deconvolution"),
        ({"batch_size": 1}, "batch_size=1"),
        ({"image_size": 31}, "image_size=31"),
    ],
)
def test_settings_that_cannot_be_are_one_line(changes, message):
    with pytest.raises(ConfigError, match=message):
        build(Config, Config().model_dump() | changes, where="segmentation")


def test_what_a_cell_says_of_itself(tmp_path):
    def said(recipe, width=768, depth=12, precision="fp32", **changes):
        source = SimpleNamespace(spec=SimpleNamespace(embed_dim=width, depth=depth, name="vit_x", patch_size=16))
        config = RECIPES[recipe].override(changes)
        return " | ".join(segmentation.deviations(recipe, config, cast(Any, source), Run(tmp_path, precision=precision)))

    assert said("paper") == said("paper-large", 1024, 24) == ""
    assert "paper was made for a width of 768 and 12 blocks; vit_x has 384 and 12" in said("paper", width=384)
    assert "trained in bf16" in said("paper", precision="bf16") and not said("fast", precision="bf16")
    assert said("beit") == "trained in fp32; the published run was in fp16" and not said("beit", precision="bf16")
    torch.save({"x": torch.zeros(1)}, tmp_path / "x.pth")
    digest = hashlib.sha256((tmp_path / "x.pth").read_bytes()).hexdigest()
    assert f"began as {tmp_path}/x.pth, sha256 {digest}" in said("paper", weights=str(tmp_path / "x.pth"))


def test_each_recipe_but_the_suites_own_says_how_images_are_decoded():
    """Of the recipes of the paper the record takes `DEVIATIONS`; of others, what is under their names."""
    silent = {name for name in RECIPES if segmentation.BY_PILLOW not in segmentation.DEVIATIONS_OF.get(name, ())}
    assert {name for name in silent if not name.startswith("paper")} == set(segmentation.OWN)
    assert segmentation.BY_PILLOW in segmentation.DEVIATIONS


def test_batch_norms_that_are_not_synchronised_are_said(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    source = cast(Any, SimpleNamespace(spec=SimpleNamespace(embed_dim=768, depth=12, name="vit_x")))
    assert "2 processes" in segmentation.deviations("paper", Config(), source, Run(tmp_path))[0]
    assert segmentation.deviations("paper", Config(), source, Run(tmp_path, device="cuda")) == ()


def test_every_recipe_is_described():
    text = (Path(__file__).parents[2] / "docs/segmentation.md").read_text()
    assert not [name for name in RECIPES if f"`{name}`" not in text]


@pytest.mark.edge
class TestNetworks:
    @pytest.fixture(autouse=True)
    def _needs_mmseg(self):
        pytest.importorskip("tasks.edges.segmentation_run")

    @pytest.mark.parametrize("recipe", list(RECIPES))
    def test_every_recipe_is_built_at_full_size(self, recipe):
        config = RECIPES[recipe]
        built, _ = full_size(VARIANTS.get(recipe, "vit_base_patch16"), config)
        assert all(parameter.is_meta for parameter in built.parameters())
        side = config.image_size
        images = torch.zeros(2, 3, side, side, device="meta")
        maps = built.backbone(images)
        assert len(maps) == (4 if config.head == "upernet" or recipe == "linear-ms" else 1)
        learning = [name for name, parameter in built.named_parameters() if parameter.requires_grad]
        assert any(name.startswith("backbone.") for name in learning) != config.frozen

    def test_paper(self):
        built, _ = full_size("vit_base_patch16", RECIPES["paper"])
        net = built.backbone.backbone.net
        assert built.backbone.out_layers == (3, 5, 7, 11)
        assert net.pos_embed.shape == (1, 1 + 32 * 32, 768)
        for block in net.blocks:
            assert block.attn.relative_position_bias_table.shape == (63 * 63 + 3, 12)
            assert block.ls1.gamma.shape == block.ls2.gamma.shape == (768,)
        assert built.decode_head.conv_seg.weight.shape == (150, 768, 1, 1)
        assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in built.modules())

    def test_tables_begin_at_zero_and_layer_scale_at_one(self):
        from tasks.edges.segmentation_model import build_backbone
        from tests.segmentation.conftest import tiny_source

        net = cast(Any, build_backbone(tiny_source(), RECIPES["paper"], seed=0)).net
        assert all(not block.attn.relative_position_bias_table.any() for block in net.blocks)
        assert all(bool((block.ls1.gamma == 1).all() and (block.ls2.gamma == 1).all()) for block in net.blocks)

    def test_linear_head_sees_the_normed_last_blocks(self):
        built, _ = full_size("vit_base_patch16", RECIPES["linear-ms"])
        assert built.backbone.out_layers == (8, 9, 10, 11) and built.backbone.final_norm
        assert built.decode_head.bn.weight.shape == (4 * 768,) and built.decode_head.dropout is None
        assert not built.with_neck and not built.with_auxiliary_head
        assert full_size("vit_base_patch16", RECIPES["linear"])[0].backbone.out_layers == (11,)

    def test_patch_14_crops_are_whole_patches(self):
        built, _ = full_size("vit_huge_patch14", RECIPES["paper"])
        assert built.test_cfg["crop_size"] == (518, 518)
        assert built.backbone.out_layers == (10, 15, 20, 31)

    def test_a_stride_with_gaps_is_refused(self):
        with pytest.raises(ConfigError, match=r"test_stride=600 leaves gaps between windows of 512 pixels"):
            full_size("vit_base_patch16", Config(test_stride=600))

    def test_crops_smaller_than_a_cell_of_the_pyramid_are_refused(self):
        from tasks.edges.segmentation_config import segmentor_config
        from tests.segmentation.conftest import tiny_backbone

        backbone = tiny_backbone(patch=32)
        with pytest.raises(ConfigError, match=r"image_size=32 is less than a cell of the coarsest map; set at least 64"):
            segmentor_config(backbone, backbone.spec, Config(image_size=32), 3)

    def test_positions_of_another_kind_are_refused(self):
        from tasks.edges.segmentation_model import build_backbone
        from tests.segmentation.conftest import tiny_source

        def build(options, seed):
            raise ValueError("relative positions of two kinds (decomposed and table); a network has one")

        source = tiny_source()
        source.build, source.name = build, "vitdet"
        with pytest.raises(ConfigError, match=r"vitdet: relative positions of two kinds.*relative_table=false"):
            build_backbone(source, Config(), seed=0)
