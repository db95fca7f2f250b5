"""A small file of each family with names of its own: DINOv2, EVA and DINOv3, BEiT, CLIP, JAX arrays, torchvision."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from timm.layers.mlp import SwiGLUPacked
from timm.layers.norm import LayerNorm
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import beit as timm_beit
from timm.models import eva as timm_eva
from timm.models import vision_transformer as timm_vit
from torch import Tensor, nn

from backbones.relative import TABLE, resize_table
from tests.backbones.samples_base import (
    DEPTH,
    HEADS,
    PATCH,
    PLAIN,
    SIDE,
    WIDTH,
    Sample,
    State,
    head,
    plain,
    read_by_timm,
    renamed,
    shake,
    vit,
)


def dinov2() -> dict[str, Sample]:
    """DINOv2's own names, read by timm's converter."""
    token = {"mask_token": torch.ones(1, WIDTH)}

    def sample(native: State, **options: Any) -> Sample:
        chunks = {(f"blocks.0.{name[7:]}" if name.startswith("blocks.") else name): value for name, value in native.items()}
        state = chunks if options.pop("chunks", False) else native
        return Sample("dinov2", state, read_by_timm(partial(vit, **options), timm_vit, native), "dinov2")

    base = {**vit(init_values=0.1).state_dict(), **token}
    gated = {"init_values": 0.1, "mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
    giant = renamed(vit(**gated).state_dict(), ("mlp.fc1", "mlp.w12"), ("mlp.fc2", "mlp.w3"))
    registers = vit(init_values=0.1, reg_tokens=4, no_embed_class=True).state_dict()
    row = torch.randn(1, 1, WIDTH, generator=torch.Generator().manual_seed(1))
    native = renamed(registers, ("reg_token", "register_tokens")) | token
    native["pos_embed"] = torch.cat([row, native["pos_embed"]], dim=1)
    return {
        "DINOv2": sample(base, init_values=0.1),
        "DINOv2 in chunks": sample(base, init_values=0.1, chunks=True),
        "DINOv2 giant": sample({**giant, **token}, **gated),
        "DINOv2 registers": sample(native, init_values=0.1, reg_tokens=4, no_embed_class=True),
    }


def eva(**options: Any) -> Any:
    """timm's Eva."""
    torch.manual_seed(0)
    facts = {"img_size": SIDE, "num_classes": 0, "dynamic_img_size": True, "use_fc_norm": False, "use_rot_pos_emb": True}
    return shake(timm_eva.Eva(**{**facts, **PLAIN, "use_post_transformer_norm": True, **options}))


def rotary() -> dict[str, Sample]:
    """EVA-02 and DINOv3, timm's files and their own."""
    v3 = {
        "init_values": 1e-5,
        "rope_type": "dinov3",
        "rope_temperature": 100,
        "rope_rotate_half": True,
        "use_abs_pos_emb": False,
        "num_reg_tokens": 4,
        "norm_layer": partial(LayerNorm, eps=1e-5),
    }
    tiny = {"swiglu_mlp": True, "ref_feat_shape": (16, 16)}
    base = {**tiny, "qkv_fused": False, "scale_mlp": True}
    periods = 100 ** (torch.arange(16) / 16)
    native = renamed(eva(**v3).state_dict(), ("gamma_", "ls"), ("reg_token", "storage_tokens"))
    native = {(f"{name}.gamma" if name.endswith((".ls1", ".ls2")) else name): tensor for name, tensor in native.items()}
    for block in range(DEPTH):
        q, v = (native.pop(f"blocks.{block}.attn.{part}_bias") for part in "qv")
        native[f"blocks.{block}.attn.qkv.bias"] = torch.cat([q, torch.ones_like(q), v])
        native[f"blocks.{block}.attn.qkv.bias_mask"] = torch.cat([torch.ones_like(q), torch.zeros_like(q), torch.ones_like(v)])
    read = read_by_timm(partial(eva, **v3), timm_eva, native)
    native |= {"rope_embed.periods": periods.bfloat16(), "mask_token": torch.ones(1, WIDTH)}
    large = eva(**base, scale_attn_inner=True)
    own = renamed(large.state_dict(), ("mlp.fc1_g", "mlp.w1"), ("mlp.fc1_x", "mlp.w2"), ("mlp.fc2", "mlp.w3"))
    own = renamed(own, ("mlp.norm", "mlp.ffn_ln"), ("attn.norm", "attn.inner_attn_ln"))
    own = renamed(own, ("q_proj.bias", "q_bias"), ("v_proj.bias", "v_bias"))
    own["rope.freqs_cos"] = torch.ones(2, 2)
    own_net = read_by_timm(partial(eva, **base, scale_attn_inner=True), timm_eva, own)
    return {
        "timm DINOv3": plain("timm_eva", eva(**v3, qkv_bias=False)),
        "timm EVA-02 tiny": plain("timm_eva", eva(**tiny), extra=head()),
        "timm EVA-02 base": plain("timm_eva", eva(**base)),
        "timm EVA-02 CLIP": plain("timm_eva", large),
        "timm EVA": plain("timm_eva", eva(use_rot_pos_emb=False)),
        "EVA-02's own": Sample("timm_eva", own, own_net),
        "DINOv3's own": Sample("dinov3", native, read, "dinov3"),
    }


def beit() -> dict[str, Sample]:
    """BEiT, in timm's network, which has its names."""

    def make(img_size: Any = SIDE, **options: Any) -> Any:
        torch.manual_seed(0)
        facts = {"num_classes": 0, "use_fc_norm": False, "use_abs_pos_emb": False, "init_values": 0.1, **PLAIN, **options}
        return shake(timm_beit.Beit(img_size=img_size, **facts))

    index = make(use_rel_pos_bias=True).blocks[0].attn.relative_position_index
    own = {f"blocks.{block}.attn.relative_position_index": index for block in range(DEPTH)}
    pretraining = {"mask_token": torch.ones(1, 1, WIDTH), "lm_head.weight": torch.ones(4, WIDTH)}

    def sample(extra: State, method: str, wrapped: Any = None, **options: Any) -> Sample:
        state = make(**options).state_dict()

        def build(size: tuple[int, int]) -> nn.Module:
            # timm resizes tables linearly, BEiT by cubic splines; those are tested by themselves.
            grid, old = (size[0] // PATCH, size[1] // PATCH), (SIDE // PATCH, SIDE // PATCH)
            sized = {name: resize_table(value, old, grid) if name.endswith(TABLE) else value for name, value in state.items()}
            if "pos_embed" in state:
                sized["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], list(grid), list(old), num_prefix_tokens=1)
            net = make(img_size=size, **options)
            # Not load_state_dict, which would have timm resize them.
            with torch.no_grad():
                for name, parameter in net.named_parameters():
                    parameter.copy_(sized[name])
            return net

        return Sample("beit", {**state, **extra}, build, method, **wrapped or {})

    decoder = {"prefix": "encoder.", "around": {"decoder.0.weight": torch.ones(4, WIDTH, 1, 1)}, "key": "model"}
    shared = {"use_shared_rel_pos_bias": True}
    return {
        "BEiT": sample({**own, **head()}, "unknown", {"key": "model"}, use_rel_pos_bias=True),
        "BEiT pretrained": sample({**pretraining, "rel_pos_bias.relative_position_index": index}, "beit", **shared),
        "BEiT absolute": sample(pretraining, "beit", use_abs_pos_emb=True, init_values=None),
        "SimMIM": sample({"mask_token": torch.ones(1, 1, WIDTH)}, "simmim", decoder, **shared),
    }


def clip() -> dict[str, Sample]:
    """CLIP's own names, read by timm's converter."""

    def sample(act: str, around: State) -> Sample:
        options = {"pre_norm": True, "norm_layer": partial(LayerNorm, eps=1e-5), "act_layer": act}
        state = vit(**options).state_dict()
        names = [
            ("norm_pre", "ln_pre"),
            ("norm1", "ln_1"),
            ("norm2", "ln_2"),
            ("norm.", "ln_post."),
            ("attn.qkv.", "attn.in_proj_"),
        ]
        names += [
            ("attn.proj", "attn.out_proj"),
            ("mlp.fc1", "mlp.c_fc"),
            ("mlp.fc2", "mlp.c_proj"),
            ("patch_embed.proj", "conv1"),
        ]
        names += [("blocks.", "transformer.resblocks."), ("cls_token", "class_embedding"), ("pos_embed", "positional_embedding")]
        native = renamed(state, *names)
        native |= {"class_embedding": native["class_embedding"][0, 0], "positional_embedding": native["positional_embedding"][0]}
        whole = {f"visual.{name}": tensor for name, tensor in native.items()}
        projection = {"proj": torch.ones(WIDTH, 16)}
        read = read_by_timm(partial(vit, **options), timm_vit, whole)
        return Sample("clip", {**native, **projection}, read, "clip", prefix="visual.", around=around)

    text = {"token_embedding.weight": torch.ones(4, 4), "transformer.resblocks.0.ln_1.weight": torch.ones(4)}
    numbers = {name: torch.tensor(7) for name in ("input_resolution", "context_length", "vocab_size")}
    return {
        "OpenAI CLIP": sample("quick_gelu", {**text, **numbers}),
        "open_clip": sample("gelu", {**text, "logit_scale": torch.ones(())}),
    }


def augreg_arrays(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arrays by the names of Flax modules, as the ViT paper's files have them."""
    arrays = {
        "cls": state["cls_token"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "embedding/kernel": state["patch_embed.proj.weight"].permute(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": torch.ones(WIDTH, 5),
        "head/bias": torch.ones(5),
    }
    for block in range(DEPTH):
        here, there = f"blocks.{block}.", f"Transformer/encoderblock_{block}/"
        for norm, flax in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            arrays |= {f"{there}{flax}/scale": state[f"{here}{norm}.weight"], f"{there}{flax}/bias": state[f"{here}{norm}.bias"]}
        attention = f"{there}MultiHeadDotProductAttention_1/"
        weights, biases = (state[f"{here}attn.qkv.{kind}"].chunk(3) for kind in ("weight", "bias"))
        for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            arrays[f"{attention}{name}/kernel"] = weight.T.reshape(WIDTH, HEADS, -1)
            arrays[f"{attention}{name}/bias"] = bias.reshape(HEADS, -1)
        arrays[f"{attention}out/kernel"] = state[f"{here}attn.proj.weight"].T.reshape(HEADS, -1, WIDTH)
        arrays[f"{attention}out/bias"] = state[f"{here}attn.proj.bias"]
        for number, layer in enumerate(("fc1", "fc2")):
            arrays[f"{there}MlpBlock_3/Dense_{number}/kernel"] = state[f"{here}mlp.{layer}.weight"].T
            arrays[f"{there}MlpBlock_3/Dense_{number}/bias"] = state[f"{here}mlp.{layer}.bias"]
    return {name: tensor.contiguous().numpy() for name, tensor in arrays.items()}


def augreg() -> dict[str, Sample]:
    """The ViT paper's arrays; timm reads the same from an .npz file in a test of its own."""
    net = vit()
    arrays = {name: torch.from_numpy(array) for name, array in augreg_arrays(net.state_dict()).items()}
    return {"AugReg": Sample("augreg", arrays, lambda _size: net, "supervised")}


def torchvision_vit() -> dict[str, Sample]:
    """torchvision's own network, which takes one size."""
    from torchvision.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    net = shake(VisionTransformer(SIDE, PATCH, DEPTH, HEADS, WIDTH, 2 * WIDTH, num_classes=5))
    blocks = "encoder.layers"
    return {"torchvision": Sample("torchvision_vit", net.state_dict(), lambda _size: net, blocks=blocks, other_size=False)}
