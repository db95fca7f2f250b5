"""The masked autoencoder equals transformers' ViTMAE on the same weights and masks."""

import pytest
import torch

from mae_bench.objectives._autoencoder import MaskedAutoencoder
from tests.pretrain.small_mae import autoencoder, inputs


def peer_names(ours: str) -> list[str]:
    """Parameters of ViTMAEForPreTraining that one of ours is made of (three where q, k and v are one matrix here)."""
    side = "decoder." if ours.startswith("decoder.") else "vit."
    kind = ours.rpartition(".")[2]
    parts = ours.split(".")
    if "blocks" in parts:
        inner = ".".join(parts[parts.index("blocks") + 2 : -1])
        renamed = {"norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.o_proj"}
        layer = f"{side}{'decoder_' if side == 'decoder.' else ''}layers.{parts[parts.index('blocks') + 1]}"
        if inner == "attn.qkv":
            return [f"{layer}.attention.{part}_proj.{kind}" for part in "qkv"]
        return [f"{layer}.{renamed.get(inner, inner)}.{kind}"]
    return [
        {
            "backbone.net.cls_token": "vit.embeddings.cls_token",
            "backbone.net.pos_embed": "vit.embeddings.position_embeddings",
            "backbone.net.patch_embed.proj": f"vit.embeddings.patch_embeddings.projection.{kind}",
            "backbone.net.norm": f"vit.layernorm.{kind}",
            "decoder.mask_token": "decoder.mask_token",
            "decoder.positions": "decoder.decoder_pos_embed",
            "decoder.embed": f"decoder.decoder_embed.{kind}",
            "decoder.norm": f"decoder.decoder_norm.{kind}",
            "decoder.head": f"decoder.decoder_pred.{kind}",
        }[ours if kind in ("cls_token", "pos_embed", "mask_token", "positions") else ours.rpartition(".")[0]]
    ]


def peer_of(model: MaskedAutoencoder):
    from transformers.models.vit_mae import ViTMAEConfig, ViTMAEForPreTraining

    config = ViTMAEConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        image_size=32,
        patch_size=8,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=model.config.decoder_depth,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=64,
        layer_norm_eps=1e-6,
        norm_pix_loss=model.config.norm_pix_loss,
    )
    peer = ViTMAEForPreTraining(config)
    state = {}
    for ours, tensor in model.state_dict().items():
        names = peer_names(ours)
        state |= dict(zip(names, tensor.chunk(len(names)), strict=True))
    peer.load_state_dict(state)
    return peer


# Of one block, of a first and a last one, and with one between them.
@pytest.fixture(scope="module", params=[(True, 2), (False, 1), (False, 3)], ids=["norm_pix", "pixels_depth1", "pixels_depth3"])
def pair(request: pytest.FixtureRequest):
    norm_pix, depth = request.param
    model = autoencoder(norm_pix_loss=norm_pix, decoder_depth=depth)
    with torch.no_grad():  # away from the start, where biases are 0 and norms do nothing
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    peer = peer_of(model)
    images, noise = inputs()
    loss = model.loss(images, noise)
    loss.backward()
    theirs = peer(images, noise=noise)
    theirs.loss.backward()
    return model, peer, loss, theirs


def test_loss_equals_transformers(pair):
    _, _, loss, theirs = pair
    assert loss.item() == pytest.approx(theirs.loss.item(), rel=1e-5)


def test_every_gradient_equals_transformers(pair):
    model, peer, _, _ = pair
    gradients = {name: parameter.grad for name, parameter in peer.named_parameters()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            expected = torch.cat([gradients[part] for part in peer_names(name)])
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6, msg=name)


def test_mask_and_predictions_equal_transformers(pair):
    model, _, _, theirs = pair
    images, noise = inputs()
    with torch.no_grad():
        found = model.predict(images, noise)
    assert torch.equal(found.mask, theirs.mask)
    where = found.ids.unsqueeze(-1).expand_as(found.values)
    torch.testing.assert_close(found.values, theirs.logits.gather(1, where), rtol=1e-4, atol=1e-5)


def test_positions_equal_transformers():
    from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

    rows, columns = build_2d_sinusoidal_position_embedding(4, 4, 32, cls_token=True).chunk(2, dim=1)
    found = autoencoder().backbone.net.pos_embed
    assert found is not None
    assert torch.equal(found[0], torch.cat([columns, rows], dim=1))
