"""Files that training programs of self-supervision leave: lightly's own modules, solo-learn, mmpretrain, data2vec."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backbones.source import open_source
from mae_bench.core.errors import InputError
from tests.backbones import family_samples as samples
from tests.backbones.family_samples import PATCH, SIDE, WIDTH

# What lightly's and torch's older classes say of themselves; files of theirs are what people have.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning"),
    pytest.mark.filterwarnings("ignore:MAEDecoderTIMM is deprecated:FutureWarning"),
]

SIZES = {"embed_dim": WIDTH, "decoder_embed_dim": 32, "decoder_depth": 1, "decoder_num_heads": 2}


def lightning(parts: dict[str, nn.Module]) -> dict[str, Any]:
    """What Lightning writes of a module with these parts."""
    state = nn.ModuleDict(parts).state_dict()
    return {
        "state_dict": state,
        "epoch": 3,
        "global_step": 7,
        "pytorch-lightning_version": "2.5",
        "hyper_parameters": {"lr": 0.1},
    }


def lightlys() -> dict[str, dict[str, nn.Module]]:
    """Modules with the names of lightly's examples."""
    lightly = pytest.importorskip("lightly.models.modules")

    def masked() -> nn.Module:
        # As lightly does by itself: positions begin as MAE's, whatever the method is.
        return lightly.MaskedVisionTransformerTIMM(vit=samples.vit())

    network, plain = masked(), samples.vit()
    dino = [lightly.DINOProjectionHead(WIDTH, 32, 16, 64) for _ in range(2)]
    simclr = lightly.SimCLRProjectionHead(WIDTH, 32, 16)
    return {
        "MAE": {"backbone": network, "decoder": lightly.MAEDecoderTIMM(num_patches=16, patch_size=PATCH, **SIZES)},
        "SimCLR": {"backbone": plain, "projection_head": simclr, "online_classifier": nn.Linear(WIDTH, 5)},
        "SimCLR masked": {"backbone": masked(), "projection_head": simclr},
        "BYOL": {
            "backbone": plain,
            "projection_head": lightly.BYOLProjectionHead(WIDTH, 32, 16),
            "prediction_head": lightly.BYOLPredictionHead(16, 32, 16),
            "backbone_momentum": samples.shake(copy.deepcopy(plain)),
            "projection_head_momentum": lightly.BYOLProjectionHead(WIDTH, 32, 16),
        },
        "DINO": {
            "student_backbone": network,
            "student_head": dino[0],
            "teacher_backbone": samples.shake(copy.deepcopy(network)),
            "teacher_head": dino[1],
        },
    }


def same(source: Any, net: nn.Module) -> None:
    """The tokens are those of timm's network inside the module."""
    images = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    net = getattr(net, "vit", net)
    expected = samples.tokens_of(net.eval(), images, "blocks")
    with torch.no_grad():
        found = source.build().eval()(images, (0, 1), norm=False)
    assert all((one.tokens - two).abs().max() <= 1e-5 for one, two in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("name", "method"), [("MAE", "mae"), ("SimCLR", "unknown"), ("SimCLR masked", "unknown"), ("BYOL", "unknown")]
)
def test_lightlys_modules_are_read(saved, name, method):
    parts = lightlys()[name]
    source = open_source(saved(lightning(parts), "last.ckpt"))
    assert source.spec.method == method and not source.ledger.missing and not source.ledger.unexpected
    same(source, parts["backbone"])


def test_one_of_lightlys_two_networks_is_chosen_as_the_message_says(saved):
    parts = lightlys()["DINO"]
    path = saved(lightning(parts), "last.ckpt")
    with pytest.raises(InputError, match=r"2 networks in it .*add #ckpt_key=student_backbone\.vit$"):
        open_source(path)
    for key in ("student_backbone.vit", "student_backbone", "state_dict.student_backbone"):
        same(open_source(f"{path}#ckpt_key={key}"), parts["student_backbone"])
    source = open_source(f"{path}#ckpt_key=teacher_backbone")
    same(source, parts["teacher_backbone"])
    assert source.ledger.dropped["student_backbone.vit.cls_token"] == "another network of the file"
    assert source.ledger.dropped["student_head.last_layer.weight_g"].startswith("head of") and not source.ledger.unexpected


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize("method", ["mocov3", "mae"])
def test_solo_learns_files_are_read(saved, method):
    """Names of its BaseMethod and BaseMomentumMethod; MAE's decoder stands beside its encoder."""
    net = samples.vit()
    around: dict[str, Tensor] = {"classifier.weight": torch.ones(5, WIDTH), "classifier.bias": torch.ones(5)}
    if method == "mae":
        around |= {"decoder.mask_token": torch.ones(1, 1, 4), "decoder.decoder_blocks.0.norm1.weight": torch.ones(4)}
        samples.with_positions(net, samples.sincos_2d(WIDTH, (4, 4), num_prefix=1))
    else:
        around |= {f"{part}.0.weight": torch.ones(4, 4) for part in ("projector", "momentum_projector", "predictor")}
        around |= {**prefixed("momentum_backbone.", samples.vit(num_heads=2).state_dict()), "queue": torch.ones(2, 4, 8)}
        around |= {"momentum_classifier.weight": torch.ones(5, WIDTH), "queue_ptr": torch.zeros(1)}
    source = open_source(saved({"state_dict": {**prefixed("backbone.", net.state_dict()), **around}, "epoch": 99}, "mine.ckpt"))
    assert source.spec.method == ("mae" if method == "mae" else "unknown")
    assert set(around) <= set(source.ledger.dropped) and not source.ledger.unexpected
    same(source, net)


def test_mmpretrains_maskfeat_is_read(saved):
    """Its filters of gradients, as its HOGGenerator has them, are no moving average."""
    net = samples.vit()
    names = [("patch_embed.proj", "patch_embed.projection"), ("blocks.", "layers."), ("norm1", "ln1"), ("norm2", "ln2")]
    names += [("mlp.fc1", "ffn.layers.0.0"), ("mlp.fc2", "ffn.layers.1")]
    own = samples.renamed(net.state_dict(), *names)
    own = {(f"ln1{name[4:]}" if name.startswith("norm.") else name): tensor for name, tensor in own.items()}
    around = {f"target_generator.weight_{axis}": torch.ones(3, 1, 3, 3) for axis in "xy"}
    around |= {"target_generator.gaussian_kernel": torch.ones(16, 16), "neck.fc.weight": torch.ones(108, WIDTH)}
    state = {**prefixed("backbone.", {**own, "mask_token": torch.ones(1, 1, WIDTH)}), **around}
    source = open_source(saved({"state_dict": state, "meta": {}}))
    assert source.spec.method == "maskfeat" and not source.ledger.unexpected
    assert source.ledger.dropped["target_generator.weight_x"] == "what computes the targets of the pretraining"
    assert any("mean and std are assumed" in note for note in source.ledger.notes)
    same(source, net)


def test_data2vecs_own_files_are_read(saved):
    """BEiT's code with a head as wide as the network, and its teacher under another key."""
    sample = samples.beit()["BEiT pretrained"]
    state = {**sample.state, "lm_head.weight": torch.ones(WIDTH, WIDTH), "lm_head.bias": torch.ones(WIDTH)}
    path = saved({"model": state, "epoch": 799})
    assert open_source(path).spec.method == "data2vec"
    same(open_source(path), sample.net((SIDE, SIDE)))
    both = saved({"model": state, "model_ema": {name: tensor + 1 for name, tensor in state.items()}}, "both.pth")
    with pytest.raises(InputError, match="weights under several keys"):
        open_source(both)
    same(open_source(f"{both}#ckpt_key=model"), sample.net((SIDE, SIDE)))
