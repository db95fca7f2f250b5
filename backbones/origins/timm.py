"""timm: its VisionTransformer, Beit or Eva, filled through its own filters of other programs' files.

A SRC that names a model of timm's is compared with that very model; a file with a network of its sizes.
"""

from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from backbones import released
from backbones.arch import Arch, VitArch
from backbones.exports.timm import beit_arguments
from backbones.origins import Network, fill, listen, state_of
from backbones.source import Source
from backbones.vit import make_net
from backbones.zoo import vit

# timm's names of the published sizes: for these, heads, widths and epsilon are timm's too, not read from the file. Without a
# class token there are networks of 12 and of 16 heads of the same sizes (vit_base_patch16_gap_224), so none is taken.
PUBLISHED = {
    "vit_tiny_patch16": "vit_tiny_patch16_224",
    "vit_small_patch16": "vit_small_patch16_224",
    "vit_base_patch16": "vit_base_patch16_224",
    "vit_large_patch16": "vit_large_patch16_224",
    "vit_huge_patch14": "vit_huge_patch14_224",
}
NAMED = ("blocks.0.attn.qkv.weight", "blocks.0.attn.q_proj.weight", "transformer.resblocks.0.attn.in_proj_weight")


def fits(source: Source) -> bool:
    """Names of timm, of those that took them over (MAE, DINO, MoCo v3, DINOv2, BEiT), or of OpenAI's CLIP; and random weights."""
    return source.raw is None or any(name in source.raw.state for name in NAMED)


def network(source: Source) -> Network:
    """See `Origin.network`."""
    net, filter_state = _make(source)
    # The suite's Eva is timm's class, but for drawing weights that are replaced at once.
    kind = "Eva" if not isinstance(source.arch, VitArch) else type(net).__name__
    what = f"timm's {kind}"
    fill(net, filter_state(_state(source), net), what)
    net.eval()

    def blocks(images: Tensor) -> list[Tensor]:
        return listen(list(net.blocks), lambda: net.forward_features(images))

    # timm resizes Beit's tables by another rule than BEiT's own code, which the suite follows.
    return Network(what, blocks, any_size=kind != "Beit")


def _make(source: Source) -> tuple[Any, Any]:
    """The network without weights, and timm's filter of files for it."""
    arch, name = source.arch, _named(source)
    if name:
        return _by_name(name, source)
    if not isinstance(arch, VitArch):
        return _eva(source)
    if arch.relative in ("table", "shared_table"):
        from timm.models import beit

        return beit.Beit(**beit_arguments(arch), norm_layer=cast(Any, partial(nn.LayerNorm, eps=arch.norm_eps))), (
            beit.checkpoint_filter_fn
        )
    from timm.models import vision_transformer

    return _plain(arch), vision_transformer.checkpoint_filter_fn


def _named(source: Source) -> str:
    """The model of timm's that SRC names; empty where it names none."""
    text = source.text.partition("#")[0]
    release = released.releases().get(text)
    return release.timm if release else text.removeprefix("timm:") if text.startswith("timm:") else ""


def _by_name(name: str, source: Source) -> tuple[Any, Any]:
    """A model of timm's with none of its sizes read from the file."""
    import timm
    from timm.models import beit, eva, vision_transformer

    arch = cast(Arch, source.arch)
    filters: Any = beit if getattr(arch, "relative", "none") != "none" else vision_transformer
    filters = filters if isinstance(arch, VitArch) else eva
    # timm's Beit takes no size but its own.
    size: dict[str, Any] = {} if filters is beit else {"dynamic_img_size": True}
    net = timm.create_model(name, num_classes=0, global_pool="token" if arch.class_token else "avg", **size)
    # They stand after the blocks, where nothing is compared, and the file may have them under other names.
    net.norm = net.fc_norm = net.attn_pool = nn.Identity()
    return net, filters.checkpoint_filter_fn


def _plain(arch: VitArch) -> Any:
    import timm

    sizes = PUBLISHED.items() if arch.class_token else ()
    size = next((timms for ours, timms in sizes if _same_size(arch, vit.VARIANTS[ours])), None)
    if size is None:
        return make_net(arch)
    return timm.create_model(
        size,
        img_size=arch.image_size,
        num_classes=0,
        global_pool="",
        class_token=arch.class_token,
        reg_tokens=arch.num_registers,
        no_embed_class=not arch.prefix_positions,
        pos_embed="learn" if arch.positions else "none",
        pre_norm=arch.pre_norm,
        init_values=1.0 if arch.layer_scale else None,
        qkv_bias=arch.qkv_bias,
        qk_norm=arch.qk_norm,
        final_norm=arch.final_norm,
        dynamic_img_size=True,
        **({"act_layer": arch.mlp, "norm_layer": partial(nn.LayerNorm, eps=arch.norm_eps)} if arch.pre_norm else {}),
    )


def _same_size(arch: VitArch, published: VitArch) -> bool:
    return all(getattr(arch, name) == getattr(published, name) for name in ("embed_dim", "depth", "patch_size", "mlp_dim")) and (
        arch.mlp == "gelu" or arch.pre_norm
    )


def _eva(source: Source) -> tuple[Any, Any]:
    from timm.models import eva

    from backbones.eva import make_net as make_eva

    return make_eva(cast(Any, source.arch)), eva.checkpoint_filter_fn


def _state(source: Source) -> dict[str, Tensor]:
    """The file's tensors as timm's filter expects them."""
    state = state_of(source)
    if "class_embedding" in state:
        return {f"visual.{name}": tensor for name, tensor in state.items()}
    # The filter takes any file with a mask token for DINOv2's, MAE's full files among them.
    dinov2 = "mask_token" in state and "blocks.0.ls1.gamma" in state
    return {
        name: tensor for name, tensor in state.items() if name not in source.ledger.dropped or (dinov2 and name == "mask_token")
    }
