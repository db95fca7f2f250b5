"""The masked autoencoder: equal to transformers' ViTMAE, and the rules of the paper one by one."""

import pytest
import torch
from torch import nn

from backbones.arch import VitArch
from backbones.zoo.vit import assemble, initial_weights, spec_of
from mae_bench.core.errors import ConfigError
from mae_bench.objectives import mae
from mae_bench.objectives._autoencoder import MaskedAutoencoder, patchify, unpatchify
from mae_bench.objectives._masks import masking
from mae_bench.objectives._targets import Components, normalise_patches

ARCH = VitArch(embed_dim=32, depth=2, num_heads=2, patch_size=8, mlp_dim=128, image_size=(32, 32))
PATCHES = 16
KEPT = 4


def autoencoder(**changes) -> MaskedAutoencoder:
    torch.manual_seed(0)
    backbone = assemble(ARCH, spec_of(ARCH), initial_weights(ARCH, 0))
    config = mae.RECIPES["paper"].model_copy(update={"decoder_dim": 16, "decoder_depth": 2, "decoder_heads": 2, **changes})
    return MaskedAutoencoder(backbone, config)


def inputs(batch: int = 5):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, 32, 32, generator=generator), torch.rand(batch, PATCHES, generator=generator)


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
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    config = ViTMAEConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        image_size=32,
        patch_size=8,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=2,
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


@pytest.fixture(scope="module", params=[True, False], ids=["norm_pix", "pixels"])
def pair(request: pytest.FixtureRequest):
    model = autoencoder(norm_pix_loss=request.param)
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


def test_mask_is_one_where_removed_and_smallest_noise_is_kept():
    model = autoencoder()
    images, noise = inputs()
    mask = model.predict(images, noise).mask
    assert mask.sum(dim=1).tolist() == [PATCHES - KEPT] * 5
    for row, draw in zip(mask, noise, strict=True):
        assert draw[row == 0].max() < draw[row == 1].min()


def test_encoder_sees_visible_tokens_only():
    model, lengths = autoencoder(), {}
    for name, block in (("encoder", model.backbone.net.blocks[0]), ("decoder", model.decoder.blocks[0])):
        block.register_forward_hook(lambda _, args, out, name=name: lengths.__setitem__(name, args[0].shape[1]))
    model.loss(*inputs())
    assert lengths == {"encoder": 1 + KEPT, "decoder": 1 + PATCHES}


def test_pixels_of_removed_patches_never_reach_the_prediction():
    model = autoencoder()
    images, noise = inputs()
    before = model.predict(images, noise)
    removed = before.mask.unflatten(1, (4, 4)).repeat_interleave(8, 1).repeat_interleave(8, 2).unsqueeze(1)
    after = model.predict(images + removed * torch.randn_like(images), noise)
    assert torch.equal(before.values, after.values)


@pytest.mark.parametrize("norm_pix", [True, False])
def test_loss_ignores_the_targets_of_visible_patches(norm_pix):
    """With a decoder that says nothing, the loss depends on the removed patches alone."""
    model = autoencoder(norm_pix_loss=norm_pix)
    nn.init.zeros_(model.decoder.head.weight)
    images, noise = inputs()
    visible = 1 - model.predict(images, noise).mask
    visible = visible.unflatten(1, (4, 4)).repeat_interleave(8, 1).repeat_interleave(8, 2).unsqueeze(1)
    changed = images + visible * torch.randn_like(images)
    assert model.loss(images, noise).item() == model.loss(changed, noise).item()
    assert model.loss(images, noise).item() != model.loss(changed + torch.randn_like(images), noise).item()


def test_loss_of_a_silent_decoder_is_the_mean_square_of_normalised_pixels():
    model = autoencoder()
    nn.init.zeros_(model.decoder.head.weight)
    loss = model.loss(*inputs()).item()
    count = 8 * 8 * 3
    assert loss == pytest.approx((count - 1) / count, rel=1e-4)  # the variance is unbiased


def test_normalised_target_by_hand():
    values = torch.tensor([[[1.0, 2.0, 3.0, 6.0]]])
    found, mean, deviation = normalise_patches(values)
    assert mean.item() == 3.0
    assert deviation.item() == pytest.approx((14 / 3 + 1e-6) ** 0.5)  # 4 + 1 + 0 + 9 over 3
    assert found.flatten().tolist() == pytest.approx([value / (14 / 3) ** 0.5 for value in (-2, -1, 0, 3)], rel=1e-5)


def test_a_flat_patch_has_a_finite_target():
    found, _, _ = normalise_patches(torch.full((1, 1, 192), 0.7))
    assert found.abs().max() < 1e-3


def test_patches_go_row_by_row_and_back():
    images = torch.arange(2 * 3 * 16 * 24.0).view(2, 3, 16, 24)
    patches = patchify(images, 8)
    assert patches.shape == (2, 6, 192)
    assert torch.equal(patches[1, 4].view(8, 8, 3), images[1, :, 8:16, 8:16].permute(1, 2, 0))
    assert torch.equal(unpatchify(patches, 8, (2, 3)), images)


def test_initialisation_is_the_papers():
    model = autoencoder()
    net = model.backbone.net
    for part in model.modules():
        if isinstance(part, nn.Linear):
            assert part.weight.abs().max() <= (6 / sum(part.weight.shape)) ** 0.5 and not part.bias.any()
    bound = (6 / (32 + 192)) ** 0.5
    assert 0.9 * bound < net.patch_embed.proj.weight.abs().max() <= bound
    assert net.cls_token is not None and net.pos_embed is not None
    assert model.decoder.mask_token is not None
    assert 0.01 < net.cls_token.std() < 0.03 and 0.01 < model.decoder.mask_token.std() < 0.03
    assert not net.pos_embed.requires_grad and not net.pos_embed[:, 0].any()
    assert "decoder.positions" not in dict(model.named_parameters())


def test_a_sample_has_its_own_mask():
    """Keyed as the sample is, so that processes and micro-batches change nothing."""
    sample, image = mae.sample(mae.RECIPES["paper"], spec_of(ARCH)), torch.zeros(3, 40, 40, dtype=torch.uint8)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(sample(image, 0)[1])
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    batch = mae.collate([(image[:, :32, :32], noise) for noise in found])
    (loss,) = autoencoder()(batch).values()
    assert loss.ndim == 0 and loss.isfinite()


def test_a_ratio_that_keeps_nothing_is_refused():
    with pytest.raises(ConfigError, match="mask_ratio"):
        autoencoder(mask_ratio=0.99)


@pytest.mark.parametrize("grid", [(14, 14), (16, 16), (4, 4), (3, 9)])
@pytest.mark.parametrize("removed", [0.5, 0.75])
def test_block_masks_remove_exactly_so_many_patches(grid, removed):
    torch.manual_seed(0)
    count = int(grid[0] * grid[1] * removed)
    draw = masking("block", grid, count)
    noise = torch.stack([draw() for _ in range(6)])
    masks = torch.zeros_like(noise, dtype=torch.bool).scatter(1, noise.argsort(1)[:, -count:], value=True)
    assert noise.shape == (6, grid[0] * grid[1]) and not torch.equal(masks[0], masks[1])
    if grid == (14, 14):
        # Neighbours share their fate far more often than under random masks (where it would be 1 - 2 p (1 - p)).
        image = masks.unflatten(1, grid)
        alike = (image[:, :, 1:] == image[:, :, :-1]).float().mean().item()
        assert alike > 1 - 2 * removed * (1 - removed) + 0.15


def test_grid_masks_keep_one_patch_of_every_two_by_two():
    noise = masking("grid", (4, 6), 18)()
    kept = {tuple(divmod(int(number), 6)) for number in noise.argsort()[:6]}
    assert kept == {(row, column) for row in (0, 2) for column in (0, 2, 4)}
    with pytest.raises(ConfigError, match=r"mask_ratio=0\.75"):
        masking("grid", (4, 6), 12)
    with pytest.raises(ConfigError, match="even grid"):
        masking("grid", (3, 4), 9)


@pytest.mark.parametrize("mask", ["block", "grid"])
def test_other_masks_train_too(mask):
    config = mae.RECIPES["paper"].model_copy(update={"mask": mask})
    sample = mae.sample(config, spec_of(ARCH))
    batch = mae.collate([sample(torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8), 0) for _ in range(3)])
    assert batch["noise"].shape == (3, PATCHES)
    loss = autoencoder(mask=mask)(batch)["reconstruction"]
    loss.backward()
    assert loss.isfinite()


def test_mask_tokens_in_the_encoder_are_seen_by_the_other_tokens():
    """With them the encoder sees all places and the decoder has no mask token of its own."""
    model, (pixels, noise) = autoencoder(encoder_mask_tokens=True), inputs()
    assert model.mask_token is not None and model.decoder.mask_token is None
    before = model.predict(pixels, noise).values
    with torch.no_grad():
        model.mask_token.add_(1)
    assert not torch.allclose(before, model.predict(pixels, noise).values)
    # What is removed is still not seen.
    hidden = model.predict(pixels, noise).mask.unflatten(1, (4, 4)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    changed = pixels + hidden.unsqueeze(1)
    assert torch.allclose(model.predict(pixels, noise).values, model.predict(changed, noise).values, atol=1e-5)


def test_without_masking_the_two_encoders_agree():
    backbone = autoencoder().backbone
    images, order = inputs()[0], torch.arange(PATCHES).expand(5, -1)
    whole = backbone.encode_masked(images, order, PATCHES, torch.zeros(1, 1, 32))
    assert torch.allclose(whole, backbone.encode_kept(images, order), atol=1e-6)


def test_loss_on_all_patches_is_the_mean_over_all():
    model, (pixels, noise) = autoencoder(loss_on="all"), inputs()
    predicted = model.predict(pixels, noise)
    assert predicted.values.shape[1] == PATCHES
    patches = patchify(pixels, 8).gather(1, predicted.ids.unsqueeze(-1).expand(-1, -1, 192))
    expected = (predicted.values - normalise_patches(patches)[0]).square().mean()
    assert model.loss(pixels, noise).item() == pytest.approx(expected.item(), rel=1e-5)
    only_removed = autoencoder().predict(pixels, noise)
    torch.testing.assert_close(predicted.values[:, KEPT:], only_removed.values, rtol=1e-4, atol=1e-5)


def test_principal_components_are_those_of_scikit_learn():
    from sklearn.decomposition import PCA

    patches = torch.randn(500, 192, generator=torch.Generator().manual_seed(3)) * torch.linspace(0.1, 2, 192)
    target = Components(8, 10)
    target.fit(patches)
    theirs = PCA(10, svd_solver="full").fit(patches.numpy())
    ours = target(patches[None])[0]
    expected = torch.from_numpy(theirs.transform(patches.numpy()))
    torch.testing.assert_close(ours.abs(), expected.abs().float(), rtol=1e-3, atol=1e-3)
    rebuilt = target.painted(ours, patches)
    assert (rebuilt - patches).var() < patches.var()


def test_components_as_target_train():
    model = autoencoder(target="pca", norm_pix_loss=False, pca_dims=6)
    images = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mae.prepare(model, lambda: images)
    assert model.decoder.head.out_features == 6
    model({"images": images, "noise": torch.rand(40, PATCHES)})["reconstruction"].backward()


def test_a_target_that_needs_no_data_looks_at_none():
    mae.prepare(autoencoder(), lambda: pytest.fail("looked at images"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"target": "tokens"}, "discrete VAE"), ({"target": "pca"}, "norm_pix_loss=false")],
    ids=["tokens", "pca"],
)
def test_targets_that_cannot_be_had(changes, said):
    with pytest.raises(ConfigError, match=said):
        mae.RECIPES["paper"].override(changes)


@pytest.mark.parametrize("kind", ["none", "fixed_crop", "random_crop", "random_crop_colour"])
def test_augmentations(kind):
    config = mae.RECIPES["paper"].model_copy(update={"augmentation": kind})
    view = mae.sample(config, spec_of(ARCH))
    image = torch.randint(0, 256, (3, 50, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = [view(image, 0)[0] for _ in range(6)]
    assert all(one.shape == (3, 32, 32) and one.dtype == torch.uint8 for one in found)
    assert (kind == "none") == all(torch.equal(found[0], one) for one in found)
