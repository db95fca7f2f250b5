"""Files written by `backbones/save.py`: the header says what the network is, nothing is guessed."""

import json
from dataclasses import asdict

from pydantic import TypeAdapter

from backbones.contract import BackboneSpec
from backbones.families import Converted, Evidence
from backbones.reading import RawCheckpoint
from mae_bench.core import find
from mae_bench.core.config import Config, build
from mae_bench.core.errors import ConfigError, InputError

NAME = "mae-bench's own, as pretrain leaves it"
EVIDENCE = Evidence.HEADER

# The one key of the safetensors header. Not one a fact: safetensors writes several keys in an order that changes from run to
# run, and the same weights would have another SHA-256 each time.
KEY = "mae_bench"


def header(zoo: str, arch: Config, spec: BackboneSpec) -> dict[str, str]:
    """Metadata of a file to write."""
    told = asdict(spec)
    # The usual one is not written, so that the same weights have the same bytes as before there was a choice.
    if spec.interpolation == "bicubic":
        del told["interpolation"]
    return {KEY: json.dumps({"zoo": zoo, "arch": arch.model_dump(mode="json"), "spec": told}, sort_keys=True)}


def recognise(raw: RawCheckpoint) -> bool:
    """A header of ours."""
    return KEY in raw.metadata


def convert(raw: RawCheckpoint) -> Converted:
    """Read the architecture from the header."""
    try:
        facts = json.loads(raw.metadata[KEY])
        zoo = find.load("backbones.zoo", facts["zoo"], what="architecture family")
        arch = build(zoo.Arch, facts["arch"], where="arch")
        told = TypeAdapter(BackboneSpec).validate_python(facts["spec"])
        # Sizes are those of the architecture, whatever the header's spec says of them.
        spec = zoo.spec_of(
            arch,
            mean=told.mean,
            std=told.std,
            method=told.method,
            pretrain_data=told.pretrain_data,
            interpolation=told.interpolation,
        )
        if spec.depth > len(raw.state):
            raise ValueError(f"{spec.depth} blocks in {len(raw.state)} tensors")
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        why = str(error).splitlines()[0]
        raise InputError(f"{raw.path}: its header does not describe a network of this version ({why})") from error
    return Converted(facts["zoo"], arch, spec, raw.state)
