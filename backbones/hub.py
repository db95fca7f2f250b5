"""`timm:NAME` and `hf:ORG/NAME`: published weights, fetched into huggingface_hub's cache and then read like any other file."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import timm
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from backbones import catalogue
from backbones.contract import Interpolation
from backbones.families import Converted
from backbones.reading import CONFIG, INDEX, PREPROCESSOR
from backbones.reading import WEIGHTS as WEIGHTS_OF_FOLDER
from mae_bench.core.config import nearest
from mae_bench.core.errors import ConfigError, EnvironmentFault, InputError

WEIGHTS = "model.safetensors"
NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def hf_folder(name: str) -> Path:
    """The folder of a model on huggingface.co: `config.json`, `preprocessor_config.json` and the weights.

    Files that are in the cache are not fetched again, downloads that were cut go on, and all files are of one commit. Without
    a connection the commit that was fetched last is used.

    Args:
        name: `ORG/NAME`.

    Raises:
        ConfigError: no such model, or one that has to be asked for.
        InputError: a model without weights that can be read.
        EnvironmentFault: the model is not in the cache and cannot be fetched.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"hf:{name}: a name on huggingface.co is ORG/NAME, such as hf:facebook/vit-mae-base")
    config = _optional(name, CONFIG, None)
    commit = config.parent.name if config else None
    for file in WEIGHTS_OF_FOLDER:
        found = _optional(name, file, commit)
        if found and file == INDEX:
            _fetch_shards(name, found)
        if found:
            _optional(name, PREPROCESSOR, found.parent.name, offline=True)
            return found.parent
    raise InputError(f"hf:{name}: has neither {' nor '.join(WEIGHTS_OF_FOLDER)}")


def _fetch_shards(name: str, index: Path) -> None:
    """Fetch the files that an index of tensors names; reading them checks the index itself."""
    try:
        places = {str(place) for place in json.loads(index.read_text())["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"hf:{name}: its {INDEX} names no files ({type(error).__name__})") from error
    for place in sorted(places):
        if _optional(name, place, index.parent.name) is None:
            raise InputError(f"hf:{name}: its {INDEX} names {place}, which is not there")


def _optional(name: str, file: str, commit: str | None, *, offline: bool = False) -> Path | None:
    """A file of a model; None where the model has none. `offline` says that it may also be out of reach."""
    try:
        return Path(hf_hub_download(name, file, revision=commit))
    except LocalEntryNotFoundError as error:
        if offline:
            return None
        raise _unreachable(f"hf:{name}", file, name, error, "PATH") from error
    except EntryNotFoundError:
        return None
    except GatedRepoError:
        raise ConfigError(f"hf:{name}: has to be asked for at https://huggingface.co/{name}; then run: hf auth login") from None
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise ConfigError(
            f"hf:{name}: no such model on huggingface.co, or a private one (then run: hf auth login); look at the spelling"
        ) from None
    except OSError as error:
        raise _unreachable(f"hf:{name}", file, name, error, "PATH") from error


def _unreachable(source: str, file: str, repository: str, error: OSError, path: str) -> EnvironmentFault:
    return EnvironmentFault(
        f"{source}: cannot fetch {file} of {repository} ({type(error).__name__}); "
        f"download it elsewhere and give its path instead: -m NAME={path}"
    )


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
    catalogue.check(f"timm:{name}", net)
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
    file = net.pretrained_cfg.get("hf_hub_filename") or WEIGHTS
    try:
        return Path(hf_hub_download(repository, file))
    except OSError as error:
        raise _unreachable(f"timm:{name}", file, repository, error, f"PATH/{file}") from error


def with_facts(where: object, converted: Converted, net: Any) -> Converted:
    """Replace what the shapes of a file leave to guess by what timm knows: heads, epsilon, activation, mean and std.

    Args:
        where: the file, for messages.
        converted: what its family made of it.
        net: timm's network that it is said to be of, on the meta device.

    Raises:
        InputError: the file is of a network of another size, or timm's settings resize images in a way that is not known.
    """
    spec, cfg = converted.spec, net.pretrained_cfg
    found = (spec.embed_dim, spec.depth, spec.patch_size)
    wanted = (net.embed_dim, len(net.blocks), net.patch_embed.patch_size[0])
    if found != wanted:
        shown = (f"width {width}, {depth} blocks and patches of {patch}" for width, depth, patch in (found, wanted))
        raise InputError(f"{where}: has {' and not '.join(shown)}; give the file of the network it is named for")
    arch = converted.arch.model_copy(update=catalogue.facts(net))
    spec = replace(spec, mean=tuple(cfg["mean"]), std=tuple(cfg["std"]), interpolation=_interpolation(where, cfg))
    return replace(converted, arch=arch, spec=spec, notes=tuple(note for note in converted.notes if "assumed" not in note))


def _interpolation(where: object, cfg: dict[str, Any]) -> Interpolation:
    told = cfg.get("interpolation") or "bicubic"
    if told not in get_args(Interpolation):
        raise InputError(f"{where}: its settings say interpolation {told!r}; known: {', '.join(get_args(Interpolation))}")
    return told
