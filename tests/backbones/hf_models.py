"""Small vision models of transformers, written to disk as transformers does."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

hf: Any = importlib.import_module("transformers")  # reading its names, all models' at once, takes pyright 10 seconds
SIZES: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
WIDE: dict[str, Any] = {"hidden_size": 768, "num_hidden_layers": 2, "num_attention_heads": 12, "image_size": 48, "patch_size": 16}


def _plain(**options: Any) -> dict[str, Any]:
    sizes = {**SIZES, **options}
    return {"intermediate_size": 3 * sizes["hidden_size"], **sizes}


def _clip(**options: Any) -> nn.Module:
    vision = _plain(**options)
    text: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 30,
    }
    return hf.CLIPModel(hf.CLIPConfig(vision_config=vision, text_config=text))


def _siglip(**options: Any) -> nn.Module:
    text: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 30,
    }
    return hf.SiglipModel(hf.SiglipConfig(vision_config=_plain(**options), text_config=text))


def _mae(kind: Callable[[Any], nn.Module], **options: Any) -> nn.Module:
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 32, "num_attention_heads": 2}
    decoder = {f"decoder_{name}": value for name, value in sizes.items()}
    return kind(hf.ViTMAEConfig(**_plain(**options), **decoder, mask_ratio=0.0))


# What is compared; named by transformers' class and what is special about its configuration.
MODELS: dict[str, Callable[..., nn.Module]] = {
    "ViTModel": lambda **o: hf.ViTModel(hf.ViTConfig(**_plain(**o))),
    "ViTModel-no-bias-tanh": lambda **o: hf.ViTModel(
        hf.ViTConfig(**_plain(qkv_bias=False, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-5, **o)), add_pooling_layer=False
    ),
    "ViTForImageClassification": lambda **o: hf.ViTForImageClassification(hf.ViTConfig(**_plain(**o))),
    "ViTForMaskedImageModeling": lambda **o: hf.ViTForMaskedImageModeling(hf.ViTConfig(encoder_stride=8, **_plain(**o))),
    "DeiTForImageClassification": lambda **o: hf.DeiTForImageClassification(hf.DeiTConfig(**_plain(**o))),
    "DeiTForImageClassificationWithTeacher": lambda **o: hf.DeiTForImageClassificationWithTeacher(hf.DeiTConfig(**_plain(**o))),
    "ViTMAEModel": lambda **o: _mae(hf.ViTMAEModel, **o),
    "ViTMAEForPreTraining": lambda **o: _mae(hf.ViTMAEForPreTraining, **o),
    "ViTMSNModel": lambda **o: hf.ViTMSNModel(hf.ViTMSNConfig(**_plain(**o))),
    "IJepaModel": lambda **o: hf.IJepaModel(hf.IJepaConfig(**_plain(**o))),
    "Dinov2Model": lambda **o: hf.Dinov2Model(hf.Dinov2Config(**{**SIZES, **o})),
    "Dinov2ForImageClassification-swiglu": lambda **o: hf.Dinov2ForImageClassification(
        hf.Dinov2Config(use_swiglu_ffn=True, **{**SIZES, **o})
    ),
    "Dinov2WithRegistersModel": lambda **o: hf.Dinov2WithRegistersModel(hf.Dinov2WithRegistersConfig(**{**SIZES, **o})),
    "Dinov2WithRegistersModel-swiglu": lambda **o: hf.Dinov2WithRegistersModel(
        hf.Dinov2WithRegistersConfig(use_swiglu_ffn=True, num_register_tokens=2, **{**SIZES, **o})
    ),
    "DINOv3ViTModel": lambda **o: hf.DINOv3ViTModel(hf.DINOv3ViTConfig(num_register_tokens=4, **_plain(**o))),
    "DINOv3ViTModel-gated": lambda **o: hf.DINOv3ViTModel(
        hf.DINOv3ViTConfig(
            num_register_tokens=2, use_gated_mlp=True, hidden_act="silu", query_bias=False, value_bias=False, **_plain(**o)
        )
    ),
    "BeitForImageClassification": lambda **o: hf.BeitForImageClassification(
        hf.BeitConfig(use_relative_position_bias=True, **_plain(**o))
    ),
    "BeitForMaskedImageModeling": lambda **o: hf.BeitForMaskedImageModeling(
        hf.BeitConfig(use_shared_relative_position_bias=True, use_mask_token=True, **{"vocab_size": 20, **_plain(**o)})
    ),
    "BeitModel-absolute": lambda **o: hf.BeitModel(
        hf.BeitConfig(use_absolute_position_embeddings=True, use_mean_pooling=False, layer_scale_init_value=0.0, **_plain(**o))
    ),
    "Data2VecVisionForImageClassification": lambda **o: hf.Data2VecVisionForImageClassification(
        hf.Data2VecVisionConfig(use_relative_position_bias=True, **_plain(**o))
    ),
    "Data2VecVisionModel-shared": lambda **o: hf.Data2VecVisionModel(
        hf.Data2VecVisionConfig(use_shared_relative_position_bias=True, use_mean_pooling=False, **_plain(**o))
    ),
    "CLIPVisionModel": lambda **o: hf.CLIPVisionModel(hf.CLIPVisionConfig(**_plain(**o))),
    "CLIPVisionModelWithProjection-gelu": lambda **o: hf.CLIPVisionModelWithProjection(
        hf.CLIPVisionConfig(hidden_act="gelu", **_plain(**o))
    ),
    "CLIPModel": _clip,
    "SiglipVisionModel": lambda **o: hf.SiglipVisionModel(hf.SiglipVisionConfig(**_plain(**o))),
    "SiglipModel": _siglip,
}
RELATIVE = {name for name in MODELS if name.startswith(("Beit", "Data2Vec")) and "absolute" not in name}
"""Those with relative positions, which transformers resizes unlike BEiT."""
# transformers' Dinov2WithRegisters resizes with antialiasing, the others without.
ANTIALIAS = {name for name in MODELS if "Registers" in name}


def make(name: str, **options: Any) -> nn.Module:
    """A model with seeded weights, none of which is at a special value such as 0 or 1."""
    torch.manual_seed(0)
    model = MODELS[name](**options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def save(model: nn.Module, folder: Path) -> str:
    """Write a folder as transformers does; its path as text."""
    cast(Any, model).save_pretrained(folder)
    return str(folder)


def vision(model: nn.Module) -> nn.Module:
    """The part of a model that takes images."""
    names = ("vision_model", "vit", "deit", "dinov2", "dinov2_with_registers", "beit", "data2vec_vision")
    return next((getattr(model, name) for name in names if hasattr(model, name)), model)


@torch.no_grad()
def tokens_of(model: nn.Module, images: Tensor, **options: Any) -> tuple[list[Tensor], Tensor]:
    """Tokens (B, N, C) after every block, and what the model makes of the last of them."""
    inner = vision(model)
    if "MAE" in type(inner).__name__:
        # Numbers that rise keep the patches in order.
        patch = cast(Any, inner).config.patch_size
        count = images.shape[-2] // patch * (images.shape[-1] // patch)
        options["noise"] = torch.arange(count).float().expand(len(images), -1)
    found: list[Any] = []
    layers = [module for module in inner.modules() if isinstance(module, GradientCheckpointingLayer)]
    hooks = [
        layer.register_forward_hook(lambda _, __, out: found.append(out[0] if type(out) is tuple else out)) for layer in layers
    ]
    last = inner(images, **options).last_hidden_state
    for hook in hooks:
        hook.remove()
    return found, last
