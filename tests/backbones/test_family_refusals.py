"""Variants of known families that cannot be carried exactly are refused by name; what a user says settles what can be."""

import numpy as np
import pytest
import torch
from timm.models import vision_transformer as timm_vit

from backbones.source import open_source
from mae_bench.core.errors import InputError
from tests.backbones import family_samples as samples
from tests.backbones.family_samples import DEPTH, HEADS, SIDE, WIDTH

SAMPLES = samples.light()
ONE = torch.ones(2, 2)


def change(name, **tensors):
    sample = SAMPLES[name]
    return {**sample.tensors, **{sample.prefix + key.replace("__", "."): tensor for key, tensor in tensors.items()}}


CASES = {
    "a convolutional stem": ({"module.base_encoder.patch_embed.proj.0.weight": ONE}, "a convolutional stem, as MoCo v3's"),
    "torchvision's stem": (
        {"conv_proj.conv_bn_relu_0.0.weight": ONE, "encoder.layers.encoder_layer_0.ln_1.weight": ONE},
        "torchvision's network with a convolutional stem",
    ),
    "perception encoder": (change("timm CLIP", attn_pool__probe=ONE), "Perception Encoder"),
    "other wavelengths": (change("DINOv3's own", rope_embed__periods=10 ** (torch.arange(16) / 16)), "not the wavelengths"),
    "biases of keys": (change("DINOv3's own", blocks__0__attn__qkv__bias_mask=torch.ones(3 * WIDTH)), "biases for keys"),
    "norms of DINOv3": (change("DINOv3's own", cls_norm__weight=torch.ones(WIDTH)), "cls_norm"),
    "EVA's key biases": (change("timm EVA", blocks__0__attn__k_bias=torch.ones(WIDTH)), "keys have no bias"),
    "mixed rotary positions": (change("timm", rope__freqs=ONE), "rotary positions"),
    "gated attention": (change("timm", blocks__0__attn__gate__weight=ONE), "gated attention"),
    "CLIP without a first norm": (
        {name: tensor for name, tensor in SAMPLES["open_clip"].tensors.items() if "ln_pre" not in name},
        "without a norm before its blocks",
    ),
    "a hybrid": (change("AugReg", **{"conv_root/kernel": ONE}), "a ResNet before its blocks"),
    "BEiT's other order": (
        change("BEiT", blocks__0__attn__relative_position_index=torch.zeros(17, 17, dtype=torch.int64)),
        "not BEiT's order",
    ),
    "Segment Anything": (change("timm", blocks__0__attn__rel_pos_h=ONE, blocks__0__mlp__lin1__weight=ONE), "Segment Anything"),
    "MViT": (change("timm", blocks__0__attn__pool_q__weight=ONE), "MViT"),
}


@pytest.mark.parametrize("case", CASES)
def test_variants_are_refused_by_name(tmp_path, case):
    content, match = CASES[case]
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=match) as caught:
        open_source(str(tmp_path / "weights.pth"))
    assert "\n" not in str(caught.value)


def test_openais_activation_is_known_by_its_numbers_or_told(tmp_path):
    both = {}
    for name in ("OpenAI CLIP", "open_clip"):
        torch.save(SAMPLES[name].content, tmp_path / f"{name}.pth")
        both[name] = open_source(str(tmp_path / f"{name}.pth"))
    assert both["OpenAI CLIP"].arch.model_dump()["mlp"] == "quick_gelu"
    assumed = {name: any("GELU is assumed" in note for note in source.ledger.notes) for name, source in both.items()}
    assert assumed == {"OpenAI CLIP": False, "open_clip": True}
    told = open_source(f"{tmp_path / 'open_clip.pth'}#mlp=quick_gelu")
    assert told.arch.model_dump()["mlp"] == "quick_gelu"
    assert not any("GELU is assumed" in note for note in told.ledger.notes)


def test_big_visions_arrays_are_read_as_timm_reads_them(tmp_path):
    """Blocks on top of each other under `params/`, modules numbered by their kind, no class token."""
    net = samples.vit(class_token=False, global_pool="avg", fc_norm=False)
    state = {**net.state_dict(), "cls_token": torch.zeros(1, 1, WIDTH)}
    old = samples.augreg_arrays(state)
    arrays = {f"params/{name}": array for name, array in old.items() if "encoderblock" not in name and name != "cls"}
    arrays["params/pos_embedding"] = arrays.pop("params/Transformer/posembed_input/pos_embedding")
    renames = (("MultiHeadDotProductAttention_1", "MultiHeadDotProductAttention_0"), ("MlpBlock_3", "MlpBlock_0"))
    for name, array in old.items():
        if "encoderblock_0" in name:
            parts = [old[name.replace("encoderblock_0", f"encoderblock_{block}")] for block in range(DEPTH)]
            new = name.replace("encoderblock_0", "encoderblock").replace("LayerNorm_2", "LayerNorm_1")
            for here, there in renames:
                new = new.replace(here, there)
            arrays[f"params/{new}"] = np.stack(parts) if array is not None else array
    path = tmp_path / "weights.npz"
    np.savez(path, **arrays)
    theirs = samples.vit(class_token=False, global_pool="avg", fc_norm=False)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.zero_()
        timm_vit._load_weights(theirs, str(path))
        source = open_source(str(path))
        images = torch.rand(2, 3, SIDE, SIDE + 16, generator=torch.Generator().manual_seed(0))
        expected = theirs.forward_features(images)
        (found,) = source.build().eval()(images)
    assert source.arch.model_dump()["num_heads"] == HEADS
    assert expected.std() > 0.1 and (found.tokens - expected).abs().max() <= 1e-5
