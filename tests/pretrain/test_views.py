"""Random views: what each strength is of."""

import pytest
import torch
from torchvision.transforms import v2

from backbones.zoo.vit import spec_of
from mae_bench.objectives import mae
from mae_bench.objectives._cropping import Crop
from mae_bench.objectives._parts import crop_and_flip
from mae_bench.objectives._views import View
from tests.pretrain.small_mae import ARCH

IMAGE = torch.randint(0, 256, (3, 40, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def is_grey(view):
    return torch.equal(view[0], view[1]) and torch.equal(view[1], view[2])


@pytest.mark.parametrize("jitter", [(0.4, 0.4, 0.2, 0.1), (0.0, 0.0, 0.0, 0.0)], ids=["jitter", "none"])
def test_a_fifth_is_grey_whatever_the_jitter(jitter):
    """SimCLR's appendix A and BYOL's table 6 have a chance of 0.2 beside that of the jitter."""
    torch.manual_seed(0)
    view = View((16, 16), (0.2, 1.0), jitter=jitter).transform()
    share = sum(is_grey(view(IMAGE)) for _ in range(400)) / 400
    assert share == pytest.approx(0.2, abs=0.06)


def test_without_jitter_and_grey_colours_stay():
    torch.manual_seed(0)
    view = View((40, 48), (1.0, 1.0), flip=0.0, jitter=(0.0, 0.0, 0.0, 0.0), grey=0.0).transform()
    assert not any(is_grey(view(IMAGE)) for _ in range(40))


def test_views_are_flipped_as_often_as_asked():
    plain, turned = (
        View((16, 16), (0.2, 1.0), flip=flip, jitter=(0.0, 0.0, 0.0, 0.0), grey=0.0).transform() for flip in (0.0, 1.0)
    )
    whole = crop_and_flip(mae.RECIPES["paper"].model_copy(update={"flip": 1.0, "crop_scale": (0.2, 1.0)}), spec_of(ARCH))
    for seed in range(3):
        views = []
        for view in (plain, turned, whole):
            torch.manual_seed(seed)
            views.append(view(IMAGE))
        assert torch.equal(views[1], views[0].flip(-1))
        torch.manual_seed(seed)
        assert torch.equal(views[2], Crop((32, 32), (0.2, 1.0))(IMAGE).flip(-1))


def test_jitter_comes_before_grey():
    jitter = (0.4, 0.4, 0.2, 0.1)
    colours = [v2.RandomApply([v2.ColorJitter(*jitter)], 0.8), v2.RandomGrayscale(0.2)]
    expected = v2.Compose([Crop((16, 16), (0.2, 1.0)), v2.ToPILImage(), *colours, v2.PILToTensor()])
    view = View((16, 16), (0.2, 1.0), flip=0.0, jitter=jitter).transform()
    for seed in range(20):
        torch.manual_seed(seed)
        ours = view(IMAGE)
        torch.manual_seed(seed)
        assert torch.equal(ours, expected(IMAGE))
