"""What the small files of families are made of: a sample, timm's networks, other names for their tensors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.models import vision_transformer as timm_vit
from torch import Tensor, nn

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
