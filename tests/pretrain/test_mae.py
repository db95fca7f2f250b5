"""The masked autoencoder: the rules of the paper one by one."""

import pytest
import torch
from torch import nn

from backbones.zoo.vit import spec_of
from mae_bench.objectives import mae
from mae_bench.objectives._autoencoder import patchify, unpatchify
from mae_bench.objectives._targets import normalise_patches
from tests.pretrain.small_mae import ARCH, KEPT, PATCHES, autoencoder, inputs


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
        block.register_forward_hook(lambda _, args, out, name=name: lengths.__setitem__(name, out.shape[1]))
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
