"""The site builds without a warning and without a network, and asks for nothing from elsewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT

MOST = {"one": 150_000, "all": 1_000_000}
"""Bytes of a picture, and of all of them."""


def test_pictures_are_small() -> None:
    sizes = [file.stat().st_size for file in (DOCS / "pictures").iterdir()]
    assert sizes and max(sizes) < MOST["one"] and sum(sizes) < MOST["all"]


@pytest.mark.slow
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    dead = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    build = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env={**os.environ, **dead, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert build.returncode == 0, build.stderr[-2000:]
    pages = {file.name: file.read_text(encoding="utf-8") for file in (tmp_path / "site").glob("*.html")}
    assert {page.stem for page in DOCS.glob("*.md")} <= {name.removesuffix(".html") for name in pages}
    for name, page in pages.items():
        elsewhere = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"(?:https?:)?//[^\"]*", page)
        elsewhere += re.findall(r"<link\b(?![^>]*rel=\"(?:canonical|next|prev)\")[^>]*\bhref=\"(?:https?:)?//[^\"]*", page)
        assert not elsewhere, name
    assert "mae-bench ckpt convert" in pages["cli.html"] and "--trust-pickle" in pages["cli.html"]
    for name in ("BackboneSpec", "Features", "open_source", "open_backbone", "MaeBenchLayerDecay", "Record"):
        assert re.search(rf"id=\"[\w.]*\b{name}\"", pages["api.html"]), name
