"""Commands that only look at names and files load no torch, and none of the frameworks."""

import subprocess
import sys
from pathlib import Path

from tests.results.sample import make_record, store

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "timm", "accelerate", "detectron2", "mmseg", "mmengine", "lightly", "plotly")

SCRIPT = """
import sys
from mae_bench import cli
for words in {words!r}:
    code = cli.main(words)
    assert code == 0, (words, code)
    loaded = sorted(name for name in {heavy!r} if name in sys.modules)
    assert not loaded, f"mae-bench {{' '.join(words)}} loads {{loaded}}"
"""


def run(words):
    script = SCRIPT.format(words=words, heavy=HEAVY)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT)


def test_light_commands_load_no_torch(tmp_path):
    store(tmp_path, make_record())
    words = [["--help"], ["--version"], ["run", "-h"], ["status", str(tmp_path)], ["table", str(tmp_path)]]
    words += [["table", str(tmp_path), "--layout", "mae-table3"], ["reference", "--task", "knn"]]
    listed = ("models", "tasks", "objectives", "datasets", "formats", "recipes", "layouts", "ablations")
    words += [["ls", what] for what in listed]
    done = run(words)
    assert done.returncode == 0, done.stderr
    assert "vit_base_patch16" in done.stdout and "knn:demo" in done.stdout


def test_a_heavy_command_would_be_noticed():
    done = run([["--help"], ["data", "check", "folder=/nowhere"]])
    assert done.returncode != 0
