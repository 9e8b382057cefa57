"""nnunet_cil run --launcher slurm: on stand-ins for the commands of Slurm that are called."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time

import pytest
from toy import DATASET
from toy_jobs import PGCD, finish, graph, short, wait_for

from nnunet_cil.cli import main
from nnunet_cil.cli.arguments import key_values
from nnunet_cil.workflows.run import slurm as cluster
from nnunet_cil.workflows.run.jobs import Job


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder with sbatch, squeue, scancel, scontrol and srun; in ``queue`` a line a job, which a test changes."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    (folder / "queue").touch()
    scripts = {
        "srun": f'while [ "$1" != "{sys.executable}" ]; do shift; done; exec "$@"',
        "sbatch": f"""
            [ -e {folder}/full ] && {{ echo 'QOSMaxSubmitJobPerUserLimit' >&2; exit 1; }}
            id=$((101 + $(cat {folder}/count 2>/dev/null | wc -l)))
            echo $id >> {folder}/count
            env > {folder}/environment
            echo "$id PENDING" >> {folder}/queue
            echo "Submitted batch job $id"
            """,
        "squeue": f"[ -e {folder}/down ] && {{ echo 'Unable to contact slurm controller' >&2; exit 1; }}\n"
        f"echo $2 >> {folder}/users\n"
        f'[ -z "$SQUEUE_STATES" ] && cat {folder}/queue; [ -e {folder}/next ] && mv {folder}/next {folder}/queue; true',
        "scancel": f"echo $1 >> {folder}/cancelled",
        "scontrol": f"echo $* >> {folder}/asked",
    }
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


def submit(experiment, *parameters):
    command = ["run", *experiment.arguments, "-device", "cpu", "--launcher", "slurm"]
    return main([*command, "--slurm", *(parameters or ["partition=gpu", "timeout_min=2880"])])


def ids(experiment):
    stored = json.loads((experiment.logs / "slurm_jobs.json").read_text())
    return {short(name): int(job_id) for name, job_id in stored.items()}


def submission(experiment, job_id):
    return (experiment.logs / "submitit" / f"{job_id}_submission.sh").read_text()


def dependency(experiment, job_id):
    found = re.search(r"#SBATCH --dependency=(\S+)", submission(experiment, job_id))
    return found[1] if found else None


def test_every_job_is_submitted_behind_those_that_it_needs_and_just_once(experiment, slurm, capsys):
    graph(experiment)
    finish(experiment, "MiB 1 0")
    assert submit(experiment, "partition=gpu", "timeout_min=60", "cpus_per_task=12", "mem_gb=48", "gres=gpu:1") == 0
    out = capsys.readouterr().out
    assert ids(experiment) == {"PGCD 0 0": 101, "PGCD 1 0": 102, "PGCD 2 0": 103, "MiB 2 0": 104, "evaluate": 105}
    found = [dependency(experiment, i) for i in range(101, 106)]
    assert found == [None, "afterok:101", "afterok:102", None, "afterok:101:102:103:104"]
    text = submission(experiment, 102)
    for flag in ("partition=gpu", "time=60", "cpus-per-task=12", "mem=48GB", "gres=gpu:1", "kill-on-invalid-dep=yes"):
        assert f"#SBATCH --{flag}\n" in text
    assert re.search(r"\nsrun .*--cpus-per-task=12", text)
    assert f"102  submitted: nnUNetv2_train {DATASET} 3d_fullres 0 -tr {PGCD} -p nnUNetPlans_toy_step1" in out
    assert f"Progress: nnunet_cil status {DATASET} 3d_fullres 0 " in out

    (slurm / "queue").write_text("".join(f"{i} {'RUNNING' if i == 101 else 'PENDING'}\n" for i in range(101, 106)))
    assert submit(experiment) == 0
    out = capsys.readouterr().out
    assert "  submitted: " not in out
    assert "101  running since an earlier call: nnUNetv2_train" in out
    assert len(list((experiment.logs / "submitit").glob("1*_submission.sh"))) == 5


def test_after_a_failure_what_is_missing_is_submitted_and_the_log_is_shown(experiment, slurm, capsys):
    assert submit(experiment) == 0
    assert list(ids(experiment).values()) == [101, 102, 103, 104, 105, 106]
    finish(experiment, "PGCD 0 0")
    logs = experiment.logs
    (job,) = (j for j in graph(experiment) if short(j.name) == "PGCD 1 0")
    job.log.write_text("epoch 1\nCUDA out of memory\n")
    (logs / "submitit" / "102_0_log.out").touch()
    (slurm / "queue").write_text("103 PENDING\n104 RUNNING\n105 PENDING\n106 PENDING\n")  # 102 has failed
    capsys.readouterr()
    assert submit(experiment) == 0
    out = capsys.readouterr().out
    expected = {"PGCD 0 0": 101, "PGCD 1 0": 107, "PGCD 2 0": 108, "MiB 1 0": 104, "MiB 2 0": 105, "evaluate": 109}
    assert ids(experiment) == expected
    assert f"102  has ended, with work left. Its log {job.log} ends:\n  epoch 1\n  CUDA out of memory\n" in out
    assert (slurm / "cancelled").read_text() == "103\n106\n"
    assert [dependency(experiment, i) for i in (107, 108, 109)] == [None, "afterok:107", "afterok:107:108:104:105"]


def test_a_submission_that_is_cut_short_is_remembered(experiment, slurm, monkeypatch, capsys):
    submit_one, count = cluster._submit, []

    def two_then_full(*args):
        count.append(1)
        if len(count) == 3:
            (slurm / "full").touch()
        return submit_one(*args)

    monkeypatch.setattr(cluster, "_submit", two_then_full)
    assert submit(experiment) == 1
    assert "Slurm did not take 'nnUNetv2_train" in capsys.readouterr().err
    assert ids(experiment) == {"PGCD 0 0": 101, "PGCD 1 0": 102}
    (slurm / "full").unlink()
    assert submit(experiment) == 0
    assert list(ids(experiment).values()) == [101, 102, 103, 104, 105, 106]


def submit_chains(folder, **parameters):
    """Submits a, b behind a, and c, without an experiment; returns their IDs."""
    after = {"a": (), "b": ("a",), "c": ()}
    jobs = [Job(name=n, command=n, function=print, log=folder / f"{n}.txt", after=after[n]) for n in after]
    cluster.submit(jobs, folder, {"timeout_min": 60, **parameters})
    return json.loads((folder / "slurm_jobs.json").read_text())


def test_a_job_that_is_ending_is_waited_for(slurm, tmp_path, monkeypatch, caplog):
    """One of them has failed; the other one is queued again since its time was up."""
    monkeypatch.setattr(cluster, "_LOOK_EVERY_S", 0.01)
    submit_chains(tmp_path)
    (slurm / "queue").write_text("101 COMPLETING\n102 PENDING\n103 COMPLETING\n")
    (slurm / "next").write_text("102 PENDING\n103 PENDING\n")
    with caplog.at_level("INFO"):
        assert submit_chains(tmp_path) == {"a": "104", "b": "105", "c": "103"}
    assert caplog.messages[0] == "Waiting for the end of 101, 103"
    assert (slurm / "cancelled").read_text() == "102\n"


def test_a_job_that_does_not_end_counts_as_queued(slurm, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_ENDING_S", 0.0)
    first = submit_chains(tmp_path)
    (slurm / "queue").write_text("101 COMPLETING\n102 PENDING\n103 COMPLETING\n")
    assert submit_chains(tmp_path) == first


def test_what_the_users_variables_let_squeue_hide_is_not_submitted_twice(slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    monkeypatch.setenv("LOGNAME", "somebody")
    assert submit_chains(tmp_path) == submit_chains(tmp_path)
    assert (slurm / "users").read_text() == f"--user={os.getuid()}\n"


@pytest.mark.parametrize("is_in_job", [True, False])
def test_what_is_submitted_from_within_a_job_does_not_take_that_jobs_resources(slurm, tmp_path, monkeypatch, is_in_job):
    values = {"SLURM_MEM_PER_CPU": "500", "SLURM_CONF": "/apps/slurm.conf", "SBATCH_ACCOUNT": "lab"}
    if is_in_job:
        values["SLURM_JOB_ID"] = "77"
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    submit_chains(tmp_path)
    seen = dict(line.split("=", 1) for line in (slurm / "environment").read_text().splitlines() if "=" in line)
    hidden = {"SLURM_JOB_ID", "SLURM_MEM_PER_CPU"} if is_in_job else set()
    assert {name for name in values if name not in seen} == hidden
    assert {name: os.environ[name] for name in values} == values


@pytest.mark.parametrize(
    ("parameters", "delay_s"),
    [
        ({"timeout_min": 60}, 90),
        ({"timeout_min": 4}, 60),
        ({"timeout_min": 1}, 15),
        ({"timeout_min": 1, "signal_delay_s": 5}, 5),
    ],
)
def test_a_short_job_is_not_told_at_its_start_that_its_time_is_up(slurm, tmp_path, parameters, delay_s):
    submit_chains(tmp_path, **parameters)
    assert f"#SBATCH --signal=USR2@{delay_s}\n" in (tmp_path / "submitit" / "101_submission.sh").read_text()


def test_nothing_is_submitted_where_slurm_does_not_say_what_is_queued(experiment, slurm, capsys):
    assert submit(experiment) == 0
    (slurm / "down").touch()
    assert submit(experiment) == 1
    error = capsys.readouterr().err
    assert "Nothing was submitted, as the jobs in" in error
    assert "Unable to contact slurm controller" in error
    assert len((slurm / "count").read_text().split()) == 6


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (["timeout_min=60", "partitoin=gpu"], "submitit does not take what --slurm says: Unknown argument 'partitoin'"),
        (["timeout_min=60", "mem_gb=a lot"], "submitit does not take what --slurm says: "),
        (["partition=gpu"], "--slurm timeout_min=MINUTES"),
        (["timeout_min=60", "gpu"], "--slurm takes KEY=VALUE, not 'gpu'"),
    ],
)
def test_what_slurm_would_not_understand_is_refused_before_anything_is_submitted(
    experiment, slurm, capsys, parameters, message
):
    assert submit(experiment, *parameters) == 1
    assert message in capsys.readouterr().err
    assert not (slurm / "count").exists()


def test_without_slurm_or_submitit_it_is_said(experiment, monkeypatch, capsys):
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert submit(experiment) == 1
    assert "Slurm's commands are not here" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "submitit", None)
    for command in (["--launcher", "slurm", "--slurm", "timeout_min=1"], ["--launcher", "local"]):
        assert main(["run", *experiment.arguments, *command]) == 1
        assert "Install submitit: pip install submitit" in capsys.readouterr().err


def test_a_submitted_job_runs_tells_a_failure_and_is_queued_again_when_its_time_is_up(slurm, tmp_path):
    """The files that sbatch is given, run as Slurm runs them."""

    def waits():
        (tmp_path / "starting").write_text(str(os.getpid()))
        (tmp_path / "starting").rename(tmp_path / "pid")
        if not (tmp_path / "go_on").exists():
            time.sleep(300)

    def fails():
        raise ValueError("a reason")

    def start(job_id):
        file = tmp_path / "submitit" / f"{job_id}_submission.sh"
        return subprocess.Popen(["bash", str(file)], env={**os.environ, "SLURM_JOB_ID": str(job_id)})

    jobs = [
        Job(name=f.__name__, command=f.__name__, function=f, log=tmp_path / f"{f.__name__}.txt") for f in (waits, fails)
    ]
    cluster.submit(jobs, tmp_path, {"timeout_min": 1})
    process = start(101)
    wait_for(tmp_path / "pid")
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGUSR2)
    assert process.wait(timeout=120) != 0
    assert (slurm / "asked").read_text() == "requeue 101\n"
    (tmp_path / "go_on").touch()
    assert start(101).wait(timeout=120) == 0
    assert start(102).wait(timeout=120) == 1
    assert (tmp_path / "fails.txt").read_text().endswith("ValueError: a reason\n")


def test_values_are_read_as_json_where_they_are():
    pairs = [
        "timeout_min=60",
        "mem_gb=1.5",
        "gres=gpu:1",
        "exclusive=true",
        'setup=["module load cuda"]',
        "comment=a=b",
    ]
    assert key_values("--slurm", pairs) == {
        "timeout_min": 60,
        "mem_gb": 1.5,
        "gres": "gpu:1",
        "exclusive": True,
        "setup": ["module load cuda"],
        "comment": "a=b",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--slurm", "partition=gpu"], "--slurm is for --launcher slurm"),
        (["--max-jobs", "2", "--launcher", "slurm"], "--max-jobs is for --launcher local"),
    ],
)
def test_options_without_their_launcher_are_refused(experiment, capsys, options, message):
    assert main(["run", *experiment.arguments, *options]) == 1
    assert message in capsys.readouterr().err
