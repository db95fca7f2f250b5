"""The report: one file, nothing loaded from anywhere, every name shown as text."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser

import pytest

from mae_bench.core.errors import EnvironmentFault, InputError
from results.figures import probe_plots, thinned
from results.more_figures import cost_plots, published_plots
from results.report import render, write_report
from results.store import Order, StoredCell, pretrainings
from results.table import arrange, build_table
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


def test_h08_of_nothing_there_is_no_page_and_of_failures_alone_there_is(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.html").write_text("an earlier page")
    with pytest.raises(InputError, match=r"empty holds no cells of a run and no finished pretraining; give the folder") as raised:
        write_report([tmp_path / "empty"], tmp_path / "a.html", pytest.fail)
    assert raised.value.exit_code == 3 and (tmp_path / "a.html").read_text() == "an earlier page"
    store_failed(tmp_path / "bad", make_record("x"), "boom")
    assert "boom" in write_report([tmp_path / "bad"], tmp_path / "b.html", pytest.fail).read_text()


def test_u11_a_missing_package_is_one_line(out, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "plotly.offline", None)
    with pytest.raises(EnvironmentFault, match=r"the report needs plotly.*pip install"):
        write_report([out], tmp_path / "report.html", pytest.fail)


def test_long_curves_are_averaged():
    steps, values = thinned([float(i) for i in range(1000)])
    assert len(steps) == 250 and steps[-1] == 1000 and values[0] == 1.5


def browsed(path, *more):
    """The page as a browser leaves it, and what it said on its console."""
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={path.parent / 'profile'}", *more]
    done = subprocess.run(
        [*words, "--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    return done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_h01_a_browser_draws_it_and_runs_nothing_else(html, tmp_path):
    page, said = browsed(tmp_path / "report.html")
    assert page.count("main-svg") >= 4
    assert "CONSOLE" not in said and "alert" not in said
    assert '<img src="x"' not in page


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_click_on_a_head_sorts_and_the_filter_hides(tmp_path):
    for name, value in (("b", 20.0), ("a", 9.5), ("c", 100.0)):
        store(tmp_path / "out", make_record(name, metrics={"top1": value}))
    store_failed(tmp_path / "out", make_record("d"), "boom")
    text = write_report([tmp_path / "out"], tmp_path / "report.html", pytest.fail).read_text()
    script = """<script>
      const rows = () => [...document.querySelectorAll("#scores tbody tr:not([hidden])")];
      const order = () => rows().map((row) => row.cells[0].textContent).join("");
      const heads = document.querySelectorAll("#scores thead th");
      const seen = [];
      for (const number of [1, 1, 0, 0]) { heads[number].click(); seen.push(order()); }
      const filter = document.getElementById("filter");
      for (const word of ["C", "nothing", ""]) {
        filter.value = word; filter.dispatchEvent(new Event("input")); seen.push(order());
      }
      document.body.dataset.seen = seen.join(" ");
    </script>"""
    open_page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)  # which would not run the test's script
    (tmp_path / "open.html").write_text(open_page.replace("</body>", f"{script}</body>"))
    page, _ = browsed(tmp_path / "open.html")
    found = re.search(r'data-seen="([^"]*)"', page)
    assert found is not None and found[1] == "cbad abcd abcd dcba c  dcba"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_phone_needs_no_sideways_scrolling(html, tmp_path):
    script = "<script>document.body.dataset.wide = document.documentElement.scrollWidth - innerWidth</script>"
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html).replace("</body>", f"{script}</body>")
    (tmp_path / "narrow.html").write_text(page)
    page, _ = browsed(tmp_path / "narrow.html", "--window-size=500,900")  # the narrowest window that chromium opens
    found = re.search(r'data-wide="(-?\d+)"', page)
    assert found is not None and int(found[1]) <= 0


@pytest.mark.slow
def test_h10_five_thousand_cells_make_a_page_that_is_not_too_large(tmp_path):
    records = [make_record(f"m{model}", f"t{task}", seed=seed) for model in range(50) for task in range(20) for seed in range(5)]
    table = arrange([StoredCell(tmp_path / str(number), record) for number, record in enumerate(records)], Order(), {})
    started = time.process_time()
    text = render(table, [], title="many")
    assert time.process_time() - started < 30 and len(text.encode()) < 15_000_000


def test_scores_stand_beside_their_time_and_their_published_curve(tmp_path):
    words = {"arch": "vit_large_patch16", "val": 50_000, "classes": 1000, "dataset": "folder-imagenet", "method": "mae"}
    store(tmp_path, make_record("mask_ratio-75", "linear", "paper", {"top1": 73.0}, **words))
    store(tmp_path, make_record("mask_ratio-50", "linear", "paper", {"top1": 69.0}, sha256="1" * 64, **words))
    table = build_table([tmp_path], pytest.fail)
    plot, partial = published_plots(table)  # a linear probe is also the first point of partial fine-tuning
    assert "Figure 5" in plot.title and "Figure 9" in partial.title
    traces = {trace["name"]: trace for trace in plot.figure["data"]}
    assert traces["linear probe, measured"]["x"] == [50.0, 75.0] and traces["linear probe, measured"]["y"] == [69.0, 73.0]
    assert traces["linear probe, published"]["x"][:2] == [10.0, 20.0]
    [plot] = cost_plots(table)
    assert [trace["y"] for trace in plot.figure["data"]] == [[69.0], [73.0]]


def test_what_was_measured_during_a_pretraining_has_a_curve(tmp_path):
    folder = tmp_path / "pretrain" / "mae"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"")
    lines = [{"step": step, "loss": 1.0, "log/knn_top1": 10.0 + step, "log/linear_top1": 20.0 + step} for step in (9, 19)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [{"step": 0, "loss": 2.0}, *lines]))
    (plot,) = probe_plots(pretrainings(tmp_path))
    curves = {trace["name"]: (trace["x"], trace["y"]) for trace in plot.figure["data"]}
    assert curves == {"kNN": ([10, 20], [19.0, 29.0]), "linear probe": ([10, 20], [29.0, 39.0])}
    assert "Measured during pretrainings" in write_report([tmp_path], tmp_path / "r.html", pytest.fail).read_text()
    (folder / "metrics.jsonl").write_text('{"step": 0, "loss": 2.0}\n')
    assert probe_plots(pretrainings(tmp_path)) == []
