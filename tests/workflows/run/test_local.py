"""nnunet_cil run --launcher local: the graph of jobs in processes of submitit on this machine."""

import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from toy import DATASET, write_schedule
from toy_jobs import PGCD, STEPS, finish, graph, short, wait_for

from nnunet_cil.cli import main
from nnunet_cil.errors import CILError
from nnunet_cil.host import commands
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.planned_experiment import PlannedExperiment
from nnunet_cil.workflows.run import local
from nnunet_cil.workflows.run.jobs import Job
from nnunet_cil.workflows.run.local import run_locally


def journaling(journal, *, failing=""):
    """Returns the function of a job that says when it starts and ends."""

    def of(job):
        def function():
            with journal.open("a") as file:
                file.write(f"start {job.name}\n")
            if failing and failing in job.name:
                job.log.parent.mkdir(parents=True, exist_ok=True)
                job.log.write_text("epoch 1\n")
                raise RuntimeError("loss is nan")
            with journal.open("a") as file:
                file.write(f"end {job.name}\n")

        return replace(job, function=function)

    return of


def lines(journal):
    return [" ".join([what, short(name)]) for what, name in (line.split() for line in journal.read_text().splitlines())]


def test_a_failure_stops_what_comes_after_it_alone_and_a_rerun_does_the_rest(experiment, tmp_path, caplog):
    journal, logs = tmp_path / "journal", tmp_path / "cil_logs"
    caplog.set_level(logging.INFO, "nnunet_cil")
    jobs = [replace(job, log=logs / f"{job.name}.txt") for job in graph(experiment)]
    with pytest.raises(CILError) as error:
        run_locally(list(map(journaling(journal, failing="MiB__nnUNetPlans_toy_step1"), jobs)), logs)
    done = ["PGCD 0 0", "PGCD 1 0", "PGCD 2 0"]
    assert lines(journal) == [f"{w} {name}" for name in done for w in ("start", "end")] + ["start MiB 1 0"]
    assert [line.split()[0] for line in caplog.messages] == ["started:", "finished"] * 3 + ["started:", "FAILED"]
    assert str(error.value).startswith("1 of the jobs failed.")
    assert f"Its log {jobs[3].log} ends:\n  epoch 1\n  Traceback" in str(error.value)
    assert "RuntimeError: loss is nan\n" in str(error.value)
    assert f"Not started, as they come after: {jobs[4].name}, {jobs[5].name}" in str(error.value)
    finish(experiment, *done)
    journal.unlink()
    run_locally(list(map(journaling(journal), graph(experiment))), logs)
    assert lines(journal) == [f"{w} {name}" for name in ("MiB 1 0", "MiB 2 0", "evaluate") for w in ("start", "end")]


def test_as_many_jobs_as_asked_for_run_at_the_same_time_with_their_share_of_the_gpus(tmp_path, monkeypatch):
    """Each of two jobs waits for the other to be there: one after the other, both would fail."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")

    def meet(own, other):
        def function():
            (tmp_path / own).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
            deadline = time.time() + 120
            while not (tmp_path / other).exists():
                if time.time() > deadline:
                    raise TimeoutError
                time.sleep(0.1)

        return Job(name=own, command=own, function=function, log=tmp_path / f"{own}.txt")

    run_locally([meet("a", "b"), meet("b", "a")], tmp_path, max_jobs=2)
    assert {(tmp_path / name).read_text() for name in "ab"} == {"2", "3"}


@pytest.mark.parametrize(
    ("visible", "max_jobs", "shares"),
    [
        (None, 2, [None, None]),
        ("", 1, [""]),
        ("0,1,2,3", 1, ["0,1,2,3"]),
        ("0,1,2,3", 2, ["0,1", "2,3"]),
        ("0,1,2", 2, ["0", "1"]),
        ("GPU-a,GPU-b", 3, ["GPU-a", "GPU-b", "GPU-a"]),
    ],
)
def test_gpus_are_shared_out(monkeypatch, visible, max_jobs, shares):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert local._gpu_shares(max_jobs) == shares


def test_an_interruption_ends_the_running_jobs_and_their_commands(tmp_path, caplog):
    """Down to the command, which a signal to this process alone does not reach."""
    (tmp_path / "stand_in.py").write_text(
        "import pathlib, sys, time\n"
        "def main():\n"
        "    here = pathlib.Path(sys.argv[1])\n"
        "    (here / 'started').touch()\n"
        "    try:\n"
        "        time.sleep(300)\n"
        "    except KeyboardInterrupt:\n"
        "        (here / 'interrupted').touch()\n"
    )

    def function():
        commands._ENTRY_POINTS["wait"] = "stand_in:main"
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        commands.call("wait", [str(tmp_path)], {**os.environ, "PYTHONPATH": path}, tmp_path / "log.txt")

    def interrupt(record):
        if record.getMessage() == "started: second":
            wait_for(tmp_path / "started")
            raise KeyboardInterrupt
        return True

    jobs = [
        Job(name=n, command=n, function=function, log=tmp_path / f)
        for n, f in {"first": "log.txt", "second": "x"}.items()
    ]
    caplog.set_level(logging.INFO, "nnunet_cil")
    caplog.handler.addFilter(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_locally(jobs, tmp_path, max_jobs=2)
    caplog.handler.removeFilter(interrupt)
    wait_for(tmp_path / "interrupted")
    assert (tmp_path / "log.txt").read_text().startswith(f"$ wait {tmp_path}\n")
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_a_killed_launcher_ends_its_training_and_a_rerun_does_the_rest(toy, tmp_path, capsys):
    """From preprocessed data to tables; a third call has nothing to do and shows the tables again."""
    training = {"num_epochs": 6, "num_iterations_per_epoch": 5, "num_val_iterations_per_epoch": 1, "save_every": 1}
    schedule, out = write_schedule(tmp_path, STEPS[:2], training=training), tmp_path / "out"
    experiment = Experiment(
        dataset=DATASET, configuration="3d_fullres", folds=(0,), schedule_name=schedule, trainers=(PGCD,)
    )
    command = ["run", *experiment.arguments, "-device", "cpu", "-o", str(out), "--launcher", "local"]
    graph(experiment)
    fold = PlannedExperiment.read(experiment).model_folds()[0].folder
    process = subprocess.Popen([sys.executable, "-m", "nnunet_cil.cli", *command])
    wait_for(fold / "checkpoint_latest.pth")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) != 0
    assert not (fold / "checkpoint_final.pth").exists()
    capsys.readouterr()

    assert main(command) == 0
    said = capsys.readouterr().out
    assert said.startswith("3 jobs to do\n")
    assert [line.split()[0] for line in said.splitlines()[1:7]] == ["started:", "finished"] * 3
    assert (out / "summary.md").read_text() in said
    logs = sorted(experiment.logs.glob("*.txt"))
    assert len(logs) == 3
    (log,) = [file for file in logs if "_step0__" in file.name]
    calls = [line for line in log.read_text().splitlines() if line.startswith("$ nnUNetv2_train")]
    assert [call.endswith("--c") for call in calls] == [False, True]
    assert (fold / "checkpoint_final.pth").exists()

    assert main(command) == 0
    again = capsys.readouterr().out
    assert again.startswith("0 jobs to do\n")
    assert (out / "summary.md").read_text() in again
