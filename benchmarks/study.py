"""The OpenKBP study of docs/reproduce.md: PGCD, fine-tuning and joint training, on whole volumes, with nnU-Net's commands.

    python benchmarks/openkbp_study.py 900 --folds 0 1 2          # train, predict the test cases, score; resumable
    python benchmarks/openkbp_study.py 900 --table                # only print the table from the stored results

Runs nnUNetv2_train and nnUNetv2_predict as a user would (small network and patch: benchmarks/small_plans.py; schedules:
benchmarks/schedules). What is finished is skipped; an interrupted training goes on from its latest checkpoint. Each
model's test scores go into one small JSON file under benchmarks/results/openkbp.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "openkbp"
STEPPED, JOINT = "openkbp_2-2-1_short", "openkbp_joint_short"
METHODS = ("nnUNetTrainerFineTune", "nnUNetTrainerPGCD")
CONFIGURATION = "3d_fullres"


def models(base: str) -> list[tuple[str, str, str]]:
    """(name of the result, trainer, plans), in the order of training; every method continues from one step 0."""
    rows = [("step0", "nnUNetTrainerPGCD", f"{base}_{STEPPED}_step0")]
    rows += [
        (f"{m.removeprefix('nnUNetTrainer')}_step{s}", m, f"{base}_{STEPPED}_step{s}")
        for m in reversed(METHODS)
        for s in (1, 2)
    ]
    return [*rows, ("Joint", "nnUNetTrainerPGCD", f"{base}_{JOINT}_step0")]


def call(command: str, *arguments: str) -> None:
    """Runs one of nnU-Net's commands."""
    print("+", command, *arguments, flush=True)
    subprocess.run([str(Path(sys.executable).parent / command), *arguments], check=True)


def train(dataset: str, trainer: str, plans: str, fold: int, device: str, model: Path) -> None:
    """nnUNetv2_train, skipped when it is finished, continued when it was interrupted."""
    folder = model / f"fold_{fold}"
    if (folder / "validation" / "summary.json").is_file():
        return
    started = any(folder.glob("checkpoint_*.pth"))
    call(
        "nnUNetv2_train",
        dataset,
        CONFIGURATION,
        str(fold),
        "-tr",
        trainer,
        "-p",
        plans,
        "-device",
        device,
        *(["--c"] if started else []),
    )


def score(model: Path, predictions: Path, truth: Path, dataset_labels: dict[str, int]) -> dict[str, list[float]]:
    """Dice of every class, by name, for every test case; NaN when neither has the class."""
    import SimpleITK as sitk

    channels = json.loads((model / "dataset.json").read_text())["labels"]
    dice: dict[str, list[float]] = {name: [] for name in channels if name != "background"}
    for file in sorted(truth.glob("*.nii.gz")):
        wanted, found = (sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in (file, predictions / file.name))
        for name, values in dice.items():
            a, b = wanted == dataset_labels[name], found == channels[name]
            total = int(a.sum() + b.sum())
            values.append(2 * int((a & b).sum()) / total if total else float("nan"))
    return dice


def run(dataset: str, base: str, folds: list[int], device: str) -> None:
    """Everything, in order; what is done is skipped."""
    from nnunet_cil.workflows.folders import dataset_name

    name = dataset_name(dataset)
    raw = Path(os.environ["nnUNet_raw"]) / name
    labels = json.loads((raw / "dataset.json").read_text())["labels"]
    RESULTS.mkdir(parents=True, exist_ok=True)
    for fold in folds:
        for result, trainer, plans in models(base):
            file = RESULTS / f"{result}_fold{fold}.json"
            if file.is_file():
                known = json.loads(file.read_text())
                if (known["dataset"], known["plans"]) != (name, plans):
                    raise SystemExit(f"{file} holds {known['plans']} on {known['dataset']}; move it away first.")
                continue
            model = Path(os.environ["nnUNet_results"]) / name / f"{trainer}__{plans}__{CONFIGURATION}"
            train(dataset, trainer, plans, fold, device, model)
            predictions = model / f"fold_{fold}" / "test"
            call(
                "nnUNetv2_predict",
                "-d",
                dataset,
                "-c",
                CONFIGURATION,
                "-f",
                str(fold),
                "-tr",
                trainer,
                "-p",
                plans,
                "-i",
                str(raw / "imagesTs"),
                "-o",
                str(predictions),
                "-device",
                device,
                "-npp",
                "1",
                "-nps",
                "1",
                "--continue_prediction",
            )
            dice = score(model, predictions, raw / "labelsTs", labels)
            content = {"model": result, "fold": fold, "dataset": name, "trainer": trainer, "plans": plans, "dice": dice}
            file.write_text(json.dumps(content, indent=1) + "\n")
            print(result, fold, {k: round(float(np.nanmean(v)), 3) for k, v in dice.items()}, flush=True)


def table(folds: list[int]) -> str:
    """Markdown: mean Dice over the test cases, then mean and spread (min to max) over the folds."""
    steps = json.loads((HERE / "schedules" / f"{STEPPED}.json").read_text())["steps"]
    classes = [c for s in steps for c in s["classes"]]
    last, new = {c for c in classes if c not in steps[-1]["classes"]}, set(steps[-1]["classes"])
    lines = [f"| model | {' | '.join(classes)} | old | new | all | folds |", "|" + "---|" * (len(classes) + 5)]
    for row in ("step0", "PGCD_step1", "FineTune_step1", "PGCD_step2", "FineTune_step2", "Joint"):
        files = [f for k in folds if (f := RESULTS / f"{row}_fold{k}.json").is_file()]
        if not files:
            continue
        means = [{c: float(np.nanmean(v)) for c, v in json.loads(f.read_text())["dice"].items()} for f in files]
        final = row.endswith("step2") or row == "Joint"
        groups = [[c] for c in classes] + ([sorted(last), sorted(new), classes] if final else [[], [], []])
        cells = []
        for group in groups:
            values = [np.mean([m[c] for c in group]) for m in means] if group and group[0] in means[0] else []
            spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.3f}{spread}" if values else "")
        lines.append(f"| {row} | {' | '.join(cells)} | {len(files)} |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="ID of the converted data set, e.g. 900")
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("-p", dest="base", default="nnUNetPlansSmall", help="base plans (default: %(default)s)")
    parser.add_argument("-device", default="cpu")
    parser.add_argument("--table", action="store_true", help="only print the table")
    args = parser.parse_args()
    if not args.table:
        run(args.dataset, args.base, args.folds, args.device)
    print(table(args.folds))


if __name__ == "__main__":
    main()
