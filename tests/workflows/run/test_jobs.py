"""nnunet_cil run --launcher: the graph of jobs, on this machine with submitit's local executor, on stand-ins of Slurm."""

import json
import logging
import os
import pickle
import re
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from toy import DATASET, ORGANS, finish_training, write_checkpoint, write_schedule

from nnunet_cil.cli import main
from nnunet_cil.cli.arguments import key_values
from nnunet_cil.errors import CILError
from nnunet_cil.host import commands
from nnunet_cil.host.commands import CommandError
from nnunet_cil.workflows.evaluate import evaluate, score
from nnunet_cil.workflows.evaluate.options import EvaluationOptions
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.planned_experiment import PlannedExperiment
from nnunet_cil.workflows.run import jobs as launch
from nnunet_cil.workflows.run import local
from nnunet_cil.workflows.run import slurm as cluster
from nnunet_cil.workflows.run.jobs import Job, job_graph
from nnunet_cil.workflows.run.local import run_locally
from nnunet_cil.workflows.run.options import TrainingOptions
from nnunet_cil.workflows.run.run import logs_folder

STEPS = (ORGANS[:2], ORGANS[2:3], ORGANS[3:])
PGCD, MIB = "nnUNetTrainerPGCD", "nnUNetTrainerMiB"


@pytest.fixture
def experiment(toy, tmp_path):
    return Experiment(
        dataset=DATASET,
        configuration="3d_fullres",
        folds=(0,),
        schedule_name=write_schedule(tmp_path, STEPS),
        trainers=(PGCD, MIB),
    )


def graph(experiment, *, output=None, cases=None, **choice):
    options = EvaluationOptions(device="cpu", output=output, cases=cases)
    return job_graph(experiment, TrainingOptions(**{"device": "cpu", **choice}), options)


def short(name):
    """'nnUNetTrainerPGCD__nnUNetPlans_toy_step1__3d_fullres_fold0' -> 'PGCD 1 0'."""
    if found := re.fullmatch(r"nnUNetTrainer(\w+?)__nnUNetPlans_toy_step(\d)__3d_fullres_fold(\w+)", name):
        return " ".join(found.groups())
    return name.split("-")[0]


def after(jobs):
    return {short(job.name): [short(name) for name in job.after] for job in jobs}


def finish(experiment, *names):
    for model in PlannedExperiment.read(experiment).model_folds():
        if short(model.name) in names:
            finish_training(model.folder)


# The graph


def test_a_step_comes_after_the_step_before_it_and_the_scores_after_all(experiment):
    steps = ["PGCD 0 0", "PGCD 1 0", "PGCD 2 0", "MiB 1 0", "MiB 2 0"]
    expected = [[], ["PGCD 0 0"], ["PGCD 1 0"], ["PGCD 0 0"], ["MiB 1 0"], steps]
    jobs = graph(experiment)
    assert after(jobs) == dict(zip([*steps, "evaluate"], expected, strict=True))
    assert list(after(jobs)) == [*steps, "evaluate"]
    assert jobs[0].command == f"nnUNetv2_train {DATASET} 3d_fullres 0 -tr {PGCD} -p nnUNetPlans_toy_step0 -device cpu"
    assert jobs[-1].command.startswith(f"nnunet_cil evaluate {DATASET} 3d_fullres 0 ")
    assert "evaluate" not in after(graph(experiment, stop_after=1))


def test_folds_do_not_wait_for_each_other(experiment):
    folds = graph(replace(experiment, folds=(0, 1), trainers=(PGCD,)), stop_after=1)
    assert after(folds) == {"PGCD 0 0": [], "PGCD 1 0": ["PGCD 0 0"], "PGCD 0 1": [], "PGCD 1 1": ["PGCD 0 1"]}


def test_only_what_is_missing_is_in_the_graph_and_waits_for_nothing_that_is_there(experiment):
    graph(experiment)
    finish(experiment, "PGCD 0 0", "PGCD 1 0", "MiB 1 0", "MiB 2 0")
    assert after(graph(experiment)) == {"PGCD 2 0": [], "evaluate": ["PGCD 2 0"]}
    finish(experiment, "PGCD 2 0")
    assert after(graph(experiment)) == {"evaluate": []}


def test_what_is_scored_is_not_scored_again_until_a_model_is_trained_again(experiment, monkeypatch):
    graph(experiment)
    finish(experiment, "PGCD 0 0", "PGCD 1 0", "PGCD 2 0", "MiB 1 0", "MiB 2 0")
    monkeypatch.setattr(evaluate, "predictions_of", lambda *_, **__: [])
    monkeypatch.setattr(score, "score_cases", lambda *_: [])
    for name in ("results", "latex", "paired_tests"):
        monkeypatch.setattr(evaluate, name, lambda *_: "")
    monkeypatch.setattr(evaluate, "summary", lambda _: "a table")
    monkeypatch.setattr(evaluate, "_write_pictures", lambda _, output, *__: (output / "report.html").touch())
    found = evaluate.evaluate(experiment, EvaluationOptions())
    assert evaluate.evaluated(experiment, EvaluationOptions()) == found
    assert graph(experiment) == []
    assert after(graph(replace(experiment, trainers=(PGCD,)))) == {"evaluate": []}
    checkpoint = PlannedExperiment.read(experiment).model_folds()[1].checkpoint
    write_checkpoint(checkpoint, "another")
    (checkpoint.parent / "validation" / "summary.json").touch()
    assert after(graph(experiment)) == {"evaluate": []}


def test_another_test_set_is_another_job_behind_the_same_trainings(experiment, tmp_path):
    graph(experiment)
    finish(experiment, "PGCD 0 0", "PGCD 1 0", "MiB 1 0", "MiB 2 0")
    own, other = (graph(experiment, output=output) for output in (None, tmp_path / "other"))
    assert [job.name for job in own[:-1]] == [job.name for job in other[:-1]] == list(own[-1].after)
    assert own[-1].name != other[-1].name
    assert {job.log.parent for job in [*own, *other]} == {logs_folder(experiment)}


def test_validation_cases_beside_test_cases_are_a_job_of_their_own(experiment):
    def evaluation(cases):
        return graph(experiment, cases=cases)[-1]

    raw = Path(os.environ["nnUNet_raw"]) / DATASET
    assert evaluation("validation").name == evaluation(None).name
    for folder in ("imagesTs", "labelsTs"):
        (raw / folder).mkdir()
        (raw / folder / "t0.nii.gz").touch()
    assert evaluation("validation").name == f"{evaluation(None).name}-validation"
    assert evaluation("test").name == evaluation(None).name
    assert evaluation("validation").command.endswith(" --cases validation")


def test_how_to_go_on_is_seen_when_the_job_starts(experiment, monkeypatch):
    calls = []
    monkeypatch.setattr(launch, "call", lambda command, arguments, *_: calls.append((command, arguments[-1])))
    job = pickle.loads(pickle.dumps(graph(experiment)[0]))
    fold = PlannedExperiment.read(experiment).model_folds()[0].folder
    job()
    write_checkpoint(fold / "checkpoint_latest.pth", "x")
    job()
    write_checkpoint(fold / "checkpoint_final.pth", "x")
    job()
    finish_training(fold)
    job()
    assert calls == [("nnUNetv2_train", flag) for flag in ("cpu", "--c", "--val")]


def test_whatever_goes_wrong_is_in_the_log_once(tmp_path):
    def fails(error):
        def function():
            raise error

        return Job(name="a job", command="do it", function=function, log=tmp_path / "logs" / "job.txt")

    with pytest.raises(CommandError):
        fails(CommandError("its output is there already"))()
    assert not (tmp_path / "logs").exists()
    with pytest.raises(ValueError, match="a reason"):
        fails(ValueError("a reason"))()
    assert (tmp_path / "logs" / "job.txt").read_text().endswith("ValueError: a reason\n")


# On this machine: functions inside functions, as submitit's processes cannot import a test


def journaling(journal, *, failing=""):
    """Of a job: the function of it that says when it starts and ends."""

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


def wait_for(file):
    deadline = time.time() + 120
    while not file.exists():
        assert time.time() < deadline, f"{file} is not there"
        time.sleep(0.1)


@pytest.mark.slow
def test_run_locally_with_nnunets_own_commands(toy, tmp_path, capsys):
    """From preprocessed data to tables; a second call has nothing to do and shows the tables again."""
    schedule, out = write_schedule(tmp_path, STEPS[:2]), tmp_path / "out"
    command = ["run", "17", "3d_fullres", "0", str(schedule), "-tr", PGCD, "-device", "cpu", "-o", str(out)]
    command += ["--launcher", "local"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert said.startswith("3 jobs to do\n")
    assert [line.split()[0] for line in said.splitlines()[1:7]] == ["started:", "finished"] * 3
    assert (out / "summary.md").read_text() in said
    logs = Path(os.environ["nnUNet_results"]) / DATASET / "cil_logs"
    assert len(list(logs.glob("*.txt"))) == 3
    assert main(command) == 0
    again = capsys.readouterr().out
    assert again.startswith("0 jobs to do\n")
    assert (out / "summary.md").read_text() in again


@pytest.mark.slow
def test_a_killed_launcher_ends_its_training_and_a_rerun_goes_on_with_it(toy, tmp_path):
    training = {"num_epochs": 6, "num_iterations_per_epoch": 5, "num_val_iterations_per_epoch": 1, "save_every": 1}
    experiment = Experiment(
        dataset=DATASET,
        configuration="3d_fullres",
        folds=(0,),
        schedule_name=write_schedule(tmp_path, STEPS[:2], training=training),
        trainers=(PGCD,),
    )
    command = ["run", *experiment.arguments, "-device", "cpu", "--stop-after", "0", "--launcher", "local"]
    graph(experiment)
    fold = PlannedExperiment.read(experiment).model_folds()[0].folder
    process = subprocess.Popen([sys.executable, "-m", "nnunet_cil.cli", *command])
    wait_for(fold / "checkpoint_latest.pth")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) != 0
    assert not (fold / "checkpoint_final.pth").exists()
    assert main(command) == 0
    (log,) = logs_folder(experiment).glob("*.txt")
    calls = [line for line in log.read_text().splitlines() if line.startswith("$ nnUNetv2_train")]
    assert [call.endswith("--c") for call in calls] == [False, True]
    assert (fold / "checkpoint_final.pth").exists()


# On a cluster: stand-ins for the commands of Slurm that are called


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
            echo "$id PENDING" >> {folder}/queue
            echo "Submitted batch job $id"
            """,
        "squeue": f"[ -e {folder}/down ] && {{ echo 'Unable to contact slurm controller' >&2; exit 1; }}\n"
        f"cat {folder}/queue",
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
    stored = json.loads((logs_folder(experiment) / "slurm_jobs.json").read_text())
    return {short(name): int(job_id) for name, job_id in stored.items()}


def submission(experiment, job_id):
    return (logs_folder(experiment) / "submitit" / f"{job_id}_submission.sh").read_text()


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
    assert len(list((logs_folder(experiment) / "submitit").glob("1*_submission.sh"))) == 5


def test_after_a_failure_what_is_missing_is_submitted_and_the_log_is_shown(experiment, slurm, capsys):
    assert submit(experiment) == 0
    assert list(ids(experiment).values()) == [101, 102, 103, 104, 105, 106]
    finish(experiment, "PGCD 0 0")
    logs = logs_folder(experiment)
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
