"""Attention on tensors without numbers keeps what attention by parts keeps, and its products of matrices."""

import pytest
import torch
from torch import nn

from backbones import sketched_attention
from backbones.arch import VitArch
from backbones.contract import DenseOptions
from backbones.zoo import vit
from mae_bench.counted import Summed, _count_passes, count

pytestmark = pytest.mark.apart

ARCH = VitArch(embed_dim=24, depth=3, num_heads=2, patch_size=8, mlp_dim=48, image_size=(32, 32))
DECOMPOSED = DenseOptions(image_size=(64, 64), window=3, global_layers=(1,), rel_pos=True, keep_prefix=False)
SMALLER = DenseOptions(image_size=(64, 64), window=14, global_layers=(1,), rel_pos=True, keep_prefix=False)
"""A map that does not fill a window."""
TABLES = DenseOptions(image_size=(64, 64), relative_table=True)


@pytest.mark.slow
@pytest.mark.parametrize("options", [DECOMPOSED, SMALLER, TABLES], ids=["decomposed", "smaller", "tables"])
def test_as_much_is_foretold_as_is_kept(options):
    spec, images = vit.spec_of(ARCH), torch.zeros(2, 3, 64, 64)

    def real():
        return Summed(vit.assemble(ARCH, spec, vit.initial_weights(ARCH, 0), options))

    foretold = count(lambda: Summed(vit.empty(ARCH, spec, options)), real, images, "fp32")
    found = _count_passes(real(), images)
    assert foretold.kept == pytest.approx(found.kept, rel=0.01)
    assert foretold.forward == pytest.approx(found.forward, rel=0.1) and foretold.step == pytest.approx(found.step, rel=0.1)


def test_tensors_with_numbers_are_not_for_it():
    assert not sketched_attention.applies(torch.zeros(1)) and not sketched_attention.applies(nn.Parameter(torch.zeros(1)))
