"""A wrong command line is told before torch is loaded, so that the answer is there at once."""

import subprocess
import sys
from pathlib import Path

import pytest

from mae_bench.core.errors import ConfigError
from mae_bench.early import refuse_source
from tests.runner.conftest import write_images

ROOT = Path(__file__).resolve().parent.parent.parent
RUN = "run -o NEW -d folder=DATA"
PRETRAIN = "pretrain -o NEW -d folder=DATA"
WRONG = {
    "run -o NEW -m random:vit_demo_patch8": (2, "-t and -d are missing"),
    "run -o NEW -m x -t knn": (2, "-d is missing"),
    f"{RUN} -t knn -m random:vit_demo_patch8 --sedes 1": (2, "No such option: --sedes"),
    f"{RUN} -t knnn -m random:vit_demo_patch8": (2, "unknown task 'knnn'; did you mean knn?"),
    f"{RUN} -t knn:papper -m random:vit_demo_patch8": (2, "did you mean paper"),
    f"{RUN} -t knn -m random:vit_demo_patch8 knn.kk=3": (2, "unknown setting 'kk' of knn"),
    f"{RUN} -t knn -m random:vit_demo_patch8 knn.k=x": (2, "give a whole number"),
    f"{RUN} -t knn -m random:vit_demo_patch8 --seeds a": (2, "--seeds 'a'"),
    f"{RUN} -t knn -m random:vit_demo_patch8 --precision int8": (2, "--precision 'int8'"),
    f"{RUN} -t knn -m random:vit_demo_patch8 --device gpu": (2, "--device 'gpu'; use cpu or cuda"),
    f"{RUN} -t knn -m random:vit_demo_patch8 --time-limit soon": (2, "'soon' is no time"),
    f"{RUN} -t knn -m random:vit_demo_patch8 --jobs 0": (2, "--jobs"),
    f"{RUN} -t knn -m random:vit_demo_patch": (2, "did you mean vit_demo_patch8"),
    f"{RUN} -t knn -m a=NEW/none.pth": (3, "NEW/none.pth: No such file or directory"),
    f"{RUN} -t knn -m nothing": (2, "'nothing' is no file and no architecture"),
    "run -o NEW -m random:vit_demo_patch8 -t knn -d flder=DATA": (2, "did you mean folder"),
    "run -o NEW -m random:vit_demo_patch8 -t knn -d folder=NEW": (3, "does not exist"),
    "run -o NEW NEW/grid.yaml": (2, "grid.yaml: No such file"),
    f"{PRETRAIN} maee --arch vit_demo_patch8": (2, "did you mean mae"),
    f"{PRETRAIN} mae --arch vit_demo_patch": (2, "did you mean vit_demo_patch8"),
    f"{PRETRAIN} mae --arch vit_demo_patch8 --recipe papper": (2, "did you mean paper"),
    f"{PRETRAIN} mae --arch vit_demo_patch8 epohcs=1": (2, "did you mean epochs"),
    f"{PRETRAIN} mae --arch vit_demo_patch8 augmentation=none flip=0": (2, "setting mae.flip has no effect"),
    "pretrain -o NEW -d folder=NEW mae --arch vit_demo_patch8": (3, "does not exist"),
    "ablate nothing -o NEW -d folder=DATA": (2, "unknown ablation 'nothing'"),
    "ablate mask-ratio -o NEW -d folder=DATA --arch vit": (2, "unknown architecture 'vit'"),
    "ablate mask-ratio -o NEW -d folder=DATA -t finetune,knnn": (2, "unknown task 'knnn'; did you mean knn?"),
    "ablate mask-ratio -o NEW -d folder=DATA -t linear:papper": (2, "unknown recipe 'papper' of linear"),
    "ablate mask-ratio -o NEW -d shards=DATA": (2, "ablate takes image folders, and shards is another kind of data set"),
    "demo -o NEW --scale huge": (2, "unknown scale 'huge'"),
    "status NEW": (3, "does not exist"),
    "retry NEW": (3, "does not exist"),
    "ckpt inspect NEW.pth": (3, "No such file"),
    "ckpt convert NEW.pth OUT --to timm": (3, "No such file"),
    "ckpt verify random:nothing": (2, "unknown architecture"),
    "visualize NEW -d folder=DATA": (3, "No such file"),
    "ls things": (2, "known: "),
    "show recipe nothing": (2, "neither a task nor an objective"),
}

SCRIPT = """
import contextlib, io, sys
from mae_bench import cli
for words, code, line in {wrong!r}:
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        found = cli.main(words)
    told = said.getvalue()
    assert found == code and line in told and len(told.splitlines()) == 1, (words, found, told)
    loaded = [name for name in ("torch", "pandas", "timm", "scipy") if name in sys.modules]
    assert not loaded, (words, loaded)
"""


@pytest.mark.slow
def test_wrong_words_are_told_without_torch(tmp_path):
    places = {"NEW": str(tmp_path / "new"), "DATA": str(write_images(tmp_path / "pets"))}

    def placed(text: str) -> str:
        for word, place in places.items():
            text = text.replace(word, place)
        return text

    wrong = [(placed(words).split(), code, placed(line)) for words, (code, line) in WRONG.items()]
    script = SCRIPT.format(wrong=wrong)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "text",
    ["timm:nothing", "hf:a/b", "a=random:vit_demo_patch8", "vit_demo_patch8", "mae_vit_base", "a=mae_vit_base", "", "\x07"],
)
def test_what_words_alone_do_not_tell_is_let_through(text):
    refuse_source(text)


def test_files_are_found_whatever_is_in_their_names(tmp_path):
    for name in ("a.pth", "a=b.pth", "a#b=c.pth", "ö ü.pth"):
        (tmp_path / name).touch()
        for text in (f"{tmp_path}/{name}", f"me={tmp_path}/{name}", f"me={tmp_path}/{name}#ckpt_key=model"):
            refuse_source(text)
    with pytest.raises(ConfigError, match="'tost' is no file and no architecture"):
        refuse_source("tost")
