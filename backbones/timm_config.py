"""`config.json` of timm, as it stands beside its weights on huggingface.co: the architecture by name, mean and std."""

from typing import Any

import timm
import torch

from backbones import catalogue, hub
from backbones.families import Converted
from backbones.reading import RawCheckpoint
from mae_bench.core.errors import ConfigError, InputError

# What `model_args` may say: sizes and parts. None of it makes timm open or fetch a file.
ARGUMENTS = {"img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias", "qk_norm", "init_values"}
ARGUMENTS |= {"class_token", "reg_tokens", "no_embed_class", "pre_norm", "global_pool", "fc_norm", "final_norm", "num_classes"}
ARGUMENTS |= {"dynamic_img_size", "dynamic_img_pad", "drop_rate", "drop_path_rate", "pos_drop_rate", "attn_drop_rate"}


def is_timms(raw: RawCheckpoint) -> bool:
    """Whether the settings beside a file are timm's."""
    return isinstance(raw.config.get("architecture"), str) and "model_type" not in raw.config


def with_config(raw: RawCheckpoint, converted: Converted) -> Converted:
    """Replace what the shapes of a file leave to guess by what its `config.json` says.

    Raises:
        InputError: a `config.json` that names no network that can be read here, or one of another size than the tensors.
    """
    net = _network(raw)
    # Older files keep mean and std beside the architecture.
    told = raw.config.get("pretrained_cfg", raw.config)
    if not isinstance(told, dict):
        raise InputError(f"{raw.path}: its config.json says pretrained_cfg {told!r}; settings by name are needed")
    for key in ("mean", "std"):
        if key in told:
            net.pretrained_cfg[key] = _rgb(raw, key, told[key])
    if "interpolation" in told:
        net.pretrained_cfg["interpolation"] = told["interpolation"]
    return hub.with_facts(raw.path, converted, net)


def _network(raw: RawCheckpoint) -> Any:
    """Timm's network on the meta device."""
    name, arguments = raw.config["architecture"], raw.config.get("model_args", {})
    where = f"{raw.path}: the network of its config.json, timm's {name}"
    if not timm.is_model(name):
        raise InputError(
            f"{where}, is none that this timm ({timm.__version__}) knows; take config.json away to go by the tensors"
        )
    if not isinstance(arguments, dict) or not arguments.keys() <= ARGUMENTS:
        other = sorted(set(arguments) - ARGUMENTS)[0] if isinstance(arguments, dict) else arguments
        raise InputError(
            f"{where}, is made with model_args {other!r}, which is not supported; known: {', '.join(sorted(ARGUMENTS))}"
        )
    try:
        with torch.device("meta"):
            net: Any = timm.create_model(name, **arguments)
        catalogue.check(where, net)
    except ConfigError as error:
        raise InputError(str(error)) from None
    # timm ends at arguments that do not fit with many types of exception.
    except Exception as error:
        raise InputError(f"{where}, cannot be made ({type(error).__name__}: {str(error)[:100]})") from error
    net.pretrained_cfg = dict(net.pretrained_cfg)
    return net


def _rgb(raw: RawCheckpoint, key: str, values: Any) -> tuple[float, ...]:
    good = isinstance(values, list) and len(values) == 3 and all(type(value) in (int, float) for value in values)
    if not good or (key == "std" and min(values) <= 0):
        raise InputError(f"{raw.path}: its config.json says {key} {values!r}; three numbers are needed")
    return tuple(float(value) for value in values)
