"""Times the commands that train nothing on a data set of many tiny cases: plan, status, run --dry-run, evaluate. Needs no data.

    python benchmarks/many_cases.py make FOLDER -n 10000
    python benchmarks/many_cases.py time FOLDER -o benchmarks/results/many_cases.json
    python benchmarks/many_cases.py --table benchmarks/results/many_cases.json

A case is 6 x 6 x 6 voxels. There are as many test cases as training cases. Models look trained, and their predictions are there:
evaluate only scores. Every command runs in a process of its own.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import synthetic
from cost_report import table
from scale import plan_schedule, steps_of

SIDE, CLASSES, STEPS = 6, 3, 3
TRAINER = "nnUNetTrainerFineTune"
COMMANDS = ("plan", "status", "run --dry-run", "evaluate")
"""Lists them in their order: the first one writes the plans of the steps."""


def arguments(command: str, root: Path) -> list[str]:
    """Returns the arguments of ``nnunet_cil``."""
    schedule = str(root / "schedule.json")
    if command == "plan":
        return ["plan", synthetic.DATASET, schedule]
    name, *options = command.split()
    options += [] if name == "status" else ["-device", "cpu"]
    return [name, synthetic.DATASET, "3d_fullres", "0", schedule, "-tr", TRAINER, *options]


def make(root: Path, number: int) -> None:
    """Makes the data set, the models of all steps, and their predictions of the test cases."""
    os.environ.update(synthetic.environment(root))
    synthetic.make_dataset(root, "3d", CLASSES, [SIDE * 2 // 3] * 3, 2, [4, 8])
    raw, preprocessed = root / "raw" / synthetic.DATASET, root / "preprocessed" / synthetic.DATASET
    content = {**json.loads((preprocessed / "dataset.json").read_text()), "numTraining": number}
    for folder in (raw, preprocessed):
        (folder / "dataset.json").write_text(json.dumps(content))
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (raw / name).mkdir()
    references, data = preprocessed / "gt_segmentations", next(preprocessed.glob("nnUNetPlans_*"))
    image, labels = ((raw / f"case_0{end}.nii").read_bytes() for end in ("_0000", ""))
    templates = {f.name.removeprefix("case_0"): f.read_bytes() for f in data.iterdir() if f.name.startswith("case_0")}
    for file in (*raw.glob("case_*"), *data.iterdir(), *references.iterdir(), preprocessed / "splits_final.json"):
        file.unlink()
    for i in range(number):
        case, own_image = f"case_{i:05}", image[:-4] + np.float32(i).tobytes()
        for part, name in (("Tr", case), ("Ts", f"test_{i:05}")):
            (raw / f"images{part}" / f"{name}_0000.nii").write_bytes(own_image)
            (raw / f"labels{part}" / f"{name}.nii").write_bytes(labels)
        (references / f"{case}.nii").write_bytes(labels)
        for end, template in templates.items():
            (data / f"{case}{end}").write_bytes(template)
    write_models(root)


def write_models(root: Path) -> None:
    """Writes models that look trained, and predictions of the test cases: what the references show of the model's classes."""
    from nnunet_cil.case_hashes import CaseHashes
    from nnunet_cil.content import file_sha256
    from nnunet_cil.workflows.evaluate.predict import source_of

    raw, results = root / "raw" / synthetic.DATASET, root / "results" / synthetic.DATASET
    evaluation = results / "evaluation" / f"{synthetic.PLANS}_{synthetic.SCHEDULE}__3d_fullres"
    lineage: tuple[Any, ...] = ()
    previous = None
    for plans_name in plan_schedule(root, None, steps_of(CLASSES, STEPS)):
        trainer = synthetic.make_trainer(TRAINER, plans_name, "3d", "cpu")
        trainer.initialize()
        trainer.lineage, trainer._previous_sha256, trainer.is_trained = lineage, previous, True
        trainer.case_hashes = CaseHashes.of(*trainer.do_split())
        file = Path(trainer.output_folder) / "checkpoint_final.pth"
        trainer.save_checkpoint(str(file))
        trainer._lock.release()
        lineage, previous = (*lineage, trainer.step_record()), file_sha256(file)
        for name in ("dataset.json", f"{plans_name}.json"):
            shutil.copy(root / "preprocessed" / synthetic.DATASET / name, trainer.output_folder_base)
        Path(trainer.output_folder_base, f"{plans_name}.json").rename(Path(trainer.output_folder_base, "plans.json"))
        folder = evaluation / "predictions" / f"{TRAINER}_step{trainer.step_plan.step}_fold0"
        folder.mkdir(parents=True)
        for file in (raw / "labelsTs").iterdir():
            header, voxels = file.read_bytes()[: -(SIDE**3)], np.frombuffer(file.read_bytes()[-(SIDE**3) :], np.uint8)
            (folder / file.name).write_bytes(header + (voxels * (voxels <= len(lineage))).tobytes())
        source_of(previous, raw / "imagesTs").write(folder, sorted(folder.iterdir()))


def timed(root: Path, command: str, profile: Path | None) -> dict[str, float]:
    """Runs a command in this process; returns its seconds, by the clock and of the CPU with those of its processes."""
    from nnunet_cil.cli.main import main

    begin, cpu_begin = time.perf_counter(), sum(os.times()[:4])
    if profile is None:
        status = main(arguments(command, root))
    else:
        profiler = cProfile.Profile()
        status = profiler.runcall(main, arguments(command, root))
        profiler.dump_stats(profile)
    if status:
        raise SystemExit(status)
    return {"clock": time.perf_counter() - begin, "cpu": sum(os.times()[:4]) - cpu_begin}


def measure(root: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Runs every command, in a process of its own each."""
    number = sum(1 for _ in (root / "raw" / synthetic.DATASET / "imagesTr").iterdir())
    environment = {**os.environ, **synthetic.environment(root), "nnUNet_def_n_proc": "2"}
    found: dict[str, Any] = {"name": args.name, "cases": number, "commands": {}}
    for command in args.commands:
        child = [sys.executable, __file__, "child", str(root), "--commands", command]
        if args.profile:
            child += ["--profile", f"{args.profile}_{command.split()[0]}.prof"]
        done = subprocess.run(child, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{command} failed.\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
        found["commands"][command] = json.loads(done.stdout.splitlines()[-1])
        print(command, found["commands"][command], flush=True)
    return found


def show(stored: list[dict[str, Any]]) -> str:
    """Returns the table: seconds of the CPU."""
    lines = [
        [
            f"`{command}`",
            *(f"{found['commands'][command]['cpu']:.0f}" if command in found["commands"] else "" for found in stored),
        ]
        for command in COMMANDS
    ]
    return table(["CPU seconds", *(f"{found['name']}, {found['cases']} cases" for found in stored)], lines)


def main() -> None:
    """Makes the data set, measures, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["make", "time", "child"])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("-n", type=int, default=10_000, help="cases (default: %(default)s)")
    parser.add_argument("--name", default="now", help="of this measurement, in the table (default: %(default)s)")
    parser.add_argument("-o", dest="output", type=Path, help="JSON file; a measurement is added")
    parser.add_argument("--table", type=Path, help="measure nothing: print the table of a file")
    parser.add_argument("--commands", nargs="+", default=COMMANDS, choices=COMMANDS, help="(default: all)")
    parser.add_argument("--profile", type=Path, metavar="PREFIX", help="also write profiles, which costs time")
    args = parser.parse_args()
    if args.table:
        print(show(json.loads(args.table.read_text())))
    elif args.what == "make":
        make(args.folder.absolute(), args.n)
    elif args.what == "child":
        print("\n" + json.dumps(timed(args.folder, args.commands[0], args.profile)))
    else:
        stored = json.loads(args.output.read_text()) if args.output and args.output.is_file() else []
        stored.append(measure(args.folder.absolute(), args))
        if args.output:
            args.output.write_text(json.dumps(stored, indent=1) + "\n")
        print(show(stored))


if __name__ == "__main__":
    main()
