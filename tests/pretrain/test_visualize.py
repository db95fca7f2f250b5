"""Pictures of trained autoencoders: of a run's folder, of a released file with its decoder."""

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.arch import VitArch
from backbones.vit import initial_weights
from mae_bench.core.errors import ConfigError, InputError
from mae_bench.core.run import Run
from mae_bench.pretrain import pretrain
from mae_bench.visualize import _of_file, draw_reconstructions
from tasks.handle import open_data


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("one", "two"):
            (root / split / name).mkdir(parents=True)
            for index in range(2):
                Image.fromarray(rng.integers(0, 255, (40, 48, 3)).astype(np.uint8)).save(root / split / name / f"{index}.png")
    return root


@pytest.mark.parametrize("changes", [{}, {"epochs": "3", "batch_size": "2", "average_decay": "0.9"}], ids=["last", "average"])
def test_a_run_is_drawn_as_it_drew_itself(images, tmp_path, changes):
    small = {"epochs": "1", "warmup_epochs": "0", "batch_size": "4", "image_size": "32", **changes}
    pretrain("mae", "vit_demo_patch8", open_data(f"folder={images}"), small, Run(tmp_path / "run"), recipe="demo")
    drawn = draw_reconstructions(str(tmp_path / "run"), f"folder={images}", tmp_path / "again.png", count=8)
    assert drawn.read_bytes() == (tmp_path / "run" / "reconstructions.png").read_bytes()
    with pytest.raises(ConfigError, match="--pixels is for files"):
        draw_reconstructions(str(tmp_path / "run"), f"folder={images}", tmp_path / "x.png", count=1, pixels=True)


@pytest.fixture
def released(tmp_path):
    """A file with the release's layout, made by transformers' independent code."""
    from transformers.models.vit_mae import ViTMAEConfig, ViTMAEForPreTraining

    torch.manual_seed(0)
    config = ViTMAEConfig(
        hidden_size=192,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=768,
        image_size=32,
        patch_size=8,
        decoder_hidden_size=64,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=16,
        decoder_intermediate_size=256,
        layer_norm_eps=1e-6,
    )
    peer = ViTMAEForPreTraining(config).eval()
    theirs = peer.state_dict()
    arch = VitArch(embed_dim=192, depth=2, num_heads=3, patch_size=8, mlp_dim=768, image_size=(32, 32))
    state = {name: theirs[renamed(name)] for name in initial_weights(arch, 0) if "qkv" not in name}
    for block in range(2):
        for kind in ("weight", "bias"):
            for ours, side, layer in (("blocks", "vit.", "layers"), ("decoder_blocks", "decoder.", "decoder_layers")):
                parts = [theirs[f"{side}{layer}.{block}.attention.{part}_proj.{kind}"] for part in "qkv"]
                state[f"{ours}.{block}.attn.qkv.{kind}"] = torch.cat(parts)
                for inner, other in INNER.items():
                    state[f"{ours}.{block}.{inner}.{kind}"] = theirs[f"{side}{layer}.{block}.{other}.{kind}"]
    for ours, other in (("decoder_embed", "decoder_embed"), ("decoder_norm", "decoder_norm"), ("decoder_pred", "decoder_pred")):
        state |= {f"{ours}.{kind}": theirs[f"decoder.{other}.{kind}"] for kind in ("weight", "bias")}
    state |= {"mask_token": theirs["decoder.mask_token"], "decoder_pos_embed": theirs["decoder.decoder_pos_embed"]}
    torch.save({"model": state}, tmp_path / "mae_full.pth")
    return peer, tmp_path / "mae_full.pth"


INNER = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def renamed(name):
    top = {"cls_token": "cls_token", "pos_embed": "position_embeddings"}
    if name in top:
        return f"vit.embeddings.{top[name]}"
    if name.startswith("patch_embed.proj."):
        return f"vit.embeddings.patch_embeddings.projection.{name.rpartition('.')[2]}"
    if name.startswith("norm."):
        return f"vit.layernorm.{name.rpartition('.')[2]}"
    _, block, *inner, kind = name.split(".")
    return f"vit.layers.{block}.{INNER['.'.join(inner)]}.{kind}"


def test_a_released_file_reconstructs_as_transformers_does(released, images, tmp_path):
    peer, path = released
    autoencoder = _of_file(str(path), pixels=False)
    pixels, noise = torch.randn(3, 3, 32, 32), torch.rand(3, 16)
    with torch.no_grad():
        ours, theirs = autoencoder.predict(pixels, noise), peer(pixels, noise=noise).logits
    expected = theirs.gather(1, ours.ids.unsqueeze(-1).expand(-1, -1, theirs.shape[-1]))
    torch.testing.assert_close(ours.values, expected, rtol=1e-4, atol=1e-5)
    drawn = draw_reconstructions(str(path), f"folder={images}", tmp_path / "drawn.png", count=2)
    with Image.open(drawn) as picture:
        assert picture.width > 100


def test_without_a_decoder_there_is_nothing_to_draw(images, tmp_path):
    arch = VitArch(embed_dim=192, depth=1, num_heads=3, patch_size=8, mlp_dim=768, image_size=(32, 32))
    torch.save(initial_weights(arch, 0), tmp_path / "encoder.pth")
    with pytest.raises(InputError, match="no decoder"):
        draw_reconstructions(str(tmp_path / "encoder.pth"), f"folder={images}", tmp_path / "x.png", count=1)
    with pytest.raises(InputError, match="not what `pretrain mae` leaves"):
        draw_reconstructions(str(tmp_path), f"folder={images}", tmp_path / "x.png", count=1)
