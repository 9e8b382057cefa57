"""Measures what prediction, start-up and planning cost: a step's model against a plain nnU-Net model as large. Needs no data.

    python benchmarks/prediction_cost.py -o benchmarks/results/prediction_cost.json
    python benchmarks/prediction_cost.py -o benchmarks/results/prediction_cost.json --table FILE

prediction: nnU-Net's predictor, sliding window with mirroring, on one volume; a plain model, a step's model and that model
exported take turns in one process. start-up: ``nnunet_cil --help`` and ``nnunet_cil schedules`` against ``python -c pass``, fresh
processes in turns, and which heavy modules they import. plan: ``nnunet_cil plan`` on a preprocessed data set of many cases.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cost_report
import synthetic

HEAVY = ("numpy", "scipy", "pandas", "matplotlib", "SimpleITK", "torch", "nnunetv2", "monai")
COMMANDS = {"nnunet_cil --help": ["--help"], "nnunet_cil schedules": ["schedules"]}
KIND = "3d"
PARTS = ("prediction", "start_up", "plan")


def seconds_of(work: Callable[[], Any]) -> tuple[float, float]:
    """Returns the seconds of the clock, and of all threads of this process."""
    start, cpu_start = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - cpu_start


def prepare(folder: Path, asked: dict[str, Any]) -> list[str]:
    """Makes the data set and the plans of its two steps."""
    num_classes = asked["old_classes"] + 1
    synthetic.make_dataset(folder, KIND, num_classes, asked["patch"], 2, asked["features"])
    return synthetic.plan_steps(folder, num_classes)


def untrained_models(folder: Path, asked: dict[str, Any]) -> dict[str, str]:
    """Makes the folders of three models with the same architecture: plain nnU-Net's, a step's, and that one exported."""
    from nnunet_cil.workflows.models.export import export

    _, second = prepare(folder, asked)
    models = {}
    for name, trainer_name, plans in (
        ("plain", "nnUNetTrainer", synthetic.PLANS),
        ("step", "nnUNetTrainerPGCD", second),
    ):
        trainer = synthetic.make_trainer(trainer_name, plans, KIND, asked["device"])
        trainer.initialize()
        trainer.save_checkpoint(f"{trainer.output_folder}/checkpoint_final.pth")
        base = Path(trainer.output_folder_base)
        for file, content in (("plans.json", trainer.plans_manager.plans), ("dataset.json", trainer.dataset_json)):
            (base / file).write_text(json.dumps(content))
        models[name] = str(base)
    models["exported"] = str(export(Path(models["step"]), folder / "exported"))
    return models


def prediction(folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Measures seconds of predicting a volume, model after model, backwards in every other round. The first does not count."""
    import numpy as np
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    device = torch.device(asked["device"])
    predictors = {}
    for name, model in untrained_models(folder, asked).items():
        predictors[name] = nnUNetPredictor(device=device, allow_tqdm=False)
        predictors[name].initialize_from_trained_model_folder(model, (0,))
    shape = [2 * p for p in asked["patch"]]
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32))
    rounds = []
    for index in range(asked["repeats"] + 1):
        names = list(predictors)[:: 1 if index % 2 else -1]
        found = {n: seconds_of(lambda n=n: predictors[n].predict_logits_from_preprocessed_data(image)) for n in names}
        rounds.append({n: {"seconds": s, "cpu_seconds": c} for n, (s, c) in found.items()})
    return {"shape": shape, "torch": torch.__version__, "rounds": rounds[1:]}


def start_up(_folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Measures seconds of the command line's light commands, and what they import."""
    entry = "import sys; from nnunet_cil.cli import main; sys.argv[0] = 'nnunet_cil'; main(sys.argv[1:])"
    commands = {"python -c pass": [sys.executable, "-c", "pass"]}
    commands.update({name: [sys.executable, "-c", entry, *given] for name, given in COMMANDS.items()})
    rounds = []
    for _ in range(asked["repeats"] + 1):
        rounds.append({name: seconds_of(lambda c=c: quiet(c))[0] for name, c in commands.items()})
    listed = f"import atexit, sys; atexit.register(lambda: print([m for m in {HEAVY} if m in sys.modules])); {entry}"
    heavy = {
        name: quiet([sys.executable, "-c", listed, *given]).splitlines()[-1].strip("[]").replace("'", "")
        for name, given in COMMANDS.items()
    }
    return {"rounds": rounds[1:], "heavy": heavy}


def quiet(command: list[str]) -> str:
    """Returns what a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def plan(folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Measures seconds of planning a data set of copies of one preprocessed case, and of reading its labels."""
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

    from nnunet_cil.workflows.plan.plan import plan as plan_cases

    prepare(folder, asked)
    preprocessed = folder / "preprocessed" / synthetic.DATASET
    cases = preprocessed / "nnUNetPlans_synthetic"
    for index in range(synthetic.NUM_CASES, asked["cases"]):
        for file in sorted(cases.glob("case_0[._]*")):
            shutil.copy(file, cases / file.name.replace("case_0", f"case_{index}", 1))
    schedule = folder / f"{synthetic.SCHEDULE}.json"
    data = infer_dataset_class(str(cases))(str(cases))
    rounds = []
    for _ in range(asked["repeats"]):
        for file in preprocessed.glob(f"{synthetic.PLANS}_*.json"):
            file.unlink()
        reading, _ = seconds_of(lambda: [data.load_case(case)[1][:] for case in data.identifiers])
        planning, _ = seconds_of(lambda: plan_cases(synthetic.DATASET, schedule))
        rounds.append({"plain": {"seconds": reading}, "own": {"seconds": planning}})
    return {"cases": asked["cases"], "shape": synthetic.volume_shape(asked["patch"]), "rounds": rounds}


def in_a_process(part: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Measures a part, in a process of its own with its own folders."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, **synthetic.environment(Path(folder)), "nnUNet_compile": "f"}
        command = [sys.executable, __file__, "--child", json.dumps({**asked, "part": part, "folder": folder})]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{part} failed.\n{done.stderr[-3000:]}")
    print(f"{part}: measured", file=sys.stderr, flush=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def tables(content: dict[str, Any]) -> str:
    """Returns tables in Markdown."""
    parts = []
    if "prediction" in content:
        found = content["prediction"]
        rows = []
        for name, label in (("step", "a step's model"), ("exported", "the same, exported")):
            pairs = [{"plain": r["plain"], "own": r[name]} for r in found["rounds"]]
            rows.append(
                [label, *(cost_report.spread(cost_report.ratios(pairs, w)) for w in ("seconds", "cpu_seconds"))]
            )
        shape = " x ".join(map(str, found["shape"]))
        parts.append(
            f"**Prediction** of a volume of {shape}, {len(found['rounds'])} rounds; ratio to a plain nnU-Net model (quartiles)."
        )
        parts.append(cost_report.table(["model", "time", "CPU time"], rows))
    if "start_up" in content:
        found = content["start_up"]
        bare = "python -c pass"
        rows = []
        for name in found["heavy"]:
            pairs = [{"plain": {"seconds": r[bare]}, "own": {"seconds": r[name]}} for r in found["rounds"]]
            ratio = cost_report.spread(cost_report.ratios(pairs, "seconds"))
            rows.append([f"`{name}`", ratio, found["heavy"][name] or "none"])
        parts.append(f"**Start-up**, {len(found['rounds'])} rounds; ratio to `{bare}`, median (quartiles).")
        parts.append(cost_report.table(["command", "time", "heavy modules imported"], rows))
    if "plan" in content:
        found = content["plan"]
        ratio = cost_report.spread(cost_report.ratios(found["rounds"], "seconds"))
        shape = " x ".join(map(str, found["shape"]))
        parts.append(
            f"**`nnunet_cil plan`** takes {ratio} times as long as reading the labels of the {found['cases']} cases "
            f"({shape} voxels), {len(found['rounds'])} rounds."
        )
    return "\n\n".join(parts)


def main() -> None:
    """Measures what the output file lacks, and prints tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--old-classes", type=int, default=13)
    parser.add_argument("--patch", type=int, nargs=3, default=[32, 32, 32], help="the volume is twice as long")
    parser.add_argument("--features", type=int, nargs="+", help="of each stage (default: as nnU-Net plans)")
    parser.add_argument(
        "--cases", type=int, default=1000, help="of the data set that is planned (default: %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="measure anew what is in the output file")
    parser.add_argument("-o", dest="output", type=Path, help="JSON file; what is in it is not measured")
    parser.add_argument(
        "--table", nargs="?", const="-", metavar="FILE", help="measure nothing: print tables, or put them into FILE"
    )
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        work = {"prediction": prediction, "start_up": start_up, "plan": plan}[args.child["part"]]
        print("\n" + json.dumps(work(Path(args.child["folder"]), args.child)))
        return
    content = json.loads(args.output.read_text()) if args.output and args.output.is_file() else {}
    asked = {k: getattr(args, k) for k in ("device", "old_classes", "patch", "features", "cases", "repeats")}
    for part in () if args.table else args.parts:
        if part not in content or args.again:
            content[part] = {"asked": asked, **in_a_process(part, asked)}
            if args.output:
                args.output.write_text(json.dumps(content, indent=1) + "\n")
    cost_report.put(tables(content), args.table or "-", "prediction_cost")


if __name__ == "__main__":
    main()
