"""Makes tables, and a page of the notebook, of what gpu_check.py found.

python benchmarks/gpu_report.py benchmarks/results/gpu_check.json                  # every table
python benchmarks/gpu_report.py benchmarks/results/gpu_check.json cost             # one, for fill_tables.py
python benchmarks/gpu_report.py benchmarks/results/gpu_check.json --page > benchmarks/notebook/DATE-gpu-check.md
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cost_report import NAMES, quartiles, ratios, spread, table, without_empty_columns

TITLES = {
    "parts": "What ran",
    "losses": "Losses and prototypes against the CPU",
    "sums": "Class sums, with atomics and without",
    "resume": "A step interrupted and resumed",
    "cost": "What a step costs, as ratios to plain nnU-Net",
    "plain": "Plain nnU-Net in seconds",
    "compile": "torch.compile",
    "training": "A short training in three steps",
}
MISSING = "not run"


def of_part(content: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns what a part found; empty where it did not run."""
    found: dict[str, Any] = content["parts"].get(name, {}).get("found", {})
    return found


def costs(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns what each part on costs found."""
    return [part["found"] for name, part in content["parts"].items() if name.startswith("cost_")]


def parts(content: dict[str, Any]) -> str:
    """Returns a table of the parts, and how each ended."""
    rows = []
    for name, part in content["parts"].items():
        found = part["found"]
        says = " ".join([*filter(None, [found.get("skipped")]), *found.get("too_large", [])])
        rows.append([f"`{name}`", part["status"], f"{part['seconds']:.0f}", str(part["limit"] or ""), says])
    return without_empty_columns(["part", "ended", "seconds", "limit", "remark"], rows)


def losses(content: dict[str, Any]) -> str:
    """Returns a table of differences, as shares of the CPU's values."""
    rows = [
        [r["what"], str(r["old_classes"]), r["precision"], f"{r['value']:.1e}", f"{r['gradient']:.1e}", yes(r["ok"])]
        for r in of_part(content, "losses").get("losses", [])
    ]
    return full(["what", "old classes", "precision", "value differs by", "gradient differs by", "within limits"], rows)


def sums(content: dict[str, Any]) -> str:
    """Returns a table of the two ways of class sums."""
    rows = []
    for r in of_part(content, "losses").get("sums", []):
        memory = "" if r["mib"] is None else f"{r['mib']:.0f}"
        own = [r["way"], str(r["classes"]), f"{r['voxels']:,}", f"{1000 * r['seconds']:.2f}", memory]
        rows.append([*own, yes(r["repeats_itself"]), f"{r['error']:.0e}"])
    return full(["way", "classes", "voxels", "ms, with gradient", "peak MiB", "repeats itself", "error"], rows)


def resume(content: dict[str, Any]) -> str:
    """Returns a table of one row: resumed against unbroken training, and the losses under determinism."""
    found, of_losses = of_part(content, "resume"), of_part(content, "losses").get("determinism", {})
    cannot = sorted({*found.get("warnings", []), *of_losses.get("warnings", [])})
    rows = []
    if "same" in found:
        repeat = ", ".join(f"{name}: {yes(of_losses[name])}" for name in ("PGCD", "MiB") if name in of_losses)
        rows = [[yes(found["same"]), f"{found['share_of_change']:.1e}", repeat, ", ".join(cannot) or "none"]]
    header = ["same weights", "apart, as share of the change", "losses repeat themselves", "not deterministic in torch"]
    return full(header, rows)


def cost(content: dict[str, Any]) -> str:
    """Returns a table of ratios of time and memory to plain nnU-Net."""
    rows = []
    for found in costs(content):
        for entry in found.get("settings", []):
            ((trainer, pairs),) = entry["trainers"].items()
            network = [NAMES[entry["plans"]], str(entry["old_classes"]), trainer.removeprefix("nnUNetTrainer")]
            whats = ("seconds", "epoch_seconds", "peak_mib")
            cells = [spread(ratios(pairs, what)) if what in pairs[0]["own"] else "" for what in whats]
            rows.append([*network, str(entry["interval"]), *cells])
    return full(["network", "old classes", "trainer", "*k*", "step", "epoch", "peak memory"], rows)


def plain(content: dict[str, Any]) -> str:
    """Returns a table of plain nnU-Net's seconds and GiB, at the same sizes."""
    rows = []
    for found in costs(content):
        if not found.get("settings"):
            continue
        entry, own = found["settings"][0], found["plain"]
        memory = f"{own['peak_mib'] / 1024:.1f}" if "peak_mib" in own else ""
        low, middle, high = (f"{x:.3f}" for x in quartiles(own["seconds"]))
        size = [" x ".join(map(str, entry["patch"])), str(entry["batch"])]
        row = [NAMES[entry["plans"]], str(entry["old_classes"] + 1), *size, f"{middle} ({low} to {high})"]
        rows.append([*row, f"{own['epoch_seconds'][0]:.1f}", memory])
    header = ["network", "classes", "patch", "batch", "step, s", "short epoch, s", "peak GiB"]
    return full(header, rows)


def compiled(content: dict[str, Any]) -> str:
    """Returns a table of steps with torch.compile and without."""
    found, without = of_part(content, "compile"), of_part(content, "cost_3d_13")
    eager = {"nnUNetTrainer": without.get("plain", {}).get("seconds")}
    for entry in without.get("settings", []):
        for trainer, (pair,) in entry["trainers"].items():
            eager.setdefault(trainer, pair["own"]["seconds"])
    rows = []
    for trainer in ("nnUNetTrainer", "nnUNetTrainerPGCD"):
        if trainer in found:
            own, other = found[trainer], eager.get(trainer)
            row = [f"`{trainer}`", "" if other is None else f"{statistics.median(other):.3f}"]
            row += [f"{statistics.median(own['seconds']):.3f}", f"{own['first_step']:.0f}", yes(own.get("ok"))]
            rows.append(row)
    return full(["trainer", "step without, s", "step with, s", "first step, s", "same loss"], rows)


def training(content: dict[str, Any]) -> str:
    """Returns a table of the short training: Dice of each class after each step."""
    found = of_part(content, "training").get("trainings", [])
    classes = list(dict.fromkeys(name for row in found for name in row["dice"]))
    rows = []
    for row in found:
        dice = [f"{row['dice'][name]:.3f}" if name in row["dice"] else "" for name in classes]
        seconds = f"{statistics.median(row['epoch_seconds']):.1f}"
        memory = "" if row["peak_mib"] is None else f"{row['peak_mib'] / 1024:.1f}"
        rows.append([row["trainer"].removeprefix("nnUNetTrainer"), str(row["step"]), *dice, seconds, memory])
    return full(["trainer", "step", *classes, "epoch, s", "peak GiB"], rows)


def yes(value: bool | None) -> str:
    """Returns yes or no; nothing where it is not known."""
    return "" if value is None else "yes" if value else "**no**"


def full(header: list[str], rows: list[list[str]]) -> str:
    """Returns a table without empty columns; one that says so where there are no rows."""
    return without_empty_columns(header, rows) if rows else table([MISSING], [])


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "parts": parts,
    "losses": losses,
    "sums": sums,
    "resume": resume,
    "cost": cost,
    "plain": plain,
    "compile": compiled,
    "training": training,
}


def page(content: dict[str, Any], file: Path) -> str:
    """Returns a page of the notebook, with the commands of its tables above them, as fill_tables.py reads them."""
    machine = ", ".join(f"{key} {value}" for key, value in content["machine"].items() if key != "name")
    quick = " Tiny networks and patches: a trial of the script." if content["quick"] else ""
    text = [
        f"# The GPU check on {content['machine'].get('name', 'an unknown machine')}",
        f"`benchmarks/gpu_check.py` on `{content['device']}`: {machine}.{quick}",
    ]
    for name, title in TITLES.items():
        text += [f"## {title}", f"<!-- benchmarks/gpu_report.py {file.as_posix()} {name} -->", TABLES[name](content)]
    return "\n\n".join(text)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="what gpu_check.py wrote")
    parser.add_argument("table", nargs="?", choices=list(TABLES), help="only this table")
    parser.add_argument("--page", action="store_true", help="a page of the notebook")
    args = parser.parse_args()
    content = json.loads(args.file.read_text())
    if args.page:
        print(page(content, args.file))
    elif args.table:
        print(TABLES[args.table](content))
    else:
        print("\n\n".join(f"**{TITLES[name]}**\n\n{make(content)}" for name, make in TABLES.items()))


if __name__ == "__main__":
    main()
