"""Where jobs run: torchrun for several GPUs, submitit for a cluster; its LocalExecutor stands in for one."""

import json
import os
import subprocess
import sys

import pytest

from mae_bench.core.errors import ConfigError, EnvironmentFault
from mae_bench.launch import python, run_jobs
from mae_bench.options import Options, make_options, slots
from mae_bench.processes import Command, slurm, torchrun
from tests.runner.light_parent import jobs
from tests.runner.test_launch import SLOT, gone, pids, quiet, wait_for


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_r17_jobs_run_through_submitit_as_they_do_here(tmp_path, start):
    outcomes = run_jobs(jobs(tmp_path, ["ok", "fail", "crash"]), SLOT * 3, quiet(), start)
    found = {outcome.job.name: outcome for outcome in outcomes}
    assert [found[name].state for name in sorted(found)] == ["done", "failed", "failed"], outcomes
    assert found["1-fail"].message == "the checkpoint is broken; fetch it again"
    assert found["2-crash"].message == "RuntimeError: a fault of two lines"
    assert "light_job.py" in (tmp_path / "0-ok" / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_submitted_job_is_stopped_with_its_cell(tmp_path, start):
    [job] = jobs(tmp_path, ["sleep"])
    job.folder.mkdir(parents=True)
    process = start(job, {})
    wait_for(job.folder / "ready")
    process.kill()
    assert all(gone(pid) for pid in pids(job.folder))


def test_r04_a_preempted_job_saves_and_is_queued_again(tmp_path):
    pytest.importorskip("submitit")
    [job] = jobs(tmp_path, ["swallow"])
    job.folder.mkdir(parents=True)
    command = Command(job.command, job.folder / "log.txt", {"A": "1"})
    command.start()
    wait_for(job.folder / "ready")
    again = command.checkpoint()
    assert (job.folder / "saved").exists() and all(gone(pid, 0.5) for pid in pids(job.folder))
    assert (again.function.words, again.function.environment) == (command.words, {"A": "1"})
    assert json.loads((job.folder / "status.json").read_text())["state"] == "stopped"


def test_u11_u12_what_the_cluster_lacks_is_one_line(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentFault, match="--launcher slurm"):
        slurm(tmp_path, {})
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(EnvironmentFault, match=r'pip install "mae-bench\[slurm\]"'):
        slurm(tmp_path, {})


def test_settings_reach_sbatch(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    for name in ("srun", "sbatch"):
        (tmp_path / name).write_text("#!/bin/sh\necho Submitted batch job 12\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ConfigError, match="--slurm"):
        slurm(tmp_path / "slurm", {"partitoin": "gpu"})
    [job] = jobs(tmp_path / "out", ["ok"])
    job.folder.mkdir(parents=True)
    slurm(tmp_path / "slurm", {"partition": "gpu", "slurm_gpus_per_node": "2"})(job, {})
    script = next((tmp_path / "slurm").glob("*submission*.sh"))
    assert "--partition=gpu" in script.read_text() and "--gpus-per-node=2" in script.read_text()


def test_a_cell_on_several_gpus_is_run_by_torchrun():
    words = python("mae_bench.cell", "OUT", "--key", "k")
    assert torchrun(words, 1) == words
    found = torchrun(words, 4)
    assert found[1:] == (
        *("-m", "mae_bench.ranks", "--standalone", "--nproc-per-node", "4"),
        *("-m", "mae_bench.cell", "OUT", "--key", "k"),
    )


@pytest.mark.slow
def test_torchrun_takes_the_command(tmp_path):
    (tmp_path / "told.py").write_text("import os; open('rank' + os.environ['RANK'], 'w').write(os.environ['WORLD_SIZE'])")
    command = torchrun((sys.executable, "-m", "told"), 2)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"rank{rank}").read_text() for rank in (0, 1)] == ["2", "2"]


def test_gpus_are_divided_among_cells(monkeypatch):
    monkeypatch.setattr("mae_bench.options.gpus", lambda: 8)
    monkeypatch.setattr("mae_bench.core.run.default_device", lambda: "cuda")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    options = make_options(gpus_per_cell=2)
    assert options.jobs == 4
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots(options)] == ["0,1", "2,3", "4,5", "6,7"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,6,5,4,3,2,1,0")
    assert slots(Options(device="cuda", jobs=2, gpus_per_cell=4))[1]["CUDA_VISIBLE_DEVICES"] == "3,2,1,0"
    with pytest.raises(EnvironmentFault, match="this machine has 8 GPUs"):
        make_options(gpus_per_cell=9)
    with pytest.raises(ConfigError, match="--launcher"):
        make_options(launcher="cloud")
    with pytest.raises(ConfigError, match="--launcher"):
        make_options(slurm=["a=b"])
    assert make_options(launcher="slurm", slurm=["partition=gpu"], gpus_per_cell=9).slurm == (("partition", "gpu"),)
