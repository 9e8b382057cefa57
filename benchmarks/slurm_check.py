"""Tries ``nnunet_cil run --launcher slurm`` on a real Slurm; called by ``slurm_check.sh``."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import psutil
import toy

from nnunet_cil.cli import main
from nnunet_cil.shipped import trainers_folder

PGCD, FINE_TUNE = "nnUNetTrainerPGCD", "nnUNetTrainerFineTune"
SHORT = ("study", [PGCD, FINE_TUNE], [0, 1])
LONG = ("long", [PGCD], [0])
WAIT_S = 600
"""A longer wait is a failure: nothing here takes so long on an idle machine."""


def environment(folder: Path) -> dict[str, str]:
    """Returns nnU-Net's variables for data under ``folder``."""
    folders = {f"nnUNet_{part}": str(folder / part) for part in ("raw", "preprocessed", "results")}
    small = {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "nnUNet_compile": "false", "OMP_NUM_THREADS": "1"}
    return {**folders, **small, "nnUNet_extTrainer": str(trainers_folder())}


def ask(*command: str) -> str:
    """Returns what one of Slurm's commands prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def wait(condition: Callable[[], object], at_most_s: float = WAIT_S) -> float | None:
    """Waits for a condition; returns the seconds that it took, None if it never held."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > at_most_s:
            return None
        time.sleep(0.5)
    return time.monotonic() - begin


def seconds(took: float | None) -> str:
    """Returns a time to read."""
    return "never" if took is None else f"{took:.0f} s"


class Checks:
    """Checks, each printed as it is done."""

    def __init__(self) -> None:
        """Begins with none."""
        self.failed = 0

    def __call__(self, name: str, holds: object, seen: object) -> None:
        """Prints whether a check holds, and what was seen."""
        self.failed += not holds
        print(f"{'OK  ' if holds else 'FAIL'}  {name}: {seen}", flush=True)


class Graph:
    """The jobs of one schedule, as Slurm has them."""

    def __init__(self, folder: Path, name: str, trainers: list[str], folds: list[int]) -> None:
        """Describes them; submits nothing."""
        self.arguments = [toy.DATASET, "3d_fullres", *map(str, folds), str(folder / f"{name}.json"), "-tr", *trainers]
        self.name = name
        self.results = folder / "results" / toy.DATASET
        self.logs = self.results / "cil_logs"

    def run_arguments(self, *resources: str) -> list[str]:
        """Returns the command that submits, without its name."""
        chosen = ["cpus_per_task=1", *(resources or ["timeout_min=60"])]
        return ["run", *self.arguments, "-device", "cpu", "--launcher", "slurm", "--slurm", *chosen]

    def run(self, *resources: str) -> str:
        """Submits what is missing; returns what was printed."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            status = main(self.run_arguments(*resources))
        if status:
            raise SystemExit(f"FAIL  nnunet_cil run ended with {status}: {printed.getvalue()}")
        return printed.getvalue()

    def ids(self) -> dict[str, str]:
        """Returns the jobs' IDs by short names, as 'PGCD 1 0' for step 1 in fold 0."""
        stored = json.loads((self.logs / "slurm_jobs.json").read_text())
        mine = {short(name): job_id for name, job_id in stored.items() if f"nnUNetPlans_{self.name}_" in f"{name}_"}
        return {name: job_id for name, job_id in mine.items() if name}

    def log(self, step: int) -> str:
        """Returns the log of PGCD's training in fold 0."""
        file = self.logs / f"{PGCD}__nnUNetPlans_{self.name}_step{step}__3d_fullres_fold0.txt"
        return file.read_text() if file.is_file() else ""

    def fold(self, step: int, fold: int) -> Path:
        """Returns the folder of one of PGCD's trainings."""
        return self.results / f"{PGCD}__nnUNetPlans_{self.name}_step{step}__3d_fullres" / f"fold_{fold}"

    def processes(self) -> list[psutil.Process]:
        """Returns the processes of the trainings that run on this machine, the oldest of each first."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(f"nnUNetPlans_{self.name}_" in word for word in process.cmdline()):
                    found.append(process)
        return sorted(found, key=lambda process: process.create_time())

    def training(self) -> psutil.Process:
        """Returns the main process of the training that runs; the others are its workers."""
        running = self.processes()
        pids = {process.pid for process in running}
        return next(process for process in running if process.ppid() not in pids)


def short(name: str) -> str:
    """Returns 'PGCD 1 0' for the training of step 1 in fold 0, 'evaluate' for the job that scores."""
    if found := re.fullmatch(r"nnUNetTrainer(\w+?)__nnUNetPlans_\w+_step(\d)__3d_fullres_fold(\d)", name):
        return " ".join(found.groups())
    return name.split("-")[0]


def queue() -> dict[str, str]:
    """Returns the state of each job that is not over."""
    lines = ask("squeue", "--noheader", "--format=%i %T").splitlines()
    return dict(line.split() for line in lines)


def dependencies(ids: Mapping[str, str]) -> dict[str, list[str]]:
    """Returns the jobs behind which each is queued, by their short names."""
    names = {job_id: name for name, job_id in ids.items()}
    lines = ask("squeue", "--noheader", "--format=%i %E").splitlines()
    return {names[line.split()[0]]: [names[i] for i in re.findall(r"afterok:(\d+)", line)] for line in lines}


def expected_dependencies() -> dict[str, list[str]]:
    """Returns those of two trainers, two folds and three steps: step 0 is shared."""
    found: dict[str, list[str]] = {}
    for fold in "01":
        found[f"PGCD 0 {fold}"] = []
        for trainer in ("PGCD", "FineTune"):
            found[f"{trainer} 1 {fold}"] = [f"PGCD 0 {fold}"]
            found[f"{trainer} 2 {fold}"] = [f"{trainer} 1 {fold}"]
    return {**found, "evaluate": sorted(found)}


def nodes(state: str) -> None:
    """Drains all nodes, takes them for failed, or resumes them."""
    names = ask("sinfo", "--noheader", "--format=%N").split()[0]
    reason = [] if state == "resume" else ["Reason=slurm_check"]
    with contextlib.suppress(subprocess.CalledProcessError) if state == "resume" else contextlib.nullcontext():
        ask("scontrol", "update", f"NodeName={names}", f"State={state}", *reason)  # some clusters resume by themselves


def restart_controller() -> None:
    """Ends the controller and starts it again."""
    ask("scontrol", "shutdown", "slurmctld")
    wait(lambda: not any(p.name() == "slurmctld" for p in psutil.process_iter(["name"])), 60)
    subprocess.run(["slurmctld"], check=True)
    wait(lambda: subprocess.run(["squeue"], capture_output=True).returncode == 0, 60)
    wait(lambda: not re.search(r"unk|down|\*", ask("sinfo", "--noheader", "--format=%t")), 60)


def submitted(output: str) -> int:
    """Returns how many jobs were submitted."""
    return output.count("  submitted: ")


def check_queue(check: Checks, graph: Graph) -> None:
    """Checks a graph that waits for a node: its dependencies, a second call, a restart, a job that is cancelled."""
    nodes("drain")
    count = submitted(graph.run())
    ids = graph.ids()
    found = {name: sorted(after) for name, after in dependencies(ids).items()}
    check("each job is queued behind those that it needs", found == expected_dependencies(), f"{count} jobs, {found}")
    again = submitted(graph.run())
    check("the same command again submits nothing", again == 0 and queue().keys() == {*ids.values()}, f"{again} jobs")
    restart_controller()
    again = submitted(graph.run())
    same = queue().keys() == {*ids.values()}
    check("nor does it once the controller was restarted", again == 0 and same, f"{again} jobs, the same queue: {same}")
    ask("scancel", ids["FineTune 1 0"])
    behind = {ids[name] for name in ("FineTune 1 0", "FineTune 2 0", "evaluate")}
    took = wait(lambda: behind.isdisjoint(queue()), 120)
    stay = queue().keys() == {*ids.values()} - behind
    check("scancel takes those behind it out, and no others", took is not None and stay, f"after {seconds(took)}")
    again = submitted(graph.run())
    check("what is missing is submitted again", again == len(behind), f"{again} jobs")


def check_to_the_scores(check: Checks, graph: Graph) -> None:
    """Checks a graph that runs: a training that fails, a node that is drained and resumed, the scores."""
    blocked = graph.fold(0, 1)
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("A file where nnU-Net makes a folder.")
    ids = graph.ids()
    behind = {job_id for name, job_id in ids.items() if name.endswith(" 1") or name == "evaluate"}
    nodes("resume")
    took = wait(lambda: behind.isdisjoint(queue()))
    stay = queue().keys() <= {*ids.values()} - behind and ids["PGCD 2 0"] in queue()
    check(
        "a job that fails takes those behind it out, and no others", took is not None and stay, f"after {seconds(took)}"
    )
    blocked.unlink()
    output = graph.run()
    right = submitted(output) == len(behind) and "has ended, with work left" in output
    check("then the log is shown and they are submitted again", right, f"{submitted(output)} jobs")
    wait(lambda: "RUNNING" in queue().values())
    nodes("drain")
    took = wait(lambda: not {"RUNNING", "COMPLETING"} & {*queue().values()})
    waiting = queue()
    check("a drained node ends what runs and starts nothing", took is not None and waiting, f"{len(waiting)} jobs wait")
    nodes("resume")
    took = wait(lambda: not queue(), 2 * WAIT_S)
    finished = [*graph.results.glob("*/fold_*/checkpoint_final.pth")]
    output = graph.run()
    done = took is not None and len(finished) == 10 and submitted(output) == 0
    last = output.strip().splitlines()[-1]
    check("resumed, it goes on to the scores", done, f"{len(finished)} trainings after {seconds(took)}, then: {last}")


def epochs(text: str) -> list[int]:
    """Returns the epochs that a log names."""
    return [int(epoch) for epoch in re.findall(r": Epoch (\d+)\s*$", text, re.M)]


def begun(graph: Graph, before: str, job_id: str) -> bool:
    """Waits until step 0 has finished an epoch more than the log ``before``; tells whether it has."""

    def trains() -> bool:
        return len(epochs(graph.log(0)[len(before) :])) > 1 or job_id not in queue()

    return wait(trains) is not None and job_id in queue()


def ended(graph: Graph, ids: Collection[str]) -> tuple[bool, str]:
    """Waits until jobs have left the queue and no process of the graph is left; returns whether, and after how long."""
    took = wait(lambda: not {*ids} & queue().keys(), 120)
    left = wait(lambda: not graph.processes(), 30)
    return took is not None and left is not None, f"after {seconds(took)}; processes left: {len(graph.processes())}"


def check_interruptions(check: Checks, graph: Graph) -> None:
    """Checks a long training: submitted from within a job, killed, cancelled, and out of time."""
    command = [sys.executable, "-m", "nnunet_cil.cli", *graph.run_arguments("timeout_min=60", "mem_gb=1")]
    outer = ["salloc", "--ntasks=1", "--cpus-per-task=1", "--mem-per-cpu=500", *command]
    inside = subprocess.run(outer, capture_output=True, text=True)
    ids = graph.ids()
    trains = begun(graph, "", ids["PGCD 0 0"])
    check("a graph may be submitted from within a job", trains and inside.returncode == 0, ids)
    graph.training().kill()
    gone, seen = ended(graph, ids.values())
    said = "was killed by the system" in graph.log(0)
    check("a training that is killed ends its job and those behind it", gone and said, f"{seen}; said so: {said}")

    lock = graph.fold(0, 0) / ".in_use.json"
    lock.write_text(re.sub(r'("process": ")\w{8}', r"\g<1>00000000", lock.read_text()))  # as if on another node
    before = graph.log(0)
    count = submitted(graph.run())
    ids = graph.ids()
    trains = begun(graph, before, ids["PGCD 0 0"])
    first = epochs(graph.log(0)[len(before) :])[:1]
    check("the same command goes on from the checkpoint", trains and first > [0], f"{count} jobs, from epoch {first}")
    restart_controller()
    runs = queue().get(ids["PGCD 0 0"]) == "RUNNING" and submitted(graph.run()) == 0
    check("a restart of the controller lets a job run on", runs, queue())
    nodes("down")
    took = wait(lambda: queue().get(ids["PGCD 0 0"]) == "PENDING", 120)
    left = wait(lambda: not graph.processes(), 60)
    again = submitted(graph.run())
    before = graph.log(0)
    nodes("resume")
    ask("scontrol", "update", f"JobId={ids['PGCD 0 0']}", "StartTime=now")  # else two minutes later
    trains = begun(graph, before, ids["PGCD 0 0"])
    first = epochs(graph.log(0)[len(before) :])[:1]
    right = took is not None and left is not None and again == 0 and trains and first > [0]
    check("the job of a node that fails is queued again and goes on", right, f"{again} jobs, from epoch {first}")

    job_process = graph.training().parent()
    assert job_process is not None
    job_process.kill()
    gone, seen = ended(graph, ids.values())
    check("a job whose own process is killed ends with all of it, and those behind it", gone, seen)
    before = graph.log(0)
    graph.run()
    ids = graph.ids()
    begun(graph, before, ids["PGCD 0 0"])
    ask("scancel", ids["PGCD 0 0"])
    output = graph.run("timeout_min=1")  # at once: the job may be completing still
    check(
        "scancel, and the same command at once: all are submitted", submitted(output) == 3, f"{submitted(output)} jobs"
    )

    ids = graph.ids()
    job = ids["PGCD 0 0"]
    trains = begun(graph, graph.log(0), job)
    took = wait(lambda: queue().get(job) == "PENDING", 180)
    there = {*ids.values()} <= queue().keys()
    check(
        "a job whose time is up is queued again",
        trains and took is not None and there,
        f"after {seconds(took)}; {queue()}",
    )
    again = submitted(graph.run("timeout_min=1"))
    check("and the same command does not submit it twice", again == 0, f"{again} jobs")
    before = graph.log(0)
    ask("scontrol", "update", f"JobId={job}", "StartTime=now")
    trains = begun(graph, before, job)
    first = epochs(graph.log(0)[len(before) :])[:1]
    check("it goes on from the checkpoint", trains and first > [0], f"from epoch {first}, having done {epochs(before)}")
    ask("scancel", *ids.values())
    check("scancel of all leaves nothing", *ended(graph, ids.values()))


def prepare(folder: Path) -> None:
    """Makes the data and the schedules, one of a training that does not end by itself."""
    folder.mkdir(parents=True)
    toy.make_dataset(folder, toy.LABELS)
    toy.write_schedule(folder, [toy.ORGANS[:2], toy.ORGANS[2:3], toy.ORGANS[3:]], name=SHORT[0])
    endless = {**toy.SHORT, "num_epochs": 10_000, "save_every": 1}
    toy.write_schedule(folder, [toy.ORGANS[:2], toy.ORGANS[2:]], name=LONG[0], training=endless)


def check_all(folder: Path) -> int:
    """Runs all checks; returns the exit status."""
    if queue():
        raise SystemExit("slurm_check: Jobs are queued. Use a Slurm on which nobody works.")
    os.environ.update(environment(folder))
    prepare(folder)
    check = Checks()
    try:
        check_interruptions(check, Graph(folder, *LONG))
        study = Graph(folder, *SHORT)
        check_queue(check, study)
        check_to_the_scores(check, study)
    finally:
        nodes("resume")
        if left := list(queue()):
            ask("scancel", *left)
    print(f"{check.failed} failed" if check.failed else "All OK")
    return bool(check.failed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="new, on a disk that the nodes share")
    sys.exit(check_all(parser.parse_args().folder.absolute()))
