"""Depth of every parameter of any model with a backbone somewhere inside it, for layer-wise learning rate decay.

Detectron2 and mmsegmentation know layers by their own parameter names and would silently give a wrapped backbone a scale of 1;
here the backbone itself is asked.
"""

from collections.abc import Callable

from torch import nn

from backbones.contract import Backbone


def find_backbone(model: nn.Module) -> tuple[str, Backbone]:
    """Find the backbone inside a model, however deep it is wrapped.

    Frozen copies (the teachers of self-distillation) do not count where one backbone is trained.

    Returns:
        The prefix of its parameters' names (`""`, or with a dot at the end), and the backbone.

    Raises:
        ValueError: no backbone, or several.
    """
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, Backbone)]
    if len(found) > 1:
        trained = [entry for entry in found if any(parameter.requires_grad for parameter in entry[1].parameters())]
        found = trained or found
    if len(found) != 1:
        names = ", ".join(name or "the model itself" for name, _ in found) or "none"
        raise ValueError(f"a {type(model).__name__} with one backbone is needed; backbones in it: {names}")
    name, backbone = found[0]
    return (f"{name}." if name else ""), backbone


def layer_ids(model: nn.Module) -> tuple[Callable[[str], int], int]:
    """Give the function from a parameter's name in `model` to its `layer_id`, and the depth of the backbone.

    Parameters outside the backbone (heads, necks) get depth + 1, which is a learning rate scale of 1.
    """
    prefix, backbone = find_backbone(model)
    depth = backbone.spec.depth

    def layer_id(name: str) -> int:
        return backbone.layer_id(name.removeprefix(prefix)) if name.startswith(prefix) else depth + 1

    return layer_id, depth
