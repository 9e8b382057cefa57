"""Kills commands at random times, calls them again until they end well, and compares the end with an undisturbed one's.

    python benchmarks/kills.py WORK -o kills.jsonl                          # all of it: about an hour on two cores
    python benchmarks/kills.py WORK -o kills.jsonl --only extend --kills 4  # a part of it
    python benchmarks/kills.py WORK -o kills.jsonl --quick                  # few of each
    python benchmarks/kills.py --table kills.jsonl                          # Markdown

A life is a command from a fresh folder to its good end. Half of the kills hit the whole process group, half one process alone:
in turn the command itself, and the command of nnU-Net that it has started, as the kernel does when memory runs out. Each kill
comes after a time drawn uniformly from 0 to the length that the command has undisturbed (for the long schedule: to 15 % of
it), and the command is called again at once or, every other time, when nothing is left of it. "two runs" starts two commands
at once and kills none. Each life is stored as a line when it ends; the same call goes on after the last one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # the toy data set

import kills_checks as checks  # noqa: E402
from kills_commands import (  # noqa: E402
    MIB,
    PGCD,
    Phase,
    Scenario,
    Workplace,
    environment,
    run_command,
    scenarios,
    schedule_faults,
    write_schedule,
)

MARK = "NNUNET_CIL_KILLS"
"""The environment variable by which processes of an attempt are found again."""

GRACE_S = 60.0
"""So long may processes take to end when another one was killed."""

TOOL = "nnU-Net's command"


@dataclass
class Attempt:
    """One call of a command."""

    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def start(self) -> None:
        """Starts the command in a process group of its own, with its output in the log."""
        self.begin = time.monotonic()
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                env={**self.environment, MARK: self.mark},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self, seconds: float) -> int | None:
        """Returns the exit status; None if the command is still running after that time."""
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(seconds)
        return None

    def left(self) -> list[Any]:
        """Returns the processes that carry the attempt's mark."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def kill(self, whom: str) -> str:
        """Kills the group, the command alone, or the command of nnU-Net that it has started; returns which it was."""
        if whom == "group":
            os.killpg(self.process.pid, signal.SIGKILL)
            return whom
        started = [p for p in self.left() if "end_with_parent" in _command_line(p)]
        if whom == TOOL and started:
            started[0].kill()
            return whom
        self.process.kill()
        return "command"

    def wait_for_the_last(self) -> list[str]:
        """Waits until no process of the attempt is left; returns those that stay too long, and ends them."""
        deadline = time.monotonic() + GRACE_S
        while (left := self.left()) and time.monotonic() < deadline:
            time.sleep(0.2)
        names = [_command_line(p)[-120:] for p in left]
        for process in left:
            with suppress(Exception):
                process.kill()
        return names


def _command_line(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


class Life:
    """A scenario in a fresh folder, from its first command to its good end."""

    def __init__(
        self, scenario: Scenario, workplace: Workplace, name: str, lengths: Sequence[float], seed: str
    ) -> None:
        """Makes the folder.

        Args:
            scenario: what is called.
            workplace: takes the folder.
            name: of the life.
            lengths: of the phases, undisturbed, in seconds.
            seed: of the times.
        """
        self.scenario, self.lengths = scenario, lengths
        self.folder = workplace.folder / "lives" / name
        self.log = self.folder.with_name(f"{name}.txt")
        self.log.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.parent.mkdir(exist_ok=True)
        scenario.prepare(self.folder)
        self.random = random.Random(seed)
        self.kills: list[dict[str, Any]] = []
        self.refusals: list[str] = []
        self.faults: list[str] = []
        self._attempts: list[Attempt] = []

    def live(self, num_kills: int) -> None:
        """Calls and kills until the end; at most so many kills."""
        for phase, length in zip(self.scenario.phases, self.lengths, strict=True):
            while not self._end_well(phase, length, num_kills):
                if self.faults:
                    break
        for attempt in self._attempts:
            self.faults += [f"still running: {name}" for name in attempt.wait_for_the_last()]

    def _end_well(self, phase: Phase, length: float, num_kills: int) -> bool:
        """Calls a phase once, and tells whether it ended well."""
        attempt = Attempt(phase(self.folder), environment(self.folder), self.log)
        self._attempts.append(attempt)
        attempt.start()
        if len(self.kills) < num_kills:
            after = self.random.uniform(0, length * self.scenario.share)
            status = attempt.wait(after)
            if status is None:
                self._kill(attempt, after)
                return False
        else:
            status = attempt.wait(600 + 5 * length)
            if status is None:
                self.faults.append(f"waits: {_end(self.log)}")
                attempt.kill("group")
                return False
        return status == 0 or self._is_good_all_the_same(attempt)

    def _kill(self, attempt: Attempt, after: float) -> None:
        number = len(self.kills)
        waits = self.random.random() < 0.5
        whom = attempt.kill("group" if number % 2 else ("command", TOOL)[number // 2 % 2])
        begin = time.monotonic()
        if whom == TOOL:  # the command notices, and ends by itself
            if attempt.wait(GRACE_S) is None:
                self.faults.append(f"waits for a command that was killed: {_end(self.log)}")
                attempt.kill("group")
        else:
            attempt.process.wait()
        seconds = None
        if waits:
            self.faults += [f"left over by a kill of the {whom}: {name}" for name in attempt.wait_for_the_last()]
            seconds = round(time.monotonic() - begin, 1)
        self.kills.append({"after_s": round(after, 2), "whom": whom, "gone_after_s": seconds})
        print(f"    killed the {whom} after {after:.1f} s", flush=True)

    def _is_good_all_the_same(self, attempt: Attempt) -> bool:
        """Tells whether a command that failed says that all is there; whatever it says is kept."""
        said = _end(self.log)
        if "is there already" in said:
            return True
        self.refusals.append(said)
        if "is in use" not in said or len(self.refusals) > 20:
            self.faults.append(f"refused: {said}")
        time.sleep(1)
        return False

    def look(self, reference: Path | None) -> None:
        """Looks for what is wrong at the end."""
        if not self.faults and reference is not None:
            self.faults += self.scenario.faults(self.folder, reference)


def _end(log: Path) -> str:
    """Returns the end of a log, in one line."""
    return " | ".join(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-8:])[-1500:]


class Study:
    """Lives of several scenarios, stored as they end."""

    def __init__(self, workplace: Workplace, output: Path, seed: int) -> None:
        """Reads what is stored."""
        self.workplace, self.output, self.seed = workplace, output, seed
        self.lives = read(output)

    def undisturbed(self, scenario: Scenario) -> tuple[Path, list[float]]:
        """Returns the folder of an undisturbed life, and how long its phases took, in seconds."""
        name = _file_name(f"undisturbed {scenario.name}")
        folder, file = self.workplace.folder / "lives" / name, self.workplace.folder / f"{name}.json"
        if not file.is_file():
            life = Life(scenario, self.workplace, name, [3600.0] * len(scenario.phases), "")
            lengths = []
            for phase in scenario.phases:
                begin = time.monotonic()
                if not life._end_well(phase, 3600, 0):
                    raise SystemExit(f"{scenario.name} fails undisturbed: {_end(life.log)}")
                lengths.append(time.monotonic() - begin)
            faults = list(scenario.faults(folder, folder))
            if faults:
                raise SystemExit(f"{scenario.name}, undisturbed: {faults}")
            file.write_text(json.dumps(lengths))
        lengths = json.loads(file.read_text())
        print(f"{scenario.name}: {' + '.join(f'{s:.0f}' for s in lengths)} s undisturbed", flush=True)
        return folder, lengths

    def kill(self, scenario: Scenario, num_kills: int, per_life: int) -> None:
        """Lets a scenario live until it was killed so many times."""
        reference, lengths = self.undisturbed(scenario)
        while (done := sum(len(x["kills"]) for x in self.of(scenario.name))) < num_kills:
            number = len(self.of(scenario.name))
            name = f"{scenario.name} {number}"
            print(f"  {name}: {done} of {num_kills} kills", flush=True)
            begin = time.monotonic()
            life = Life(scenario, self.workplace, _file_name(name), lengths, f"{self.seed} {name}")
            life.live(min(per_life, num_kills - done))
            seconds = time.monotonic() - begin
            life.look(reference)
            self.store(
                {
                    "scenario": scenario.name,
                    "seed": f"{self.seed} {name}",
                    "undisturbed_s": round(sum(lengths), 1),
                    "seconds": round(seconds, 1),
                    "kills": life.kills,
                    "in_use": len(life.refusals),
                    "epochs_begun": checks.epochs_begun(life.folder),
                    "faults": life.faults,
                },
                life,
            )

    def of(self, name: str) -> list[dict[str, Any]]:
        """Returns the lives of a scenario."""
        return [x for x in self.lives if x["scenario"] == name]

    def store(self, content: dict[str, Any], life: Life) -> None:
        """Stores a life; its folder goes if nothing is wrong."""
        for fault in content["faults"]:
            print(f"    FAULT: {fault}", flush=True)
        self.lives.append(content)
        with self.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(content) + "\n")
        if not content["faults"]:
            shutil.rmtree(life.folder)
            life.log.unlink(missing_ok=True)


def _file_name(name: str) -> str:
    return name.replace(" --", "_").replace(" ", "_")


PAIRS = {
    "the same": (([0], [PGCD]), ([0], [PGCD])),
    "other trainers": (([0], [PGCD]), ([0], [MIB])),
    "other folds": (([0], [PGCD]), ([1], [PGCD])),
    "some in common": (([0, 1], [PGCD]), ([0], [PGCD, MIB])),
}
"""Folds and trainers of two commands that are called at once."""


def two_runs(study: Study, times: int) -> None:
    """Starts two ``nnunet_cil run`` at once, up to two seconds apart, and looks at what they leave."""

    def prepare(folder: Path) -> None:
        shutil.copytree(study.workplace.raw(), folder)
        write_schedule(folder, [["liver", "spleen"], ["kidney"]])

    while (number := len(study.of("two runs"))) < times:
        kind, pair = list(PAIRS.items())[number % len(PAIRS)]
        name = f"two runs {number}"
        print(f"  {name}: {kind}", flush=True)
        begin = time.monotonic()
        scenario = Scenario(name="two runs", kills=0, prepare=prepare, phases=(), faults=schedule_faults)
        life = Life(scenario, study.workplace, _file_name(name), [], f"{study.seed} {name}")
        apart = life.random.uniform(0, 2) * (number // len(PAIRS) % 2)
        attempts = []
        for index, (folds, trainers) in enumerate(pair):
            log = life.folder.with_name(f"{_file_name(name)}_{index}.txt")
            log.unlink(missing_ok=True)
            attempts.append(Attempt(run_command(life.folder, folds, trainers), environment(life.folder), log))
            attempts[-1].start()
            time.sleep(apart)
        statuses = [attempt.wait(900) for attempt in attempts]
        ends = [_end(attempt.log) for attempt in attempts]
        refused = [end for status, end in zip(statuses, ends, strict=True) if status != 0]
        life.faults += [f"waits: {end}" for status, end in zip(statuses, ends, strict=True) if status is None]
        expected = kind in ("the same", "some in common")
        if len(refused) != expected or not all("is in use by process" in end for end in refused):
            life.faults.append(f"refused: {refused}")
        life.faults += [f"still running: {n}" for attempt in attempts for n in attempt.wait_for_the_last()]
        life.faults += pair_faults(life.folder, pair, statuses)
        study.store(
            {
                "scenario": "two runs",
                "seed": f"{study.seed} {name}",
                "kind": kind,
                "apart_s": round(apart, 2),
                "seconds": round(time.monotonic() - begin, 1),
                "kills": [],
                "refused": len(refused),
                "epochs_begun": checks.epochs_begun(life.folder),
                "faults": life.faults,
            },
            life,
        )


def pair_faults(folder: Path, pair: Any, statuses: Sequence[int | None]) -> Iterator[str]:
    """Yields what is wrong with what two commands have left: each asked model once, in one lineage."""
    yield from (f"left over: {n}" for n in checks.names_in(folder) if any(p.startswith(".") for p in Path(n).parts))
    results = folder / "results"
    asked = {
        (trainer if step else PGCD, step, fold)
        for (folds, trainers), status in zip(pair, statuses, strict=True)
        if status == 0
        for fold in folds
        for trainer in trainers
        for step in (0, 1)
    }
    found = {
        (fold.parent.name.split("__")[0], int(fold.parent.name.split("__")[1][-1]), int(fold.name[-1]))
        for fold in checks.folds_of(results)
    }
    if found != asked:
        yield f"trained {sorted(found)} instead of {sorted(asked)}"
    yield from schedule_faults_without_names(folder)
    if checks.epochs_begun(results) != 2 * len(asked):
        yield f"{checks.epochs_begun(results)} epochs for {len(asked)} trainings"


def schedule_faults_without_names(folder: Path) -> Iterator[str]:
    """Yields as ``schedule_faults``, but for the names of files."""
    return (f for f in schedule_faults(folder, folder) if "no scores" not in f)


def read(file: Path) -> list[dict[str, Any]]:
    """Returns the stored lives."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def table(lives: Sequence[Mapping[str, Any]]) -> str:
    """Returns Markdown: a row for each command."""
    lines = [
        "| command | lives | kills | of the group | of the command | of nnU-Net's command | faults | all gone after |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(x["scenario"] for x in lives):
        own = [x for x in lives if x["scenario"] == name]
        kills = [k for x in own for k in x["kills"]]
        hit = [sum(k["whom"] == whom for k in kills) for whom in ("group", "command", TOOL)]
        gone = [k["gone_after_s"] for k in kills if k["gone_after_s"] is not None]
        last = f"{max(gone):.1f} s" if gone else ""
        faults = sum(len(x["faults"]) for x in own)
        lines.append(f"| {name} | {len(own)} | {len(kills)} | {' | '.join(map(str, hit))} | {faults} | {last} |")
    return "\n".join(lines)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", nargs="?", type=Path, metavar="WORK", help="folder for everything that is written")
    parser.add_argument(
        "-o", dest="output", type=Path, default=Path("kills.jsonl"), help="results (default: %(default)s)"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="schedule, extend, evaluate, convert, export, two")
    parser.add_argument("--kills", type=int, metavar="N", help="kills of each command (default: 100 and 20), and pairs")
    parser.add_argument(
        "--per-life", type=int, default=25, metavar="N", help="most kills of a life (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="as --kills 2")
    parser.add_argument("--seed", type=int, default=0, help="of the times (default: %(default)s)")
    parser.add_argument("--table", type=Path, metavar="FILE", help="only print the table of these results")
    args = parser.parse_args()
    if args.table:
        print(table(read(args.table)))
        return
    if not args.work:
        parser.error("give WORK, or --table")
    os.environ.update(environment(args.work))  # for what this process preprocesses itself
    study = Study(Workplace(args.work), args.output, args.seed)
    kills = 2 if args.quick else args.kills
    for scenario in scenarios(study.workplace):
        if not args.only or scenario.name.split()[0] in args.only:
            study.kill(scenario, kills or scenario.kills, args.per_life)
    if not args.only or "two" in args.only:
        two_runs(study, kills or 20)
    print(table(study.lives))
    if any(x["faults"] for x in study.lives):
        sys.exit("There are faults.")


if __name__ == "__main__":
    main()
