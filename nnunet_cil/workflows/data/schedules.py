"""``nnunet_cil schedules``: list, explain and make schedules."""

from __future__ import annotations

import json
import random
import re
import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from nnunet_cil.datasets.statistics import class_statistics
from nnunet_cil.errors import CILError
from nnunet_cil.evaluation.tables import Table
from nnunet_cil.host.dataset_json import read_dataset_json
from nnunet_cil.host.folders import raw_dataset_folder
from nnunet_cil.host.raw_dataset import raw_reader
from nnunet_cil.labels import class_names
from nnunet_cil.limits import MAX_SEED, check_whole_number
from nnunet_cil.schedule import DEFAULT_EPOCHS, Schedule, load_schedule, shipped_schedules
from nnunet_cil.workflows.data.inspect import measure

ORDERS = {
    "label": "by label number",
    "size": "by median volume, largest first",
    "name": "by name",
    "random": "at random",
}

_LONGEST = 60
"""The most characters of a citation, or of the sizes of steps, that are shown."""

README = """# Schedules

One JSON file a schedule; `nnunet_cil plan DATASET NAME` uses one by its name. The name says how many classes each step learns.
A published file is never changed; another one is added. `nnunet_cil schedules new` makes one for any data set.

This file is written by `nnunet_cil schedules --markdown`.

"""


def listing() -> str:
    """Lists the shipped schedules, one line each."""
    schedules = [load_schedule(name) for name in shipped_schedules()]
    rows = [[s.name, sizes(s), str(len(s.classes_until(len(s.steps)))), _shortened(s.citation)] for s in schedules]
    return Table(["name", "steps", "classes", "source"], rows).markdown()


def readme() -> str:
    """Writes the text of ``plans/README.md``."""
    lines = ["| name | steps | classes | cases | source |", "|---|---|---|---|---|"]
    for name in shipped_schedules():
        schedule = load_schedule(name)
        classes = "; ".join(", ".join(step.classes) for step in schedule.steps)
        lines.append(f"| `{name}` | {sizes(schedule)} | {classes} | {schedule.cases} | {schedule.citation} |")
    return README + "\n".join(lines) + "\n"


def explain(name_or_path: str | Path) -> str:
    """Explains a schedule in words.

    Raises:
        CILError: there is no such schedule, or it is not valid.
    """
    schedule = load_schedule(name_or_path)
    lines = [f"{schedule.name}: {len(schedule.classes_until(len(schedule.steps)))} classes in {sizes(schedule)}"]
    for index, step in enumerate(schedule.steps):
        where = "" if step.dataset is None else f" (from data set {step.dataset})"
        lines.append(f"  step {index}: {', '.join(step.classes)}{where}")
        settings = {"num_epochs": DEFAULT_EPOCHS, **step.training, **step.hyperparameters}
        lines += [f"    {key} = {json.dumps(value)}" for key, value in settings.items()]
    every = "every step sees all training cases" if schedule.cases == "shared" else "the training cases are dealt out"
    lines.append(f"Cases: {schedule.cases} ({every}).")
    lines.append(f"Source: {schedule.citation or 'not said'}")
    lines.append(f"Use it: {shlex.join(['nnunet_cil', 'plan', 'DATASET', str(name_or_path)])}")
    return "\n".join(lines)


def sizes(schedule: Schedule) -> str:
    """Tells how many classes each step learns: ``8-5``."""
    return "-".join(str(len(step.classes)) for step in schedule.steps)


def new(
    dataset: str | int, num_classes: Sequence[int], *, order: str = "label", seed: int = 0, output: Path | None = None
) -> Path:
    """Writes a schedule for a data set in nnUNet_raw.

    Args:
        dataset: nnU-Net's ID or name.
        num_classes: how many classes each step learns; together all classes of the data set.
        order: one of ``ORDERS``.
        seed: makes a random order the same each time.
        output: the file; default: the schedule's name in the current folder.

    Returns:
        The file.

    Raises:
        CILError: no such data set, other numbers of classes, an unknown order, a seed out of its range, or a file that
            exists.
    """
    check_whole_number(seed, "--seed", 0, MAX_SEED)
    folder = raw_dataset_folder(dataset)
    classes = _ordered(folder, order, seed)
    if any(n < 1 for n in num_classes) or sum(num_classes) != len(classes):
        asked, total = ",".join(map(str, num_classes)), str(sum(num_classes))
        raise CILError(
            f"--steps {_shortened(asked)} are {_shortened(total)} classes, but {folder.name} has {len(classes)}: "
            f"{', '.join(classes)}. Every step needs at least one, and together all of them."
        )
    name = _name(folder, num_classes, order, seed)
    file = output or Path(f"{name}.json")
    if file.exists():
        raise CILError(f"{file} exists already. Give -o another name.")
    ends = [sum(num_classes[:i]) for i in range(len(num_classes) + 1)]
    how = ORDERS[order] + (f" (seed {seed})" if order == "random" else "")
    content = {
        "name": name,
        "citation": f"Made by 'nnunet_cil schedules new' for {folder.name}: classes {how}.",
        "steps": [{"classes": classes[a:b]} for a, b in pairwise(ends)],
        "cases": "shared",
    }
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return file


def _ordered(folder: Path, order: str, seed: int) -> list[str]:
    """Returns the classes of a raw data set in that order."""
    content = read_dataset_json(folder / "dataset.json")
    classes = list(class_names(content["labels"]))
    if order == "size":
        cases = measure(folder, content, raw_reader(folder, content))
        rows = class_statistics([c for c in cases if c.part == "Tr"], classes)
        absent = [row.name for row in rows if not row.num_cases]
        if absent:
            raise CILError(f"No training case of {folder.name} has {absent[0]!r}, so that it has no size to order by.")
        return [row.name for row in sorted(rows, key=lambda row: -row.median)]
    if order == "name":
        return sorted(classes, key=str.lower)
    if order == "random":
        random.Random(seed).shuffle(classes)
    elif order != "label":
        raise CILError(f"--order {order!r} is unknown. It is one of {', '.join(ORDERS)}.")
    return classes


def _name(folder: Path, num_classes: Sequence[int], order: str, seed: int) -> str:
    """Makes the schedule's name: the data set's, how many classes each step learns, and the order."""
    dataset = re.sub(r"[^A-Za-z0-9.-]+", "-", folder.name.partition("_")[2]).strip("-.").lower() or "dataset"
    ending = {"label": "", "random": f"_random{seed}"}.get(order, f"_by-{order}")
    return f"{dataset}_{'-'.join(map(str, num_classes))}{ending}"


def _shortened(citation: str) -> str:
    return citation if len(citation) <= _LONGEST else citation[: _LONGEST - 3].rsplit(" ", 1)[0] + "..."
