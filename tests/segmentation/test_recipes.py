"""The recipes: each built at full size, and held against the published configs that mmsegmentation comes with."""

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

VARIANTS = {"paper-large": "vit_large_patch16", "beit-large-640": "vit_large_patch16", "demo": "vit_demo_patch8"}
PUBLISHED = {
    "paper": "mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py",
    "supervised": "vit/vit_deit-b16_mln_upernet_8xb2-160k_ade20k-512x512.py",
    "beit-640": "beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py",
    "beit-large-640": "beit/beit-large_upernet_8xb1-amp-160k_ade20k-640x640.py",
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pool_scales": [0]}, r"pool_scales=\[0\]: value 1 is 0; .*greater than 0"),
        ({"pool_scales": []}, "pool_scales"),
        ({"out_layers": [1, 2]}, "UPerNet takes the outputs of four blocks"),
        ({"resize_ratio": [2, 1]}, "smaller number first"),
        ({"resize_ratio": [0, 1]}, r"resize_ratio\.0=0"),
        ({"test_scales": []}, "test_scales"),
        ({"test_scales": [0]}, r"test_scales\.0=0"),
        ({"test_mode": "whole", "test_stride": 3}, "test_stride is of sliding windows"),
        ({"steps": 0}, "no weights to measure"),
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

    def full_size(self, variant, config):
        """The network on the meta device, as several accelerators train it, and its config."""
        from backbones.zoo import vit
        from tasks.edges import segmentation_config, segmentation_mmseg, segmentation_model

        arch = vit.VARIANTS[variant]
        spec = vit.spec_of(arch)
        source = cast(Any, SimpleNamespace(spec=spec))
        backbone = vit.empty(arch, spec, segmentation_model.options(source, config))
        parts = segmentation_config.segmentor_config(backbone, backbone.spec, config, 150, distributed=True)
        with torch.device("meta"):
            return segmentation_mmseg.build_model(parts), parts

    @pytest.mark.parametrize("recipe", list(RECIPES))
    def test_every_recipe_is_built_at_full_size(self, recipe):
        config = RECIPES[recipe]
        built, _ = self.full_size(VARIANTS.get(recipe, "vit_base_patch16"), config)
        assert all(parameter.is_meta for parameter in built.parameters())
        side = config.image_size
        images = torch.zeros(2, 3, side, side, device="meta")
        maps = built.backbone(images)
        assert len(maps) == (4 if config.head == "upernet" or recipe == "linear-ms" else 1)
        learning = [name for name, parameter in built.named_parameters() if parameter.requires_grad]
        assert any(name.startswith("backbone.") for name in learning) != config.frozen

    def test_paper(self):
        built, _ = self.full_size("vit_base_patch16", RECIPES["paper"])
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
        built, _ = self.full_size("vit_base_patch16", RECIPES["linear-ms"])
        assert built.backbone.out_layers == (8, 9, 10, 11) and built.backbone.final_norm
        assert built.decode_head.bn.weight.shape == (4 * 768,) and built.decode_head.dropout is None
        assert not built.with_neck and not built.with_auxiliary_head
        assert self.full_size("vit_base_patch16", RECIPES["linear"])[0].backbone.out_layers == (11,)

    def test_patch_14_crops_are_whole_patches(self):
        built, _ = self.full_size("vit_huge_patch14", RECIPES["paper"])
        assert built.test_cfg["crop_size"] == (518, 518)
        assert built.backbone.out_layers == (10, 15, 20, 31)

    def published(self, recipe):
        """mmseg's own config, as installed with it."""
        import mmseg
        from mmengine.config import Config as File

        path = Path(mmseg.__file__).parent / ".mim/configs" / PUBLISHED[recipe]
        return File.fromfile(path) if path.is_file() else pytest.skip("this mmseg comes without its configs")

    @pytest.mark.parametrize("recipe", list(PUBLISHED))
    def test_network_is_the_published(self, recipe):
        theirs, config = self.published(recipe).model, RECIPES[recipe]
        built, ours = self.full_size(VARIANTS.get(recipe, "vit_base_patch16"), config)
        for part in ("neck", "decode_head", "auxiliary_head"):
            # The pyramid's norm is that of its class by default, and the heads' outputs are as many as the classes.
            implied: dict[str, Any] = {"out_channels": 150} if part != "neck" else {}
            if part != "neck" or theirs.neck.type == "Feature2Pyramid":
                implied["norm_cfg"] = {"type": "SyncBN", "requires_grad": True}
            assert ours[part] == {**implied, **theirs[part].to_dict()}, part
        assert ours["test_cfg"] == theirs.test_cfg
        preprocessor = {**theirs.data_preprocessor.to_dict(), "type": "mmseg.SegDataPreProcessor"}
        for name, value in preprocessor.items():
            assert ours["data_preprocessor"][name] == (pytest.approx(value) if name in ("mean", "std") else value), name
        assert list(built.backbone.out_layers) == list(theirs.backbone.out_indices)
        assert config.drop_path == theirs.backbone.drop_path_rate
        assert config.layer_scale == theirs.backbone.get("init_values")
        assert config.relative_table == (theirs.backbone.type in ("MAE", "BEiT"))

    @pytest.mark.parametrize("recipe", list(PUBLISHED))
    def test_data_and_schedule_are_the_published(self, recipe):
        from tasks.edges import segmentation_data as data
        from tasks.edges import segmentation_run as running

        theirs, config = self.published(recipe), RECIPES[recipe]
        side = config.image_size
        for pipeline, expected in (
            (data.train_pipeline(config, side), theirs.train_pipeline),
            (data.test_pipeline(config, side), theirs.test_pipeline),
        ):
            changed = [step for step in pipeline if not step["type"].startswith("MaeBench")]
            assert [{**step, "ignore_index": 255} for step in changed] == [
                {**step.to_dict(), "ignore_index": 255} for step in expected if not step.type.startswith("Load")
            ]
        optimizer = theirs.optim_wrapper.optimizer
        assert (config.lr, config.weight_decay) == (optimizer.lr, optimizer.weight_decay)
        assert tuple(optimizer.betas) == running.OptimConfig(lr=1).betas
        assert config.layer_decay == theirs.optim_wrapper.paramwise_cfg.get("layer_decay_rate", 1.0)
        warmup, decay = theirs.param_scheduler
        batches = theirs.optim_wrapper.get("accumulative_counts", 1)
        assert (config.warmup_steps * batches, running.WARMUP_START) == (warmup.end, warmup.start_factor)
        assert (decay.end, decay.power, decay.eta_min) == (config.steps * batches, 1.0, 0.0)
        assert config.batch_size == 8 * theirs.train_dataloader.batch_size * batches, "8 processes"

    def test_supervised_exempts_what_mmsegs_own_keys_come_to(self):
        """mmseg's key `norm` fits none of the norms of its backbone, so they decay."""
        from mmengine.optim import build_optim_wrapper
        from mmseg.registry import MODELS

        from tasks.edges.segmentation_run import positions_only

        theirs = self.published("supervised")
        small = {"img_size": (32, 32), "embed_dims": 16, "num_layers": 4, "num_heads": 2, "out_indices": (0, 1, 2, 3)}
        backbone = MODELS.build({**theirs.model.backbone.to_dict(), **small})
        module = torch.nn.ModuleDict({"backbone": backbone})
        wrapper = build_optim_wrapper(module, theirs.optim_wrapper.to_dict())
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        exempt = {
            names[id(one)] for group in wrapper.optimizer.param_groups if not group["weight_decay"] for one in group["params"]
        }
        assert exempt == {"backbone.cls_token", "backbone.pos_embed"}
        assert exempt == {name for name, parameter in module.named_parameters() if positions_only(name, parameter)}

    @pytest.mark.parametrize(("warmup", "steps"), [(1500, 160_000), (5, 20), (0, 20)])
    def test_rate_at_every_step_is_mmengines(self, warmup, steps):
        from mmengine.optim.scheduler import LinearLR, PolyLR

        from tasks.edges.segmentation_run import WARMUP_START, MmengineSchedule

        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        schedulers: list[Any] = [PolyLR(optimizer, eta_min=0.0, power=1.0, begin=warmup, end=steps, by_epoch=False)]
        if warmup:
            schedulers.insert(0, LinearLR(optimizer, start_factor=1e-6, begin=0, end=warmup, by_epoch=False))
        ours = MmengineSchedule(kind="poly", warmup_steps=warmup, warmup_start=WARMUP_START)
        for step in range(min(steps, 2000)):
            expected = optimizer.param_groups[0]["lr"]
            assert ours.factor(step, steps) == pytest.approx(expected, abs=1e-9), step
            optimizer.step()
            for scheduler in schedulers:
                scheduler.step()
        assert ours.factor(steps - 1, steps) == 0.0

    def test_a_stride_with_gaps_is_refused(self):
        with pytest.raises(ConfigError, match=r"test_stride=600 leaves gaps between windows of 512 pixels"):
            self.full_size("vit_base_patch16", Config(test_stride=600))

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
