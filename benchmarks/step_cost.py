"""Measures what a training step costs: our trainers at step 1 against plain nnUNetTrainer of the same size. Needs no data.

    python benchmarks/step_cost.py --classes 4 13 --trainers PGCD MiB -o benchmarks/results/step_cost.json
    python benchmarks/step_cost.py -o benchmarks/results/step_cost.json --table FILE --figure cost.svg

For each setting (plans, number of old classes, patch, batch, ...) a synthetic data set is preprocessed in a temporary folder. A
measurement is a fresh process with two trainers, ours and plain nnU-Net of as many output channels, that take turns at nnU-Net's
train_step, each on one batch of its own: every step is compared with its neighbour, under the same load. Peak memory comes from a
process of its own each. What is in the output file is not measured again. What runs once at either end of a step (passes over
the training cases) is not part of a training step and is cut down to one patch.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cost_report
import synthetic

PLAIN = "nnUNetTrainer"
METHODS = (
    *("PGCD", "PGCDPaper", "FineTune", "Frozen", "Joint", "PseudoLabel", "LwF"),
    *("ILT", "MiB", "PLOP", "EWC", "EWF", "Replay"),
)
WARM_UP = 2
EPOCHS = 4


def settings(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Returns every combination that was asked for; each names a measurement in the output file."""
    for kind, compiled, old_classes, interval in itertools.product(
        args.plans, args.compile, args.classes, args.intervals
    ):
        flat = kind == "2d"
        yield {
            "device": args.device,
            "plans": kind,
            "old_classes": old_classes,
            "patch": args.patch_2d if flat else args.patch,
            "batch": args.batch_2d if flat else args.batch,
            "features": args.features,
            "compiled": compiled == "yes",
            "threads": args.threads,
            "interval": interval,
        }


def entry_of(content: dict[str, Any], setting: dict[str, Any]) -> dict[str, Any]:
    """Returns the setting's entry in the output file, a new one if need be."""
    for entry in content["settings"]:
        if all(entry.get(k) == v for k, v in setting.items()):
            return entry
    content["settings"].append({**setting, "trainers": {}, "counts": {}})
    return content["settings"][-1]


def measure_setting(setting: dict[str, Any], args: argparse.Namespace, content: dict[str, Any]) -> None:
    """Measures whatever the output file lacks of a setting; it is written after every round."""
    entry = entry_of(content, setting)
    names = [f"nnUNetTrainer{t}" for t in args.trainers]
    if args.again:
        for found in (entry["trainers"], entry["counts"]):
            for name in names:
                found.pop(name, None)
    rounds = [[n for n in names if len(entry["trainers"].get(n, [])) <= i] for i in range(args.repeats)]
    uncounted = [n for n in (PLAIN, *names) if n not in entry["counts"]] if args.counts else []
    if not any(rounds) and not uncounted:
        print(f"{describe(setting)}: is there", file=sys.stderr, flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        child = Child(setting, args, Path(folder))
        entry.update(child.run("prepare", ""))
        for missing in rounds:
            plain_memory = child.run("memory", PLAIN) if missing else {}
            for name in missing:
                found = child.run("measure", name)
                found["plain"] |= plain_memory
                found["own"] |= child.run("memory", name)
                entry["trainers"].setdefault(name, []).append(found)
                write(content, args.output)
        for name in uncounted:
            entry["counts"][name] = child.run("count", name)
            write(content, args.output)


def describe(setting: dict[str, Any]) -> str:
    """Prints one line on a setting."""
    interval = f", every {setting['interval']}th iteration" if setting["interval"] > 1 else ""
    compiled = ", compiled" if setting["compiled"] else ""
    return f"{setting['plans']}, {setting['old_classes']} old classes{interval}{compiled}"


def write(content: dict[str, Any], output: Path | None) -> None:
    """Writes a file aside and moves it into place."""
    if output is not None:
        aside = output.with_suffix(".tmp")
        aside.write_text(json.dumps(content, indent=1) + "\n")
        aside.replace(output)


class Child:
    """Runs this file again, in a process of its own, for one setting."""

    def __init__(self, setting: dict[str, Any], args: argparse.Namespace, folder: Path) -> None:
        """Prepares the process; the data set goes into ``folder``."""
        self.setting = setting
        self.asked = {**setting, "steps": args.steps, "epoch": args.epoch, "folder": str(folder)}
        self.environment = {
            **os.environ,
            **synthetic.environment(folder),
            "nnUNet_n_proc_DA": "0",
            "nnUNet_compile": "t" if setting["compiled"] else "f",
            "OMP_NUM_THREADS": str(setting["threads"]),
        }

    def run(self, what: str, trainer: str) -> dict[str, Any]:
        """Returns what the process found. Stops with its last words if it fails."""
        begin = time.perf_counter()
        command = [sys.executable, __file__, "--child", json.dumps({**self.asked, "what": what, "trainer": trainer})]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{describe(self.setting)}: {what} {trainer} failed.\n{done.stderr[-3000:]}")
        seconds = time.perf_counter() - begin
        print(f"{describe(self.setting)}: {what} {trainer} took {seconds:.0f} s", file=sys.stderr, flush=True)
        found = json.loads(done.stdout.splitlines()[-1])
        assert isinstance(found, dict)
        return found


# --- in the process of its own ------------------------------------------------------------------------------


def prepare(asked: dict[str, Any]) -> dict[str, Any]:
    """Makes the data set, the plans of its steps and the model of step 0."""
    import torch

    num_classes = asked["old_classes"] + 1
    folder = Path(asked["folder"])
    synthetic.make_dataset(folder, asked["plans"], num_classes, asked["patch"], asked["batch"], asked["features"])
    first, _ = synthetic.plan_steps(folder, num_classes)
    synthetic.untrained_step_0(first, asked["plans"], asked["device"])
    device = torch.cuda.get_device_name() if asked["device"] == "cuda" else platform.machine()
    return {"torch": torch.__version__, "machine": device, "cores": os.cpu_count()}


def started_trainer(asked: dict[str, Any], name: str) -> Any:
    """Returns a trainer about to train."""
    plans = synthetic.PLANS if name == PLAIN else f"{synthetic.PLANS}_{synthetic.SCHEDULE}_step1"
    trainer = synthetic.make_trainer(name, plans, asked["plans"], asked["device"])
    if name != PLAIN:
        trainer.training_pass = one_tile(trainer.training_pass)
        if asked["interval"] > 1:
            type(trainer).check_hyperparameters({"distillation_interval": asked["interval"]}, "--intervals")
            trainer.distillation_interval = asked["interval"]
    trainer.on_train_start()
    trainer.network.train()
    return trainer


def one_tile(training_pass: Callable[[], Any]) -> Callable[[], Any]:
    """Returns the same pass over the training cases, of which only the first tile is looked at."""
    from nnunet_cil.training.passes import TrainingPass

    class OneTile(TrainingPass):
        def tiles(self, batch_size: int | None = None) -> Any:
            return itertools.islice(super().tiles(batch_size), 1)

    return lambda: OneTile(**vars(training_pass()))


def measure(asked: dict[str, Any]) -> dict[str, Any]:
    """Measures seconds of training steps and of epochs, plain nnU-Net and the trainer in turns.

    With an interval k, a step is the mean of k in a row, of which one asks the teacher.
    """
    cuda = asked["device"] == "cuda"
    trainers = {"plain": started_trainer(asked, PLAIN), "own": started_trainer(asked, asked["trainer"])}
    batches = {which: next(trainer.dataloader_train) for which, trainer in trainers.items()}
    found: dict[str, Any] = {which: {} for which in trainers}

    def turns(what: str, number: int, work: Callable[[str], Any]) -> None:
        for index in range(number):
            for which in list(trainers)[:: 1 if index % 2 else -1]:
                seconds, cpu_seconds = seconds_of(lambda w=which: work(w), cuda)
                found[which].setdefault(f"{what}seconds", []).append(seconds)
                found[which].setdefault(f"{what}cpu_seconds", []).append(cpu_seconds)

    interval = asked["interval"]
    turns("warm_up_", max(WARM_UP, interval), lambda which: trainers[which].train_step(dict(batches[which])))
    turns("", asked["steps"] * interval, lambda which: trainers[which].train_step(dict(batches[which])))
    for own in found.values():
        for name in ("seconds", "cpu_seconds"):
            own[name] = [statistics.mean(own[name][i : i + interval]) for i in range(0, len(own[name]), interval)]
    if asked["epoch"]:
        turns("epoch_", EPOCHS, lambda which: epoch(trainers[which], asked["epoch"]))
    return {which: {k: v for k, v in f.items() if not k.startswith("warm_up")} for which, f in found.items()}


def memory(asked: dict[str, Any]) -> dict[str, Any]:
    """Measures the peak memory of training steps in MiB."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args  # noqa: F401  imported before memory is looked at

    before = resident_mib()
    cuda = asked["device"] == "cuda"
    trainer = started_trainer(asked, asked["trainer"])
    batch = next(trainer.dataloader_train)
    for _ in range(WARM_UP):
        trainer.train_step(dict(batch))
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    trainer.train_step(dict(batch))
    return {
        "peak_mib": torch.cuda.max_memory_allocated() / 2**20 if cuda else resident_mib(),
        "before_mib": 0 if cuda else before,
    }


def epoch(trainer: Any, iterations: int) -> None:
    """Runs nnU-Net's epoch without checkpoint and plot: load and train, and a fifth as many validation iterations."""
    import torch

    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    trainer.on_train_epoch_end([trainer.train_step(next(trainer.dataloader_train)) for _ in range(iterations)])
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        number = max(1, iterations // 5)
        outputs = [trainer.validation_step(next(trainer.dataloader_val)) for _ in range(number)]
        trainer.on_validation_epoch_end(outputs)


def seconds_of(work: Callable[[], Any], cuda: bool) -> tuple[float, float]:
    """Returns the seconds of the clock, and of all threads of the process."""
    import torch

    def finish() -> None:
        if cuda:
            torch.cuda.synchronize()

    finish()
    start, cpu_start = time.perf_counter(), time.process_time()
    work()
    finish()
    return time.perf_counter() - start, time.process_time() - cpu_start


def resident_mib() -> float:
    """Returns the most memory that this process had so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def count(asked: dict[str, Any]) -> dict[str, Any]:
    """Counts waits for the host in a training step, and memory that the loss holds, in units of a full-resolution feature map."""
    import torch
    from counting import Counting

    trainer = started_trainer(asked, asked["trainer"])
    batch = next(trainer.dataloader_train)
    teacher = getattr(trainer, "teacher", None)
    asked_teacher = False
    if teacher is not None:
        run = teacher._run

        def noted(*args: Any) -> Any:
            nonlocal asked_teacher
            asked_teacher = True
            return run(*args)

        teacher._run = noted
    trainer.train_step(dict(batch))
    with Counting() as whole, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if asked["device"] == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        trainer.train_step(dict(batch))
        if asked["device"] == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    found: dict[str, Any] = {}
    forward = trainer.loss.forward

    def looked_at(output: Any, target: Any) -> Any:
        given = trainer.loss._batch.teacher if asked_teacher else ()  # the network's own memory is not the loss's
        logits = output[0] if isinstance(output, (list, tuple)) else output
        channels = trainer.configuration_manager.network_arch_init_kwargs["features_per_stage"][0]
        unit = logits[:, 0].numel() * channels * 4
        with Counting() as counting:
            loss = forward(output, target)
        held = counting.held()
        found.update(
            logits=logits.shape[1] / channels,
            teacher=sum(t.nbytes for t in given) / unit,
            peak=counting.peak / unit,
            held=held.total() / unit,
            terms={t: [round(held[t] / unit, 3), round(p / unit, 3)] for t, p in counting.peaks.items()},
        )
        return loss

    trainer.loss.forward = looked_at
    trainer.train_step(dict(batch))
    syncs = sum("synchroniz" in str(w.message) for w in caught)
    return {"waits": dict(whole.waits), **({"cuda_syncs": syncs} if asked["device"] == "cuda" else {}), **found}


# --- the command line ---------------------------------------------------------------------------------------


def main() -> None:
    """Measures, then prints tables and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--plans", nargs="+", default=["3d"], choices=synthetic.KINDS)
    parser.add_argument("--classes", type=int, nargs="+", default=[4], help="numbers of old classes; one is new")
    parser.add_argument("--trainers", nargs="+", default=METHODS, help="without 'nnUNetTrainer' (default: all)")
    parser.add_argument("--patch", type=int, nargs=3, default=[32, 32, 32], help="(default: %(default)s)")
    parser.add_argument("--patch-2d", type=int, nargs=2, default=[128, 128], help="(default: %(default)s)")
    parser.add_argument("--batch", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--batch-2d", type=int, default=4, help="(default: %(default)s)")
    parser.add_argument("--features", type=int, nargs="+", help="of each stage (default: as nnU-Net plans)")
    parser.add_argument(
        "--intervals",
        type=int,
        nargs="+",
        default=[1],
        metavar="K",
        help="the teacher speaks in every K-th iteration (default: 1)",
    )
    parser.add_argument("--compile", nargs="+", default=["no"], choices=["no", "yes"], help="torch.compile, CUDA only")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of PyTorch (default: %(default)s)")
    parser.add_argument(
        "--steps", type=int, default=10, help="timed steps a process, of each trainer (default: %(default)s)"
    )
    parser.add_argument("--epoch", type=int, default=0, metavar="N", help="also time epochs of N iterations")
    parser.add_argument("--repeats", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--counts", action="store_true", help="also count host synchronisations and tensors alive")
    parser.add_argument("--again", action="store_true", help="measure anew what is in the output file")
    parser.add_argument("-o", dest="output", type=Path, help="JSON file; taken up where it ends")
    parser.add_argument(
        "--table", nargs="?", const="-", metavar="FILE", help="measure nothing: print tables, or put them into FILE"
    )
    parser.add_argument("--figure", type=Path, help="measure nothing: draw cost over classes, as SVG or PNG")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        what = {"prepare": prepare, "measure": measure, "memory": memory, "count": count}[args.child["what"]]
        print("\n" + json.dumps(what(args.child)))
        return
    content = json.loads(args.output.read_text()) if args.output and args.output.is_file() else {"settings": []}
    if not args.table and not args.figure:
        for setting in settings(args):
            measure_setting(setting, args, content)
        print(cost_report.tables(content))
    if args.table:
        cost_report.put(cost_report.tables(content), args.table, args.output.stem)
    if args.figure:
        cost_report.figure(content).savefig(args.figure)


if __name__ == "__main__":
    main()
