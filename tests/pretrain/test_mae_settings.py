"""What the masked autoencoder can be asked for: masks, mask tokens, targets, augmentations."""

import pytest
import torch

from backbones.zoo.vit import spec_of
from mae_bench.core.errors import ConfigError
from mae_bench.objectives import mae
from mae_bench.objectives._autoencoder import patchify
from mae_bench.objectives._masks import masking
from mae_bench.objectives._targets import Components, normalise_patches
from tests.pretrain.small_mae import ARCH, KEPT, PATCHES, autoencoder, inputs


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
