"""Where among the tensors of a file the network is, and what the tensors around it are.

Training programs save the network inside something: a detector, a method with its projection heads, a momentum copy beside it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from backbones.ledger import first
from mae_bench.core.errors import InputError

# How the families call the weight that turns patches into tokens; every Vision Transformer has it once.
MARKS = (
    "patch_embed.proj.weight",  # timm, MAE, DINO, MoCo v3, BEiT, Detectron2
    "patch_embed.projection.weight",  # mmpretrain, mmseg
    "embeddings.patch_embeddings.projection.weight",  # transformers: ViT, ViTMAE, Dinov2, Beit, Data2Vec
    "embeddings.patch_embeddings.weight",  # transformers: DINOv3
    "embeddings.patch_embedding.weight",  # transformers: CLIP
    "conv1.weight",  # OpenAI's CLIP, open_clip
    "conv_proj.weight",  # torchvision
    "embedding/kernel",  # JAX: AugReg, the ViT paper
)
# A ResNet has one of its own.
NEEDS = {"conv1.weight": "class_embedding"}

# Parts of the network that a program keeps beside it, by its prefix: the last norm in transformers' BeitForMaskedImageModeling.
BESIDE = {"beit.": ("layernorm.weight", "layernorm.bias")}

# Copies that are not the network, where another one is there: moving averages (MoCo v3, BYOL, solo-learn, lightly, timm).
COPIES = r"(^|[._])(momentum|ema|target)(_|\.|$)|_momentum(\.|$)"

# What training programs put before all names.
OUTER = r"(?:(?:module|model|_orig_mod)\.)*"

AROUND = {
    r"(^|\.)target_generator\.": "what computes the targets of the pretraining",
    COPIES: "a moving average of the network, or a part of one",
    r"(^|[._])decoder": "decoder of the pretraining",
    r"projector|projection_head|(^|\.)proj_head": "projection head of the pretraining",
    r"predictor|prediction_head": "prediction head of the pretraining",
    r"(^|\.)(prototypes?|queue\w*|center|dino_loss|ibot_head|dino_head)(\.|$)": "part of the pretraining's loss",
    r"(^|\.)simfp_\d|(^|\.)neck\.|(^|\.)fpn": "feature pyramid or neck",
    r"(^|\.)(proposal_generator|roi_heads|rpn_head|bbox_head)\.|^pixel_(mean|std)$": "part of a detector",
    r"(^|\.)(decode_head|auxiliary_head)\.": "part of a segmentor",
    rf"^{OUTER}(text_model|transformer|text|token_embedding|ln_final)\.": "text tower",
    rf"^{OUTER}(text_projection|positional_embedding|logit_scale|logit_bias)": "text tower",
    rf"^{OUTER}(input_resolution|context_length|vocab_size)$": "a number that CLIP's files keep",
    rf"^{OUTER}visual_projection\.": "projection to the text tower's space",
    r"(^|[._])(head|heads|classifier|fc|linear)(\.|_|$)": "head of the pretraining or of a classifier",
    r"(^|\.)(mask_token|data_preprocessor)": "part of the pretraining",
}
"""Reasons to leave tensors around the network out, by pattern; the first that fits is given."""


@dataclass(frozen=True)
class Located:
    """The network among the tensors of a file."""

    prefix: str
    """What the names of its tensors began with."""
    state: dict[str, Tensor]
    """Its tensors, by their names without the prefix."""
    around: dict[str, str]
    """Tensors left out, with the reason."""
    unexplained: tuple[str, ...] = ()
    """Tensors outside that nobody knows the purpose of."""


def locate(where: object, state: Mapping[str, Tensor], prefix: str = "") -> Located:
    """Find the network in the tensors of a file; a file without one that is known is given back as it is.

    Args:
        where: the file, for messages.
        state: its tensors.
        prefix: take the network whose names begin with these parts, when there are several.

    Raises:
        InputError: several networks, none of which is the copy of another.
    """
    networks = prefixes(state)
    found = [name for name in networks if begins(name, prefix)]
    found = [name for name in found if not re.search(COPIES, name)] or found
    if len(found) > 1:
        raise InputError(
            f"{where}: {len(found)} networks in it ({first(found)}); choose one: add #ckpt_key={found[0].rstrip('.')}"
        )
    if not found and prefix:
        raise InputError(f"{where}: no Vision Transformer that is known under {prefix!r}; the names are {first(list(state))}")
    if not found:
        return Located("", dict(state), {})
    inside = {name.removeprefix(found[0]): tensor for name, tensor in state.items() if name.startswith(found[0])}
    beside = {name: state[name] for name in BESIDE.get(found[0], ()) if name in state}
    inside |= beside
    outside = [name for name in state if not name.startswith(found[0]) and name not in beside]
    # A network that was not chosen is explained by the choice.
    others = tuple(name for name in networks if prefix and name and name != found[0])
    reasons = {name: "another network of the file" if name.startswith(others) else _reason(name) for name in outside}
    return Located(
        found[0],
        inside,
        {name: why for name, why in reasons.items() if why},
        tuple(name for name, why in reasons.items() if not why),
    )


def begins(name: str, prefix: str) -> bool:
    """Whether a name begins with whole parts of another; parts end with a dot, in JAX with a slash."""
    prefix = prefix.rstrip("./")
    return not prefix or name.startswith((f"{prefix}.", f"{prefix}/"))


def prefixes(names: Iterable[str]) -> list[str]:
    """What stands before the mark of a network, for each there is."""
    names = set(names)
    found = {name.removesuffix(mark): mark for mark in MARKS for name in names if _ends(name, mark)}
    return sorted(prefix for prefix, mark in found.items() if mark not in NEEDS or prefix + NEEDS[mark] in names)


def _ends(name: str, mark: str) -> bool:
    return name.endswith(mark) and (name == mark or name[-len(mark) - 1] in "./")


def _reason(name: str) -> str:
    return next((why for pattern, why in AROUND.items() if re.search(pattern, name)), "")
