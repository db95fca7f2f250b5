"""What pretraining is fed: the exact pixels by every way of decoding, crops at reduced scale."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from backbones.source import open_source
from mae_bench.core.batches import Seeded
from mae_bench.core.errors import InputError
from mae_bench.objectives import mae
from mae_bench.objectives._cropping import Crop, Picture
from mae_bench.objectives._images import Images, load_images
from tasks import encoded
from tasks.encoded import Encoded
from tasks.images import decode_rgb
from tests.pretrain.photographs import jpeg, photograph, png


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30, "optimize": True}])
def test_simplejpeg_gives_pillows_pixels(mode, subsampling, options):
    pytest.importorskip("simplejpeg")
    for width, height in ((101, 67), (64, 64), (1, 1), (7, 300)):
        content = jpeg(photograph(width, height).convert(mode), subsampling=subsampling, **options)
        pixels = Encoded(content, "x").pixels()
        assert np.array_equal(pixels, np.asarray(decode_rgb(content, "x")))
        assert np.array_equal(pixels, np.asarray(Encoded(content, "x").image()))
        assert pixels.flags.writeable
        fast = Encoded(content, "x")._by_simplejpeg()
        assert (fast is None) == (mode == "CMYK")  # so that both ways were compared


@pytest.mark.parametrize("spoil", [lambda c: c[: len(c) // 2], lambda c: c[:-2], lambda c: b"", lambda c: b"junk" + c])
def test_what_pillow_refuses_is_refused_with_simplejpeg_too(spoil, tmp_path):
    pytest.importorskip("simplejpeg")
    path = tmp_path / "x.jpg"
    path.write_bytes(spoil(jpeg(photograph(64, 48))))
    for source in (path, path.read_bytes()):
        with pytest.raises(InputError) as ours:
            Encoded(source, "x.jpg").pixels()
        with pytest.raises(InputError) as theirs:
            decode_rgb(source, "x.jpg")
        assert str(ours.value) == str(theirs.value)


def test_a_bomb_is_left_to_pillow(monkeypatch):
    pytest.importorskip("simplejpeg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match="exceeds limit"):
        Encoded(jpeg(photograph(64, 48)), "x").pixels()


def test_the_same_samples_without_simplejpeg(photographs, monkeypatch):
    spec = open_source("random:vit_demo_patch8").spec
    images = load_images(photographs.split("train"), mae.sample(mae.RECIPES["demo"], spec), "never")
    ours = [Seeded(images, 0)[1, index] for index in range(4)]
    monkeypatch.setattr(encoded, "simplejpeg", lambda: None)
    for index, (view, noise) in enumerate(ours):
        again, other = Seeded(images, 0)[1, index]
        assert torch.equal(view, again) and torch.equal(noise, other)


def test_a_crop_is_torchvisions():
    image = torch.from_numpy(np.array(photograph(90, 70))).permute(2, 0, 1)
    theirs = v2.RandomResizedCrop((32, 32), (0.2, 1.0), interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
    both = v2.Compose([theirs, v2.RandomHorizontalFlip(0.4)])
    for seed in range(8):
        for expected, ours in ((theirs, Crop((32, 32), (0.2, 1.0))), (both, Crop((32, 32), (0.2, 1.0), 0.4))):
            torch.manual_seed(seed)
            wanted, drawn = expected(image), torch.rand(1)
            torch.manual_seed(seed)
            assert torch.equal(ours(image), wanted) and torch.rand(1) == drawn


def test_a_crop_that_needs_the_resolution_is_exact_and_others_are_close():
    """A picture's crop is the tensor's crop of the same draws: bit for bit where nothing is reduced, else nearly."""
    photo = photograph(640, 480)
    content = jpeg(photo, quality=95)
    whole = torch.from_numpy(np.array(decode_rgb(content, "x"))).permute(2, 0, 1)
    differences = []
    for size, scale in (((224, 224), (0.2, 0.5)), ((64, 64), (0.2, 1.0)), ((48, 32), (0.5, 1.0))):
        crop = Crop(size, scale)
        for seed in range(6):
            picture = Picture(Encoded(content, "x"))
            torch.manual_seed(seed)
            expected = crop(whole)
            torch.manual_seed(seed)
            found = crop(picture)
            assert found.shape == expected.shape and found.dtype == torch.uint8
            (shrink,) = picture._decoded
            difference = (found.float() - expected.float()).abs().mean().item()
            if shrink == 1:
                assert torch.equal(found, expected)
            else:
                differences.append((shrink, difference))
    assert {shrink for shrink, _ in differences} >= {2, 4}
    assert max(difference for _, difference in differences) < 6
    assert np.mean([difference for _, difference in differences]) > 0


def test_no_crop_is_made_larger_than_it_was_decoded(monkeypatch):
    asked = []
    content = jpeg(photograph(803, 601))
    monkeypatch.setattr(
        "mae_bench.objectives._cropping.resized",
        lambda image, box, size: asked.append((box, size, image.shape)) or torch.zeros(3, *size),
    )
    crop = Crop((40, 40), (0.05, 1.0))
    for seed in range(40):
        torch.manual_seed(seed)
        crop(Picture(Encoded(content, "x")))
    for (top, left, height, width), size, (_, rows, columns) in asked:
        assert 0 <= top and top + height <= rows and 0 <= left and left + width <= columns
        assert (height >= size[0] - 1 and width >= size[1] - 1) or (rows, columns) == (601, 803)
    assert len({shape for _, _, shape in asked}) >= 3


def test_png_is_never_reduced():
    photo = photograph(256, 256)
    whole = torch.from_numpy(np.array(photo)).permute(2, 0, 1)
    crop, turned = Crop((32, 32), (0.9, 1.0)), Crop((32, 32), (0.9, 1.0), flip=1.0)
    torch.manual_seed(0)
    expected = crop(whole)
    for view, wanted in ((crop, expected), (turned, expected.flip(-1))):
        torch.manual_seed(0)
        assert torch.equal(view(Picture(Encoded(png(photo), "x"))), wanted)


@pytest.mark.parametrize("objective", ["mae", "supervised", "simclr", "byol", "mocov3", "dino"])
def test_reduced_samples_are_a_function_of_seed_epoch_and_index(photographs, objective):
    from mae_bench.core import find

    if objective != "mae" and objective != "supervised":
        pytest.importorskip("lightly")
    module = find.load("mae_bench.objectives", objective, what="objective")
    config = module.RECIPES["demo"]
    spec = open_source("random:vit_demo_patch8").spec
    images = load_images(photographs.split("train"), module.sample(config, spec), "auto", reduced=True)
    assert isinstance(images, Images) and images.decoded is None
    one, two = (module.collate([Seeded(images, 7)[epoch, 3]]) for epoch in (1, 1))
    other = module.collate([Seeded(images, 7)[2, 3]])
    flat = [torch.cat([v.flatten().float() for v in (b.values() if isinstance(b, dict) else [b])]) for b in (one, two, other)]
    assert torch.equal(flat[0], flat[1])
    assert not torch.equal(flat[0], flat[2])
