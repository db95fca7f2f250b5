"""transformers' ViTModel and its kin: ViT, DeiT, ViTMAE, ViTMSN and I-JEPA, bare or inside their heads."""

from backbones import hf, hf_config, naming
from backbones.families import Converted, Evidence
from backbones.hf_config import Silent
from backbones.reading import RawCheckpoint

NAME = "transformers' ViT, DeiT, ViTMAE, ViTMSN, IJepa"
EVIDENCE = Evidence.NAMES

# Method of pretraining by `model_type`; a ViT or DeiT may be anything.
METHODS = {"vit": "unknown", "deit": "unknown", "vit_mae": "mae", "vit_msn": "msn", "ijepa": "ijepa"}
# transformers' ViTConfig and those made like it.
SILENT = Silent(norm_eps=1e-12, hidden_act="gelu")


def recognise(raw: RawCheckpoint) -> bool:
    """The names of transformers' ViT, without LayerScale and relative positions."""
    return hf.kind_of(raw.state) == "vit"


def convert(raw: RawCheckpoint) -> Converted:
    """Put q, k and v together; DeiT's distillation token is a register."""
    config = hf_config.settings(raw, METHODS)
    hf.refuse_foreign(raw)
    translated = naming.translate(raw.path, raw.state, hf.RULES, hf.DROPPED)
    naming.fuse(translated)
    method = METHODS[config["model_type"]] if config else _method(raw)
    return hf.converted(raw, translated, config, SILENT, method=method)


def _method(raw: RawCheckpoint) -> str:
    """ViTMAE's decoder, which stands beside the network, gives it away."""
    return "mae" if any(name.startswith("decoder.decoder_") for name in raw.dropped) else "unknown"
