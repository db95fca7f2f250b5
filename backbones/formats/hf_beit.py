"""transformers' BeitModel and Data2VecVisionModel, bare or inside their heads (BEiT, arXiv 2106.08254)."""

from backbones import naming
from backbones.families import Converted, Evidence
from backbones.formats import _hf, _hf_config
from backbones.formats._hf_config import HALF, Silent
from backbones.reading import RawCheckpoint

NAME = "transformers' Beit, Data2VecVision"
EVIDENCE = Evidence.NAMES

METHODS = {"beit": "beit", "data2vec-vision": "data2vec"}
# transformers' BeitConfig and Data2VecVisionConfig; BEiT's own 22k weights take mean and std 0.5.
SILENT = Silent(norm_eps=1e-12, hidden_act="gelu", statistics=HALF)


def recognise(raw: RawCheckpoint) -> bool:
    """The names of transformers' ViT with `lambda_1`, with relative positions, or without a bias of the keys."""
    return _hf.kind_of(raw.state) == "beit"


def convert(raw: RawCheckpoint) -> Converted:
    """Put q, k and v together; the bias of the keys, which there is none of, is zero."""
    config = _hf_config.settings(raw, METHODS)
    _hf.refuse_foreign(raw)
    translated = naming.translate(raw.path, raw.state, _hf.RULES, _hf.DROPPED)
    naming.fuse(translated, zero_biases="k")
    method = METHODS[config["model_type"]] if config else "unknown"
    return _hf.plain(raw, translated, config, SILENT, method=method, patch_bias=True, class_token=True)
