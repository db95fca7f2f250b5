"""A small file of each family, with the network of another program that says what its tokens are.

Where no installed package has a family's own network, its file is made by renaming tensors of timm's network, and timm's own
converter of that family reads the file into the network that is compared with: the converter here is not its own judge.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from timm.layers.mlp import SwiGLU, SwiGLUPacked
from timm.layers.norm import LayerNorm
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import beit as timm_beit
from timm.models import deit as timm_deit
from timm.models import eva as timm_eva
from timm.models import vision_transformer as timm_vit
from torch import Tensor, nn

from backbones.positions import sincos_2d
from backbones.relative import TABLE, resize_table

WIDTH, DEPTH, HEADS, PATCH, SIDE = 128, 2, 2, 8, 32
PLAIN: dict[str, Any] = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "patch_size": PATCH, "mlp_ratio": 2}
RECTANGLE = (24, 48)
State = dict[str, Tensor]


@dataclass(frozen=True)
class Sample:
    """A file, and the network that it holds."""

    family: str
    """The file of `formats/` that must recognise it."""
    state: State
    """The network by the family's names, not wrapped."""
    net: Callable[[tuple[int, int]], nn.Module]
    """Another program's network with these weights, for images of a size (height, width) in pixels."""
    method: str = "unknown"
    prefix: str = ""
    """What the family's files put before the names."""
    around: Mapping[str, Tensor] = field(default_factory=dict)
    """What the family's files have beside the network, by whole names."""
    blocks: str = "blocks"
    """The module of `net` whose children are the blocks."""
    key: str = ""
    """Key of the file under which the tensors are."""
    other_size: bool = True
    """Whether `net` takes images of another size than `SIDE`."""

    @property
    def tensors(self) -> State:
        """The tensors as the family's files name them."""
        return {**{self.prefix + name: tensor for name, tensor in self.state.items()}, **self.around}

    @property
    def content(self) -> dict[str, Any]:
        """What is given to `torch.save`."""
        return {self.key: self.tensors} if self.key else dict(self.tensors)


def shake(net: nn.Module, seed: int = 7) -> Any:
    """Bring every parameter away from special values such as 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    # mmsegmentation's `eval` gives nothing back.
    net.eval()
    return net


def tokens_of(net: nn.Module, images: Tensor, blocks: str) -> list[Tensor]:
    """What comes out of each block, (B, N, C)."""
    found: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        found.append(output)

    hooks = [block.register_forward_hook(keep) for block in net.get_submodule(blocks).children()]
    with torch.no_grad():
        forward: Any = getattr(net, "forward_features", net.__call__)
        forward(images)
    for hook in hooks:
        hook.remove()
    return [tokens.flatten(1, 2) if tokens.ndim == 4 else tokens for tokens in found]


def head(**more: Tensor) -> State:
    """A classifier's weights."""
    return {"head.weight": torch.ones(5, WIDTH), "head.bias": torch.ones(5), **more}


def vit(**options: Any) -> Any:
    """timm's VisionTransformer."""
    torch.manual_seed(0)
    facts = {"img_size": SIDE, "num_classes": 0, "dynamic_img_size": True, **PLAIN, **options}
    return shake(timm_vit.VisionTransformer(**facts))


def plain(family: str, net: Any, method: str = "unknown", *, extra: State | None = None, **wrapped: Any) -> Sample:
    """A file with timm's names."""
    return Sample(family, {**net.state_dict(), **(extra or {})}, lambda _size: net, method, **wrapped)


def with_positions(net: Any, table: Tensor) -> Any:
    """The network with fixed positions."""
    with torch.no_grad():
        net.pos_embed.copy_(table)
    return net


def renamed(state: Mapping[str, Tensor], *names: tuple[str, str]) -> State:
    """Names with parts of them replaced, in order."""
    found = {}
    for name, tensor in state.items():
        for old, new in names:
            name = name.replace(old, new)
        found[name] = tensor
    return found


def read_by_timm(make: Callable[..., Any], module: Any, state: State) -> Callable[[tuple[int, int]], nn.Module]:
    """timm's network of an image size with a file's tensors, as timm's converter of the family reads them."""

    def build(size: tuple[int, int]) -> nn.Module:
        net = make(img_size=size)
        net.load_state_dict(module.checkpoint_filter_fn(dict(state), net), strict=True)
        return net.eval()

    return build


def timm_names() -> dict[str, Sample]:
    """Files that have timm's names."""
    mae = with_positions(vit(), sincos_2d(WIDTH, (4, 4), num_prefix=1))
    moco = with_positions(vit(), sincos_2d(WIDTH, (4, 4), num_prefix=1).roll(WIDTH // 2, -1))
    decoder = {name: torch.ones(1, 1, 4) for name in ("mask_token", "decoder_embed.weight", "decoder_blocks.0.norm1.weight")}
    swiglu = vit(mlp_layer=SwiGLUPacked, act_layer=nn.SiLU)
    torch.manual_seed(0)
    distilled = timm_deit.VisionTransformerDistilled(img_size=SIDE, num_classes=5, dynamic_img_size=True, **PLAIN)
    clip = vit(pre_norm=True, norm_layer=partial(LayerNorm, eps=1e-5))
    fine_tuned = vit(global_pool="avg", num_classes=5)
    byol = {f"momentum_backbone.{name}": tensor + 1 for name, tensor in vit().state_dict().items()}
    dino_head = {"head.mlp.0.weight": torch.ones(2, 2), "head.last_layer.weight_g": torch.ones(2, 1)}
    return {
        "timm": plain("timm_vit", vit(), extra=head()),
        "timm registers": plain("timm_vit", vit(reg_tokens=4, no_embed_class=True, init_values=1e-5)),
        "timm CLIP": plain("timm_vit", clip),
        "timm SwiGLU": plain("timm_vit", swiglu),
        "timm SwiGLU apart": plain("timm_vit", vit(mlp_layer=SwiGLU, act_layer=nn.SiLU)),
        "DeiT distilled": plain("timm_vit", shake(distilled), "deit"),
        "MAE": plain("mae", mae, "mae", key="model"),
        "MAE with decoder": plain("mae", mae, "mae", extra=decoder, key="model"),
        "MAE fine-tuned": plain("timm_vit", fine_tuned, key="model"),
        "MoCo v3": plain(
            "mocov3",
            moco,
            "mocov3",
            extra={"head.0.weight": torch.ones(2, 2), "head.1.num_batches_tracked": torch.tensor(3)},
            prefix="module.base_encoder.",
            around={"module.predictor.0.weight": torch.ones(2, 2)},
            key="state_dict",
        ),
        "MoCo v3 linear": plain("mocov3", moco, "mocov3", extra=head(), prefix="module.", key="state_dict"),
        "DINO teacher": plain("dino", vit(), "dino", prefix="backbone.", around=dino_head, key="teacher"),
        "iBOT": plain("ibot", vit(init_values=0.1), "ibot", extra={"masked_embed": torch.ones(1, WIDTH)}, key="state_dict"),
        "solo-learn": plain("timm_vit", vit(), prefix="backbone.", around={**byol, "projector.0.weight": torch.ones(2)}),
        "lightly": plain("timm_vit", vit(), prefix="backbone.vit.", around={"projection_head.layers.0.weight": torch.ones(2)}),
    }


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


def light() -> dict[str, Sample]:
    """All families that need no framework."""
    return {**timm_names(), **dinov2(), **rotary(), **beit(), **clip(), **augreg(), **torchvision_vit()}
