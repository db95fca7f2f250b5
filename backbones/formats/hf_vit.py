"""transformers' ViTModel and its kin: ViT, DeiT, ViTMAE, ViTMSN and I-JEPA, bare or inside their heads."""

from backbones import naming
from backbones.families import Converted, Evidence
from backbones.formats import _hf, _hf_config
from backbones.formats._hf_config import Silent
from backbones.reading import RawCheckpoint

NAME = "transformers' ViT, DeiT, ViTMAE, ViTMSN, IJepa"
EVIDENCE = Evidence.NAMES

# Method of pretraining by `model_type`; a ViT or DeiT may be anything.
METHODS = {"vit": "unknown", "deit": "unknown", "vit_mae": "mae", "vit_msn": "msn", "ijepa": "ijepa"}
# transformers' ViTConfig and those made like it.
SILENT = Silent(norm_eps=1e-12, hidden_act="gelu")


def recognise(raw: RawCheckpoint) -> bool:
    """The names of transformers' ViT, without LayerScale and relative positions."""
    return _hf.kind_of(raw.state) == "vit"


def convert(raw: RawCheckpoint) -> Converted:
    """Put q, k and v together; DeiT's distillation token is a register."""
    config = _hf_config.settings(raw, METHODS)
    _hf.refuse_foreign(raw)
    translated = naming.translate(raw.path, raw.state, _hf.RULES, _hf.DROPPED)
    naming.fuse(translated)
    method = METHODS[config["model_type"]] if config else _method(raw)
    return _hf.plain(raw, translated, config, SILENT, method=method, patch_bias=True, final_norm=True)


def _method(raw: RawCheckpoint) -> str:
    """ViTMAE's decoder, which stands beside the network, gives it away."""
    return "mae" if any(name.startswith("decoder.decoder_") for name in raw.dropped) else "unknown"
