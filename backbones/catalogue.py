"""Whether a network here can stand in for one of timm's: the same parts in the same places, compared one by one."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from timm.layers.activations import GELU, GELUTanh, QuickGELU
from timm.layers.layer_scale import LayerScale
from timm.layers.mlp import GluMlp, SwiGLU
from timm.models.beit import Attention as BeitAttention
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from backbones.families import Converted, Family
from backbones.ledger import first
from backbones.reading import RawCheckpoint
from backbones.windows import GridAttention
from backbones.zoo import Zoo
from mae_bench.core import find
from mae_bench.core.errors import ConfigError, InputError

# Classes of timm, and the file in `formats/` that reads theirs.
FORMATS: dict[type, str] = {
    VisionTransformer: "timm_vit",
    VisionTransformerDistilled: "timm_vit",
    Beit: "beit",
    Eva: "timm_eva",
}
ACTIVATIONS: dict[type, str] = {GELU: "gelu", GELUTanh: "gelu_tanh", QuickGELU: "quick_gelu", nn.SiLU: "silu"}

# Parts that belong to a head, parts that do nothing without training, and those that only hold others.
HEAD = ("head", "head_dist", "head_drop", "fc_norm", "attn_pool")
IDLE = (nn.Identity, nn.Dropout)
HOLDERS = (nn.Sequential, nn.ModuleList)
# Sizes of the images and how they are checked, not what is computed.
UNIMPORTANT = {"training", "fused_attn", "img_size", "grid_size", "num_patches", "strict_img_size", "output_fmt", "flatten"}
UNIMPORTANT |= {"init_values", "feat_shape"}


def facts(net: Any) -> dict[str, Any]:
    """Fields of an architecture that no tensor shows, as timm knows them."""
    block = net.blocks[0]
    found = {"num_heads": block.attn.num_heads, "norm_eps": block.norm1.eps}
    act = _activation(getattr(block.mlp, "act", None))
    return {**found, "mlp": act} if act in ("gelu_tanh", "quick_gelu") else found


def check(where: str, net: Any) -> None:
    """See that a network here computes what one of timm's does; weights are not looked at.

    Args:
        where: for messages.
        net: timm's, on the meta device.

    Raises:
        ConfigError: names the first part that is another.
    """
    if type(net) not in FORMATS:
        known = ", ".join(kind.__name__ for kind in FORMATS)
        raise ConfigError(f"{where} is a {type(net).__name__}, which is not supported; of timm's networks these are: {known}")
    try:
        converted = _described(where, net)
        zoo = cast(Zoo, find.load("backbones.zoo", converted.zoo, what="architecture family"))
        ours = zoo.empty(converted.arch.model_copy(update=facts(net)), converted.spec)
    except (InputError, AttributeError) as error:
        raise ConfigError(f"{where} is not supported: {str(error).removeprefix(f'{where}: ')}") from None
    wanted = zoo.weights_of(ours)
    other = list(wanted.keys() ^ converted.state.keys())
    other += [name for name in wanted if name in converted.state and wanted[name].shape != converted.state[name].shape]
    differences = [f"tensors {first(sorted(other))}"] if other else list(_differences(cast(Any, ours).net, net))
    if differences:
        raise ConfigError(f"{where} has parts that are not supported: {differences[0]}")


def _described(where: str, net: Any) -> Converted:
    """What the file of a network would be read as, from the names and shapes of its tensors alone."""
    family = cast(Family, find.load("backbones.formats", FORMATS[type(net)], what="format"))
    return family.convert(RawCheckpoint(Path(where), "", dict(net.state_dict())))


def _differences(ours: nn.Module, theirs: nn.Module) -> Iterator[str]:
    """What one network has and the other has not, part by part."""
    mine, other = _parts(ours), _parts(theirs)
    for name in sorted(mine.keys() | other.keys()):
        one, two = mine.get(name), other.get(name)
        if _is_other_spelling(name, mine, other):
            continue
        if one is None or two is None:
            yield f"{name} is {_told(two)} there and {_told(one)} here"
        elif isinstance(two, BeitAttention) and isinstance(one, GridAttention):
            if one.num_heads != two.num_heads:
                yield f"{name} has {two.num_heads} heads"
        elif not _same(name, one, two, without_bias=isinstance(theirs, Beit) and name.endswith(".qkv")):
            yield f"{name} is {_told(two)} there and {_told(one)} here"


def _is_other_spelling(name: str, mine: dict[str, nn.Module], other: dict[str, nn.Module]) -> bool:
    """Whether a part is the same under another name: LayerScale as tensors of a block, gate and value as two layers."""
    if re.search(r"\.ls[12]$", name):
        return name not in other and isinstance(mine[name], LayerScale)
    mlp = re.fullmatch(r"(blocks\.\d+\.mlp)(\.fc1|\.fc1_g|\.fc1_x)?", name)
    gated = other.get(mlp[1]) if mlp else None
    return bool(mlp) and isinstance(gated, SwiGLU) and isinstance(gated.norm, nn.Identity) and isinstance(mine[mlp[1]], GluMlp)


def _parts(net: nn.Module) -> dict[str, nn.Module]:
    """Parts by name that matter to what the blocks give."""
    return {
        name: part
        for name, part in net.named_modules()
        if name and name.partition(".")[0] not in HEAD and not isinstance(part, (*IDLE, *HOLDERS))
    }


def _same(name: str, one: nn.Module, two: nn.Module, *, without_bias: bool) -> bool:
    if _activation(one) or _activation(two):
        return _activation(one) == _activation(two)
    if isinstance(one, nn.LayerNorm) and isinstance(two, nn.LayerNorm):
        return one.extra_repr() == two.extra_repr()
    # Beit's has a bias of its own for queries and for values, which the tensors were compared for.
    if without_bias and isinstance(one, nn.Linear) and isinstance(two, nn.Linear):
        return one.weight.shape == two.weight.shape
    numbers, others = _numbers(one), _numbers(two)
    same = all(numbers[key] == others[key] for key in numbers.keys() & others.keys())
    return type(one).__name__ == type(two).__name__ and one.extra_repr() == two.extra_repr() and same


def _numbers(part: nn.Module) -> dict[str, Any]:
    """Plain values that a part keeps: heads, bases of wavelengths, grids."""
    kinds = (int, float, str, tuple, type(None))
    names = [name for name in vars(part) if not name.startswith("_") and name not in UNIMPORTANT]
    return {name: value for name in names if isinstance(value := getattr(part, name), kinds)}


def _activation(part: nn.Module | None) -> str:
    if isinstance(part, nn.GELU):
        return "gelu" if part.approximate == "none" else "gelu_tanh"
    return ACTIVATIONS.get(type(part), "")


def _told(part: nn.Module | None) -> str:
    return "missing" if part is None else f"{type(part).__name__}({part.extra_repr()})"
