"""Tables as text: the published ones hold every value of the register, and what is LaTeX compiles."""

import csv
import re
import shutil
import subprocess
from collections import Counter
from importlib.resources import files

import pytest

from results.layout import load, make_sheets, names
from results.rendering import render_sheets
from results.table import build_table
from tests.results.sample import Screen, make_record, store

LATEX = shutil.which("pdflatex")
PUBLISHED = [name for name in names() if hasattr(load(name), "LAYOUTS")]


def register(layout):
    """The values of a layout as they stand in the files of the register, read by nothing of the suite."""
    found = Counter()
    for path in (files("results") / "reference").iterdir():
        if path.name.endswith(".csv") and (not layout.file or path.name == f"{layout.file}.csv"):
            rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
            found += Counter(row["value"] for row in rows if row["table_id"] in layout.places and row["metric"] in layout.metrics)
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_markdown_of_a_published_table_is_the_register_value_for_value(name):
    sheets = make_sheets(name, build_table([], pytest.fail))
    for layout, sheet in zip(load(name).LAYOUTS, sheets, strict=True):
        text = render_sheets([sheet], "md", Screen()) or ""
        body = [line for line in text.splitlines() if line.startswith("| ")][1:]
        cells = [cell for line in body for cell in re.split(r"(?<!\\) \| ", line.strip("| "))[1:]]
        values = Counter(found[1] for cell in cells if (found := re.fullmatch(r"\\\[([\d.]+)\\\]", cell)))
        assert values == register(layout) and sum(values.values()) >= 4


@pytest.mark.skipif(LATEX is None, reason="needs pdflatex")
@pytest.mark.slow
def test_h04_every_layout_compiles_whatever_a_model_is_called(tmp_path):
    for name in (r"\input{/etc/passwd}", "a_b%$#&{}~^\\", "[x] ]", "é", "<|>"):
        data = {"val": 50_000, "classes": 1000, "dataset": "folder-imagenet", "method": "x"}
        store(tmp_path / "out", make_record(name, "finetune", "paper", {"top1": 83.5}, **data))
    table = build_table([tmp_path / "out"], pytest.fail, everything=True)
    body = "\n\n".join(render_sheets(make_sheets(name, table), "latex", Screen()) or "" for name in names())
    head = r"\documentclass{article}\usepackage[a1paper]{geometry}\usepackage[T1]{fontenc}\usepackage{booktabs}\begin{document}"
    (tmp_path / "all.tex").write_text(f"{head}\n{body}\n\\end{{document}}\n", encoding="utf-8")
    words = [LATEX or "", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-3000:]
    assert (tmp_path / "all.pdf").stat().st_size > 10_000
