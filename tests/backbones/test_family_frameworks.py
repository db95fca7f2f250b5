"""Files of Detectron2 and mmsegmentation: the tokens after every block are those of their own backbones."""

from typing import Any, cast

import pytest
import torch
from torch import nn

from backbones.contract import DenseOptions
from backbones.source import open_source
from mae_bench.core.errors import InputError
from tests.backbones import family_samples as samples
from tests.backbones.family_samples import DEPTH, HEADS, PATCH, RECTANGLE, SIDE, WIDTH, Sample

pytestmark = pytest.mark.edge

NATIVE = (SIDE, SIDE)


def pictures(size):
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(3))


def opened(tmp_path, sample: Sample):
    torch.save(sample.content, tmp_path / "weights.pth")
    return open_source(str(tmp_path / "weights.pth"))


def compare(backbone: Any, net: Any, size: tuple[int, int], blocks: str) -> None:
    expected = samples.tokens_of(net, pictures(size), blocks)
    with torch.no_grad():
        found = backbone.eval()(pictures(size), tuple(range(len(expected))), norm=False)
    for block, (features, tokens) in enumerate(zip(found, expected, strict=True)):
        assert tokens.std() > 0.1 and features.tokens.shape == tokens.shape
        assert (features.tokens - tokens).abs().max() <= 1e-5, (block, (features.tokens - tokens).abs().max())


@pytest.fixture
def vitdet():
    """Windows of 3 in blocks 0 and 2, all of 6 x 6 patches in block 1."""
    vit = pytest.importorskip("detectron2.modeling.backbone.vit").ViT

    def make(**options):
        torch.manual_seed(0)
        facts = {
            "img_size": 48,
            "patch_size": PATCH,
            "embed_dim": WIDTH,
            "depth": 3,
            "num_heads": 4,
            "mlp_ratio": 2,
            "norm_layer": lambda width: nn.LayerNorm(width, eps=1e-6),
            "use_rel_pos": True,
            "window_size": 3,
            "window_block_indexes": (0, 2),
            "pretrain_img_size": SIDE,
        }
        return samples.shake(vit(**{**facts, **options}))

    return make


# As Detectron2 has it: positions stay as stored and are resized in every forward, without antialiasing.
DETECTRON2 = DenseOptions(stored_positions=True, antialias=False)


@pytest.mark.parametrize("size", [(48, 48), (40, 72), NATIVE])
def test_detectron2s_own_backbone_gives_the_same_tokens(tmp_path, vitdet, size):
    net = vitdet()
    around = {"backbone.simfp_4.0.weight": torch.ones(2), "proposal_generator.rpn_head.conv.weight": torch.ones(2)}
    source = opened(
        tmp_path, Sample("vitdet", net.state_dict(), lambda _size: net, "vitdet", "backbone.net.", around, key="model")
    )
    arch = cast(Any, source.arch)
    assert (arch.window, arch.global_layers, arch.relative_grid, arch.num_heads) == (3, (1,), (6, 6), 4)
    assert source.spec.method == "vitdet" and not source.ledger.missing
    assert source.ledger.dropped["pos_embed, first row"].startswith("position of the class token")
    assert "windows of 3 patches but in blocks 1" in " ".join(source.ledger.notes)
    compare(source.build(DETECTRON2), net, size, "blocks")


def test_positions_without_a_row_for_the_class_token_are_taken_whole(tmp_path, vitdet):
    net = vitdet(pretrain_use_cls_token=False)
    source = opened(tmp_path, Sample("vitdet", net.state_dict(), lambda _size: net, prefix="backbone.net."))
    assert "pos_embed, first row" not in source.ledger.dropped
    compare(source.build(DETECTRON2), net, (48, 48), "blocks")


@pytest.mark.parametrize("size", [(48, 48), (40, 72)])
def test_a_plain_network_of_detectron2s_is_read_with_what_it_does_not_say(tmp_path, vitdet, size):
    """Without relative positions, such as `--to detectron2` writes; the positions have a row for a class token."""
    net = vitdet(use_rel_pos=False, window_size=0, window_block_indexes=())
    source = opened(tmp_path, Sample("vitdet", net.state_dict(), lambda _size: net, prefix="backbone.net.", key="model"))
    assert source.spec.num_prefix_tokens == 0 and source.spec.image_size == NATIVE
    notes = " ".join(source.ledger.notes)
    assert all(words in notes for words in ("heads are assumed", "global attention is assumed", "mean and std are assumed"))
    assert source.ledger.dropped["pos_embed, first row"].startswith("position of the class token")
    told = open_source(f"{tmp_path / 'weights.pth'}#num_heads=4&image_size={SIDE}x{SIDE}")
    compare(told.build(DETECTRON2), net, size, "blocks")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"img_size": 24}, "windows cannot be told from global attention"),
        ({"residual_block_indexes": (1,)}, "convolutions after blocks"),
    ],
)
def test_variants_that_cannot_be_told_are_refused(tmp_path, vitdet, options, match):
    with pytest.raises(InputError, match=match):
        opened(tmp_path, Sample("vitdet", vitdet(**options).state_dict(), nn.Identity, prefix="backbone.net."))


PLAIN: dict[str, Any] = {
    "img_size": (SIDE, SIDE),
    "patch_size": PATCH,
    "embed_dims": WIDTH,
    "num_layers": DEPTH,
    "num_heads": HEADS,
    "mlp_ratio": 2,
    "norm_cfg": {"type": "LN", "eps": 1e-6},
}
MMSEG = {
    "MAE": {"init_values": 1.0},
    "BEiT": {"qv_bias": True, "init_values": 0.1, "final_norm": True},
    "VisionTransformer": {"qkv_bias": True, "final_norm": False, "patch_bias": True},
}


@pytest.fixture
def mmseg():
    backbones = pytest.importorskip("mmseg.models.backbones")

    def make(kind, **options):
        torch.manual_seed(0)
        return samples.shake(getattr(backbones, kind)(**{**PLAIN, **MMSEG[kind], **options}))

    return make


@pytest.mark.parametrize("kind", MMSEG)
def test_mmsegmentations_own_backbones_give_the_same_tokens(tmp_path, mmseg, kind):
    net = mmseg(kind)
    around = {"decode_head.conv_seg.weight": torch.ones(2), "auxiliary_head.conv_seg.weight": torch.ones(2)}
    source = opened(tmp_path, Sample("openmmlab", net.state_dict(), lambda _size: net, "", "backbone.", around, key="state_dict"))
    assert all(name in source.ledger.dropped for name in around)
    # mmseg's last block is followed by its norm within the loop, so hooks on blocks see it without.
    compare(source.build(), net, NATIVE, "layers")


def test_mmsegmentations_vit_gives_the_same_tokens_at_another_size(tmp_path, mmseg):
    net = mmseg("VisionTransformer")
    source = opened(tmp_path, Sample("openmmlab", net.state_dict(), lambda _size: net, "", "backbone."))
    compare(source.build(DenseOptions(antialias=False)), net, RECTANGLE, "layers")


@pytest.mark.parametrize("kind", ["MAE", "BEiT"])
def test_a_rectangle_is_told_by_the_user(tmp_path, mmseg, kind):
    net = mmseg(kind, img_size=RECTANGLE)
    path = tmp_path / "weights.pth"
    torch.save({f"backbone.{name}": tensor for name, tensor in net.state_dict().items()}, path)
    with pytest.raises(InputError, match="give its image_size"):
        open_source(str(path))
    source = open_source(f"{path}#image_size={RECTANGLE[0]}x{RECTANGLE[1]}")
    compare(source.build(), net, RECTANGLE, "layers")


def test_a_projection_under_both_names_is_taken_once(tmp_path, mmseg):
    state = mmseg("BEiT").state_dict()
    twice = {name.replace("projection", "proj"): tensor for name, tensor in state.items() if "projection" in name}
    source = opened(tmp_path, Sample("openmmlab", {**state, **twice}, nn.Identity, prefix="backbone."))
    assert source.ledger.dropped["patch_embed.proj.weight"] == "the patch projection once more, under its old name"


def test_pretraining_files_of_mmpretrain_are_maes(tmp_path, mmseg):
    own = mmseg("VisionTransformer").state_dict()
    state = samples.renamed(own, ("attn.attn.in_proj_", "attn.qkv."), ("attn.attn.out_proj", "attn.proj"))
    around = {"neck.mask_token": torch.ones(1, 1, 4), "neck.decoder_blocks.0.ln1.weight": torch.ones(4)}
    net = mmseg("VisionTransformer")
    source = opened(tmp_path, Sample("openmmlab", state, lambda _size: net, "", "backbone.", around, key="state_dict"))
    assert source.spec.method == "mae" and all(name in source.ledger.dropped for name in around)
    compare(source.build(), net, NATIVE, "layers")
