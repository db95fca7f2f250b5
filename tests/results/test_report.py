"""The report: one file, nothing loaded from anywhere, every name shown as text."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from mae_bench.core.errors import EnvironmentFault
from results.figures import thinned
from results.report import write_report
from tests.results.sample import make_record, store, store_failed

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
CHROMIUM = shutil.which("chromium")


class Page(HTMLParser):
    """Elements of a page with their attributes, and the text of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.texts = [], [], []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts.append((self.elements[-1][1], data))
        elif self.inside != "style":
            self.texts.append(data)


@pytest.fixture
def out(tmp_path):
    """An output folder with hostile text wherever a person or a tool can put some."""
    name = f"m{HOSTILE}"
    record = make_record(name, source=HOSTILE, deviations=(HOSTILE,), method=HOSTILE, changes={"x": HOSTILE}, digest="d2")
    finished = store(tmp_path / "out", record, make_record("plain", "linear", metrics={"top1": 12.5}))
    store_failed(tmp_path / "out", make_record(name, "linear"), f"it broke {HOSTILE}", f"last words {HOSTILE}\n\x1b[31m")
    for folder in finished:
        (folder / "metrics.jsonl").write_text("".join(json.dumps({"step": i, "loss": 1 / (i + 1)}) + "\n" for i in range(900)))
        (folder / "predictions.png").write_bytes(b"\x89PNG fake")
    pretrained = tmp_path / "out" / "pretrain" / "mae"
    pretrained.mkdir(parents=True)
    (pretrained / "model.safetensors").write_bytes(b"")
    (pretrained / "metrics.jsonl").write_text('{"step": 0, "loss": 2.0}\n{"step": 1, "loss": NaN}\n')
    return tmp_path / "out"


@pytest.fixture
def html(out, tmp_path):
    return write_report([out], tmp_path / "report.html", pytest.fail).read_text(encoding="utf-8")


def test_h01_names_are_text_and_make_no_elements(html):
    page = Page(html)
    assert [tag for tag, _ in page.elements].count("script") == 3  # the figures, plotly, the page's own
    assert all(values["src"].startswith("data:image/png;base64,") for tag, values in page.elements if tag == "img")
    assert not any(name.startswith("on") for _, values in page.elements for name in values)
    own = html.replace(next(text for _, text in page.scripts if len(text) > 1_000_000), "")
    assert HOSTILE not in own and "&lt;script&gt;alert(1)" in own
    assert "\x1b" not in own


def test_h01_the_figures_are_data_that_cannot_end_their_element(html):
    text = next(data for values, data in Page(html).scripts if values.get("type") == "application/json")
    assert "<" not in text
    figures = json.loads(text)
    curves = [trace for figure in figures for trace in figure["data"] if trace["type"] == "scatter"]
    assert curves and all(len(trace["x"]) <= 300 for trace in curves)
    assert all("<" not in trace.get("name", "") for trace in curves)


def test_h09_nothing_is_loaded_and_only_known_scripts_run(html):
    page = Page(html)
    policy = next(values["content"] for _, values in page.elements if values.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "unsafe-inline" not in next(part for part in policy.split(";") if "script-src" in part)
    for values, text in page.scripts:
        if not values:
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy
    loading = [values[key] for _, values in page.elements for key in ("src", "href", "srcset", "data", "action") if key in values]
    assert all(value.startswith("data:") for value in loading)
    assert not re.findall(r"url\(|@import", "".join(re.findall(r"<style>.*?</style>", html, re.S)))


def test_it_says_what_there_is(html):
    text = " ".join(Page(html).texts)
    for words in ("Scores", "12.50", "Failed", "it broke", "last words", "Cost", "1:01", "sha256", "last step", "Machines"):
        assert words in text


def test_h08_pages_of_nothing_and_of_failures_only(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "No cells yet" in write_report([tmp_path / "empty"], tmp_path / "a.html", pytest.fail).read_text()
    store_failed(tmp_path / "bad", make_record("x"), "boom")
    assert "boom" in write_report([tmp_path / "bad"], tmp_path / "b.html", pytest.fail).read_text()


def test_u11_a_missing_package_is_one_line(out, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "plotly.offline", None)
    with pytest.raises(EnvironmentFault, match=r"the report needs plotly.*pip install"):
        write_report([out], tmp_path / "report.html", pytest.fail)


def test_long_curves_are_averaged():
    steps, values = thinned([float(i) for i in range(1000)])
    assert len(steps) == 250 and steps[-1] == 1000 and values[0] == 1.5


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_h01_a_browser_draws_it_and_runs_nothing_else(html, tmp_path):
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*words, "--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom", (tmp_path / "report.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    assert done.stdout.count("main-svg") >= 4
    assert "CONSOLE" not in done.stderr and "alert" not in done.stderr
    assert '<img src="x"' not in done.stdout
