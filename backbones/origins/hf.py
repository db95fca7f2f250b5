"""transformers: the model that `config.json` names, filled as its own `from_pretrained` fills it."""

import logging
from typing import Any

from torch import Tensor, nn

from backbones.contract import DenseOptions
from backbones.origins import Network, listen, state_of
from backbones.source import Source
from mae_bench.core.errors import InputError

# Models whose positions other sizes change by another rule than the suite's (`antialias`), or not at all.
ANTIALIASED = ("dinov2_with_registers", "dinov3_vit")
FIXED = ("beit", "data2vec-vision", "vit_mae")
POOLERS = ("pooler.", "head.")
NAMED = (
    "embeddings.patch_embeddings.projection.weight",
    "embeddings.patch_embedding.weight",
    "embeddings.patch_embeddings.weight",
)


def fits(source: Source) -> bool:
    """Names of transformers' vision models."""
    return source.raw is not None and any(name in source.raw.state for name in NAMED)


def network(source: Source) -> Network:
    """See `Origin.network`."""
    from transformers.models.auto import AutoConfig, AutoModel

    told = dict(source.raw_facts["config"])
    if not told:
        raise InputError(f"{source.text}: transformers needs the config.json of the model; give the folder that has both")
    told = told.get("vision_config", told)
    config = AutoConfig.for_model(told.pop("model_type"), **told)
    model_type = config.model_type
    if model_type == "vit_mae":
        config.mask_ratio = 0.0
    kind: Any = AutoModel._model_mapping[type(config)]  # pyright: ignore[reportAttributeAccessIssue]
    net = _filled(kind, config, state_of(source))
    layers = next(part for part in net.modules() if isinstance(part, nn.ModuleList) and len(part) == source.spec.depth)
    interpolate = (
        {"interpolate_pos_encoding": True} if model_type in ("vit", "deit", "clip_vision_model", "siglip_vision_model") else {}
    )

    def blocks(images: Tensor) -> list[Tensor]:
        own = {"noise": _in_order(net, images)} if model_type == "vit_mae" else interpolate
        return listen(list(layers), lambda: net(images, **own))

    options = DenseOptions(antialias=model_type in ANTIALIASED)
    return Network(f"transformers' {kind.__name__}", blocks, model_type not in FIXED, options)


def _filled(kind: Any, config: Any, state: dict[str, Tensor]) -> Any:
    from transformers.utils import logging as theirs

    log = logging.getLogger("transformers")
    before = log.level
    # It tells of a pooler that it draws at random, which nothing here looks at.
    log.setLevel(logging.ERROR)
    bars = theirs.is_progress_bar_enabled()
    theirs.disable_progress_bar()
    try:
        net, told = kind.from_pretrained(None, config=config, state_dict=state, output_loading_info=True)
    finally:
        log.setLevel(before)
        if bars:
            theirs.enable_progress_bar()
    missing = sorted(name for name in told["missing_keys"] if not name.startswith(POOLERS))
    if missing or told["mismatched_keys"]:
        raise InputError(
            f"transformers' {kind.__name__} does not find {(missing or sorted(told['mismatched_keys']))[0]} in the file"
        )
    return net.eval()


def _in_order(net: Any, images: Tensor) -> Tensor:
    """Noise that MAE's shuffling of patches leaves in order."""
    patch = net.config.patch_size
    count = (images.shape[-2] // patch) * (images.shape[-1] // patch)
    return images.new_ones(1, count).cumsum(1)
