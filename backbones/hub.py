"""`timm:NAME`: pretrained weights of timm's catalogue, fetched as a file and then read like any other."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import hf_hub_download
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from backbones.families import Converted
from mae_bench.core.config import nearest
from mae_bench.core.errors import ConfigError, EnvironmentFault

WEIGHTS = "model.safetensors"


def timm_network(name: str) -> Any:
    """Make the network that a name in timm's catalogue means, without weights, and see that ours can stand in for it.

    Raises:
        ConfigError: an unknown name, or a network with parts that are not carried.
    """
    try:
        with torch.device("meta"):
            net: Any = timm.create_model(name)
    except (RuntimeError, ValueError) as error:
        architecture, _, tag = name.partition(".")
        known = timm.list_pretrained(f"{architecture}.*") if tag else timm.list_models(f"{architecture[:4]}*")
        hint = nearest(name, known) if known else "see timm.list_models()"
        raise ConfigError(f"timm:{name}: {str(error).rstrip('.')}; {hint}") from None
    if type(net) is not VisionTransformer:
        raise ConfigError(f"timm:{name} is a {type(net).__name__}; only timm's VisionTransformer is supported yet")
    block: Any = net.blocks[0]
    if not isinstance(net.norm_pre, nn.Identity) or type(block.mlp.act) is not nn.GELU:
        raise ConfigError(f"timm:{name} has a norm before its blocks or another activation than GELU, which is not supported yet")
    return net


def timm_file(name: str, net: Any) -> Path:
    """The file with the weights: from the cache of huggingface_hub, else downloaded into it.

    Raises:
        ConfigError: timm has no weights of that name.
        EnvironmentFault: the file is not in the cache and cannot be fetched.
    """
    repository = net.pretrained_cfg.get("hf_hub_id")
    if not repository:
        raise ConfigError(f"timm:{name} has no pretrained weights; see timm.list_pretrained('vit_*')")
    try:
        return Path(hf_hub_download(repository, net.pretrained_cfg.get("hf_hub_filename") or WEIGHTS))
    except OSError as error:
        raise EnvironmentFault(
            f"timm:{name}: cannot fetch {WEIGHTS} of {repository} ({type(error).__name__}); "
            "download it elsewhere and give its path instead: -m NAME=PATH/model.safetensors"
        ) from error


def with_facts(converted: Converted, net: Any) -> Converted:
    """Replace what the shapes of a file leave to guess by what timm knows: heads, epsilon, mean and std."""
    attention, cfg = net.blocks[0].attn, net.pretrained_cfg
    arch = converted.arch.model_copy(update={"num_heads": attention.num_heads, "norm_eps": net.blocks[0].norm1.eps})
    spec = replace(converted.spec, mean=tuple(cfg["mean"]), std=tuple(cfg["std"]))
    return replace(converted, arch=arch, spec=spec, notes=())
