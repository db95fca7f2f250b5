"""`hf:ORG/NAME` against a server that answers as huggingface.co does, and without one."""

import hashlib
import io
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import huggingface_hub.constants
import pytest
import safetensors.torch
import torch

from backbones import hub
from backbones.export import export
from backbones.source import open_source
from mae_bench.core.errors import ConfigError, EnvironmentFault, InputError
from tests.backbones.hf_models import make, save

pytestmark = pytest.mark.slow

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """Files of one model, `org/model`; another one has to be asked for, the rest do not exist."""

    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[tuple[str, str]]] = []
    promised: ClassVar[dict[str, str]] = {}
    """SHA-256 that is stated for a file instead of its own."""
    cut: ClassVar[set[str]] = set()
    """Files whose next download ends in the middle."""
    ranges: ClassVar[list[str]] = []

    def answer(self, *, body: bool) -> None:
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        name, file = (match[1], match[3]) if match else ("", "")
        if file:
            self.asked.append((self.command, file))
        content = self.files.get(file) if name == "org/model" else None
        if content is None:
            error = "GatedRepo" if name == "org/gated" else "EntryNotFound" if name == "org/model" else "RepoNotFound"
            self.send_response(403 if name == "org/gated" else 404)
            self.send_header("X-Error-Code", error)
            if name == "org/model":
                self.send_header("X-Repo-Commit", COMMIT)
            content = b""
        else:
            etag = self.promised.get(file) or hashlib.sha256(content).hexdigest()
            content = self.part_of(content)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{etag}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body and file in self.cut:
            self.cut.remove(file)
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        elif body:
            self.wfile.write(content)

    def part_of(self, content: bytes) -> bytes:
        """The whole, or what is asked for of it."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked or self.command == "HEAD":
            self.send_response(200)
            return content
        self.ranges.append(self.headers["Range"])
        first, last = int(asked[1]), int(asked[2] or len(content) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        return content[first : last + 1]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    """The handler whose files are served; the cache is an empty folder."""
    Hub.files, Hub.asked, Hub.promised, Hub.cut, Hub.ranges = {}, [], {}, set(), []
    http = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{http.server_address[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield Hub
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def offline(monkeypatch):
    """Switch the connection off, as HF_HUB_OFFLINE=1 does."""
    return lambda: monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def model(tmp_path):
    """Files of a model by name."""
    folder = tmp_path / "written"
    save(make("ViTModel", num_hidden_layers=1), folder)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}')
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_model_is_fetched_once_and_read_from_the_cache_without_a_connection(server, model, offline):
    server.files = model | {"pytorch_model.bin": b"never fetched", "README.md": b"neither"}
    source = open_source("hf:org/model")
    assert source.name == "org_model" and source.spec.mean == (0.1, 0.2, 0.3) and source.spec.depth == 1
    fetched = [file for command, file in server.asked if command == "GET"]
    assert sorted(fetched) == ["config.json", "model.safetensors", "preprocessor_config.json"]
    open_source("hf:org/model")
    assert [file for command, file in server.asked if command == "GET"] == fetched
    offline()
    server.asked.clear()
    assert open_source("hf:org/model").sha256 == source.sha256 and not server.asked


def test_files_that_a_model_does_not_have_are_done_without(server, model, offline):
    server.files = {"model.safetensors": model["model.safetensors"], "config.json": model["config.json"]}
    assert any("no preprocessor_config.json" in note for note in open_source("hf:org/model").ledger.notes)
    offline()
    assert open_source("hf:org/model").spec.depth == 1


def test_older_weights_are_taken_where_there_are_no_safetensors(server, model):
    written = io.BytesIO()
    torch.save(safetensors.torch.load(model.pop("model.safetensors")), written)
    server.files = model | {"pytorch_model.bin": written.getvalue()}
    assert hub.hf_folder("org/model").joinpath("pytorch_model.bin").exists()
    assert open_source("hf:org/model").spec.depth == 1


def test_weights_in_several_files_are_fetched_all(server, model):
    state = safetensors.torch.load(model.pop("model.safetensors"))
    halves = {"model-1.safetensors": list(state)[::2], "model-2.safetensors": list(state)[1::2]}
    parts = {file: safetensors.torch.save({name: state[name] for name in names}) for file, names in halves.items()}
    index = json.dumps({"weight_map": {name: file for file, names in halves.items() for name in names}}).encode()
    server.files = model | parts | {"model.safetensors.index.json": index}
    assert open_source("hf:org/model").spec.depth == 1


def test_an_index_that_names_absent_files_is_refused(server, model):
    del model["model.safetensors"]
    server.files = model | {"model.safetensors.index.json": b'{"weight_map": {"a": "gone.safetensors"}}'}
    with pytest.raises(InputError, match=r"names gone\.safetensors, which is not there"):
        open_source("hf:org/model")


def test_a_download_whose_connection_is_cut_goes_on_where_it_stopped(server, model, monkeypatch):
    """But for the rest of a part of the file, of which huggingface_hub writes one at a time, 10 MB else."""
    part = 1000
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", part)
    server.files, server.cut = model, {"model.safetensors"}
    source = open_source("hf:org/model")
    whole = model["model.safetensors"]
    assert source.raw_facts["sha256"] == hashlib.sha256(whole).hexdigest()
    assert server.ranges == [f"bytes={len(whole) // 2 // part * part}-"]


def test_C17_a_download_that_is_not_what_the_server_says_is_refused(server, model, tmp_path):
    """As long as it should be, and other bytes; the name that huggingface_hub gives the file is the hash it should have."""
    server.files = model
    server.promised = {"model.safetensors": "ab" * 32}
    source = open_source("hf:org/model")
    with pytest.raises(InputError, match=r"huggingface\.co has (ab){32}; delete .*/blobs/(ab){32} and download it again"):
        _ = source.sha256
    with pytest.raises(InputError, match="download it again"):
        export(source, tmp_path / "out.safetensors", "timm")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "error", "match"),
    [
        ("org/none", ConfigError, "no such model on huggingface"),
        ("org/gated", ConfigError, "has to be asked for at https://huggingface.co/org/gated"),
        ("model", ConfigError, "a name on huggingface.co is ORG/NAME"),
        ("org/model/file", ConfigError, "ORG/NAME"),
        ("org/../../etc", ConfigError, "ORG/NAME"),
        ("org/model", InputError, "has neither model.safetensors nor"),
    ],
)
def test_names_that_lead_nowhere_are_told_in_one_line(server, name, error, match):
    server.files = {"config.json": b"{}"}
    with pytest.raises(error, match=re.escape(match)) as caught:
        open_source(f"hf:{name}")
    assert "\n" not in str(caught.value) and f"hf:{name}" in str(caught.value)


def test_without_a_connection_a_model_that_is_not_in_the_cache_is_told_with_the_way_round(server, model, offline):
    server.files = model
    offline()
    with pytest.raises(EnvironmentFault, match=r"cannot fetch config\.json of org/model .* -m NAME=PATH") as caught:
        open_source("hf:org/model")
    assert "\n" not in str(caught.value) and not server.asked
