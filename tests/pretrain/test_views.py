"""Random views: what each strength is of."""

import pytest
import torch
from torchvision.transforms import v2

from mae_bench.objectives._cropping import Crop
from mae_bench.objectives._views import View

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
