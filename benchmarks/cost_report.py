"""Makes tables and a figure of what step_cost.py and prediction_cost.py measured."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {"3d": "3D U-Net", "2d": "2D U-Net", "resenc": "3D residual encoder"}


def ratios(rounds: Sequence[dict[str, Any]], what: str) -> list[float]:
    """Returns own over plain of every pair: ``seconds``, ``cpu_seconds``, ``epoch_seconds``, ``peak_mib`` or ``training_mib``."""

    def values(found: dict[str, Any]) -> list[float]:
        if what == "training_mib":
            return [found["peak_mib"] - found["before_mib"]]
        value = found.get(what, [])
        return value if isinstance(value, list) else [value]

    return [a / b for r in rounds for a, b in zip(values(r["own"]), values(r["plain"]), strict=True)]


def spread(values: Sequence[float]) -> str:
    """Returns the median (quartiles)."""
    if not values:
        return ""
    low, middle, high = quartiles(values)
    return f"**{middle:.2f}** ({low:.2f} to {high:.2f})" if len(values) > 2 else f"**{middle:.2f}**"


def quartiles(values: Sequence[float]) -> list[float]:
    """Returns the first quartile, the median and the third."""
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else list(values) * 3


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def title(entry: dict[str, Any]) -> str:
    """Returns what the settings of a table have in common."""
    device = "CPU" if entry["device"] == "cpu" else entry["machine"]
    features = ", ".join(map(str, entry["features"])) if entry["features"] else "nnU-Net's features"
    patch = " x ".join(map(str, entry["patch"]))
    compiled = ", torch.compile" if entry["compiled"] else ""
    threads = f", threads: {entry['threads']}" if entry["device"] == "cpu" else ""
    return f"{NAMES[entry['plans']]}, {features}, patch {patch}, batch {entry['batch']}, {device}{threads}{compiled}"


def grouped(content: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Returns title -> its settings, by number of old classes."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in sorted(content["settings"], key=lambda e: (e["old_classes"], interval(e))):
        groups.setdefault(title(entry), []).append(entry)
    return groups


def interval(entry: dict[str, Any]) -> int:
    """Returns the ``distillation_interval`` of a measurement."""
    return int(entry.get("interval", 1))


def tables(content: dict[str, Any]) -> str:
    """Returns all that was measured, and all that was counted."""
    parts = []
    for name, entries in grouped(content).items():
        versions = sorted({entry["torch"] for entry in entries})
        parts.append(f"**{name}**; PyTorch {', '.join(versions)}.")
        if any(e["trainers"] for e in entries):
            parts.append(cost_table(entries))
        if any(e["counts"] for e in entries):
            parts.append(count_table(entries))
    return "\n\n".join(parts)


def cost_table(entries: list[dict[str, Any]]) -> str:
    """Returns ratios of time and memory."""
    of_process = entries[0]["device"] == "cpu"
    whats = ["seconds", *(["cpu_seconds"] if of_process else []), "epoch_seconds", "peak_mib"]
    names = {"seconds": "step", "cpu_seconds": "step, CPU time", "epoch_seconds": "epoch", "peak_mib": "peak memory"}
    rows = []
    for entry in entries:
        for trainer, rounds in entry["trainers"].items():
            cells = [spread(ratios(rounds, what)) for what in whats]
            if of_process:
                cells.append(f"{statistics.median(ratios(rounds, 'training_mib')):.2f}")
            else:
                plain = [s for r in rounds for s in r["plain"]["seconds"]]
                cells.append(f"{statistics.median(plain):.3f} s")
            k = interval(entry)
            name = f"`{trainer}`" + (f", *k* = {k}" if k > 1 else "")
            rows.append([name, str(entry["old_classes"]), *cells, str(len(ratios(rounds, "seconds")))])
    after = "without imports" if of_process else "plain step"
    header = ["trainer", "old classes", *(names[w] for w in whats), after, "pairs"]
    return without_empty_columns(header, rows)


def without_empty_columns(header: Sequence[str], rows: list[list[str]]) -> str:
    """Returns a table without the columns of what was not measured."""
    kept = [i for i in range(len(header)) if any(row[i] for row in rows)]
    return table([header[i] for i in kept], [[row[i] for i in kept] for row in rows])


def count_table(entries: list[dict[str, Any]]) -> str:
    """Returns host synchronisations, and full-resolution feature maps alive."""
    rows = []
    for entry in entries:
        for trainer, found in entry["counts"].items():
            own = {t: held for t, (held, _) in found["terms"].items() if held >= 0.005 and t}
            largest = max(own, key=lambda t: own[t], default="")
            rows.append(
                [
                    f"`{trainer}`",
                    str(entry["old_classes"]),
                    str(sum(found["waits"].values())),
                    str(found.get("cuda_syncs", "")),
                    f"{found['logits']:.2f}",
                    f"{found['teacher']:.2f}",
                    f"{found['held']:.2f}",
                    f"{found['peak']:.2f}",
                    f"`{largest}` {own[largest]:.2f}" if largest else "",
                ]
            )
    header = [
        "trainer",
        "old classes",
        "waits",
        "CUDA syncs",
        "logits",
        "teacher",
        "loss holds",
        "loss peak",
        "largest term",
    ]
    return without_empty_columns(header, rows)


def put(text: str, target: str, marker: str) -> None:
    """Prints, or puts the text between the marker's two comments in a file."""
    if target == "-":
        print(text)
        return
    begin, end = f"<!-- {marker}: begin -->", f"<!-- {marker}: end -->"
    before, _, rest = Path(target).read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"{target} has no lines '{begin}' and '{end}'.")
    Path(target).write_text(f"{before}{begin}\n{text}\n{end}{after}")


def figure(content: dict[str, Any]) -> Figure:
    """Draws the ratio of step time and of memory over the number of old classes, where several were measured."""
    from matplotlib.figure import Figure

    from nnunet_cil.evaluation.axes import line_style

    drawn = Figure(figsize=(9, 3.8), layout="constrained")
    axes = drawn.subplots(1, 2)
    groups = grouped({"settings": [e for e in content["settings"] if interval(e) == 1]})
    names = {group: Counter(t for e in entries for t in e["trainers"]) for group, entries in groups.items()}
    lines = [(group, t) for group, found in names.items() for t, number in found.items() if number > 1]
    several = len({group for group, _ in lines}) > 1
    for index, (group, trainer) in enumerate(lines):
        entries = [e for e in groups[group] if trainer in e["trainers"]]
        classes = [e["old_classes"] for e in entries]
        style = line_style(index)
        label = trainer.removeprefix("nnUNetTrainer") + (f", {group.split(',')[0]}" if several else "")
        for ax, what in zip(axes, ("seconds", "peak_mib"), strict=True):
            values = [ratios(e["trainers"][trainer], what) for e in entries]
            ax.plot(classes, [statistics.median(v) for v in values], label=label, **style)
            low, _, high = zip(*(quartiles(v) for v in values), strict=True)
            ax.fill_between(classes, low, high, color=style["color"], alpha=0.15, lw=0)
    ticks = sorted({e["old_classes"] for e in content["settings"]})
    for ax, name in zip(axes, ("time of a training step", "peak memory"), strict=True):
        ax.set_xscale("log")
        ax.set(title=name, xlabel="old classes", ylabel="ratio to plain nnU-Net")
        ax.set_xticks(ticks, labels=[str(t) for t in ticks], minor=False)
        ax.minorticks_off()
        ax.axhline(1, color="black", lw=0.8)
        ax.grid(alpha=0.3)
    axes[0].axhline(4 / 3, color="black", lw=0.8, ls=":")
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return drawn
