"""Tables and reports of many records, and the report in a browser.

    python benchmarks/many_records.py [--table 10000] [--report 5000]

Writes made-up records as runs leave them, and prints wall and CPU time of `mae-bench table` and `mae-bench
report` as commands, the size of the page and, where chromium is installed, what it takes to open it, to sort its table and to
filter it. Nothing fails here: the numbers are read.
"""

import argparse
import itertools
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from results.record import Cost, Dataset, Machine, Model, Protocol, Record, Score
from results.request import cell_key

TASKS, SEEDS = 20, 5
IN_PAGE = """<script>
  addEventListener("load", () => setTimeout(() => {
    const timed = (work) => {
      const from = performance.now(); work(); document.body.offsetHeight; return performance.now() - from;
    };
    const opened = performance.getEntriesByType("navigation")[0].loadEventEnd;
    const sorted = timed(() => document.querySelectorAll("#scores thead th")[1].click());
    const filter = document.getElementById("filter");
    const filtered = timed(() => { filter.value = "m1"; filter.dispatchEvent(new Event("input")); });
    document.body.dataset.took = [opened, sorted, filtered].map((one) => one.toFixed(0)).join(" ");
  }, 0));
</script>"""


def write(out: Path, count: int) -> None:
    """Made-up records: models by tasks by seeds."""
    models = range(-(-count // (TASKS * SEEDS)))
    for model, task, seed in itertools.islice(itertools.product(models, range(TASKS), range(SEEDS)), count):
        name, sha256, what, fingerprint = f"m{model}", f"{model:064x}", f"task{task}", "f" * 64
        key = cell_key(sha256=sha256, task=what, digest="d", fingerprint=fingerprint, seed=seed, version=1)
        value = 40 + (model * 7 + task * 3 + seed) % 50
        record = Record(
            key=key,
            seed=seed,
            date="2026-01-02T03:04:05+00:00",
            metrics={metric: Score(value=value, stderr=0.5, ci95=(value - 1, value + 1)) for metric in ("top1", "top5")},
            model=Model(name=name, source=f"{name}.safetensors", sha256=sha256, ledger={"matched": 150}, arch="vit_base_patch16"),
            protocol=Protocol(
                task=what, recipe="paper", config={"k": 20, "epochs": 90}, config_digest="d", selection="last step"
            ),
            dataset=Dataset(name="folder-x", given="folder=/x", kind="classification", fingerprint=fingerprint),
            cost=Cost(seconds=60.0 + model, images_per_second=100.0, gflops=17.5, input_size=(224, 224), peak_memory_mb=900.0),
            machine=Machine(device="cpu", versions={f"package{number}": "1.0" for number in range(12)}),
        )
        folder = out / name / f"{what}-paper" / "folder-x" / f"seed{seed}"
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps(record.model_dump(mode="json", by_alias=True), indent=2))
        (folder / "config.yaml").write_text(f"key: {key}\nmodel: {name}\n")  # of which a finished cell's first line is read


def call(*words: str) -> str:
    """Run a command of the suite; its times in words."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "mae_bench.cli", *words], check=True, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return f"{time.monotonic() - started:.1f} s ({cpu:.1f} s of CPU)"


def browse(page: Path, chromium: str) -> str:
    """Open a page and use it; the milliseconds that the browser counted."""
    # The page's own policy would not run the script that measures.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    timed = page.with_name("timed.html")
    timed.write_text(text.replace("</body>", f"{IN_PAGE}</body>"), encoding="utf-8")
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={page.parent / 'profile'}", "--timeout=60000"]
    done = subprocess.run(
        [chromium, *words, "--dump-dom", timed.as_uri()], capture_output=True, text=True, timeout=300, check=True
    )
    found = re.search(r'data-took="(\d+) (\d+) (\d+)"', done.stdout)
    if found is None:
        return "the browser did not tell"
    return f"opened after {found[1]} ms, sorted in {found[2]} ms, filtered in {found[3]} ms"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=int, default=10_000)
    parser.add_argument("--report", type=int, default=5000)
    given = parser.parse_args()
    chromium = shutil.which("chromium")
    with tempfile.TemporaryDirectory() as place:
        many, fewer, page = Path(place) / "many", Path(place) / "fewer", Path(place) / "report.html"
        write(many, given.table)
        print(f"table of {given.table} records: {call('table', str(many), '--format', 'md')}")
        write(fewer, given.report)
        print(
            f"report of {given.report} records: {call('report', str(fewer), '-o', str(page))}, {page.stat().st_size / 1e6:.1f} MB"
        )
        if chromium:
            print(f"in chromium: {browse(page, chromium)}")


if __name__ == "__main__":
    main()
