"""A hook of MkDocs: writes the reference pages from the parser, the trainers, the data sets, the schedules and docstrings."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import re
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

PUBLIC = {
    "Losses": [
        "nnunet_cil.losses.segmentation",
        "nnunet_cil.losses.distillation",
        "nnunet_cil.losses.prototypes",
        "nnunet_cil.losses.pseudo_labels",
        "nnunet_cil.losses.regularization",
    ],
    "Networks": [
        "nnunet_cil.networks.heads",
        "nnunet_cil.networks.features",
        "nnunet_cil.networks.teacher",
        "nnunet_cil.networks.prototype_bank",
    ],
    "Training": [
        "nnunet_cil.training.base.nnUNetTrainerCIL",
        "nnunet_cil.training.step_loss",
        "nnunet_cil.training.batch",
        "nnunet_cil.training.hyperparameters",
        "nnunet_cil.training.options",
        "nnunet_cil.training.state",
        "nnunet_cil.training.checkpoints",
        "nnunet_cil.training.previous_step",
    ],
    "What the commands do": [
        "nnunet_cil.workflows.experiment.Experiment",
        "nnunet_cil.workflows.plan.plan.plan",
        "nnunet_cil.workflows.run.options.TrainingOptions",
        "nnunet_cil.workflows.run.run.run",
        "nnunet_cil.workflows.evaluate.options.EvaluationOptions",
        "nnunet_cil.workflows.evaluate.evaluate.evaluate",
        "nnunet_cil.workflows.models.extend.extend",
        "nnunet_cil.workflows.models.export.export",
        "nnunet_cil.workflows.data.convert.convert",
        "nnunet_cil.workflows.data.inspect.inspect",
    ],
    "Schedules and folders": [
        "nnunet_cil.schedule",
        "nnunet_cil.host.folders",
    ],
}
"""Modules, or objects in them, that a user's own code may import. All else may change without notice."""

TRAINING_SETTINGS = {
    "num_epochs": ("1000", "Epochs of a step."),
    "num_iterations_per_epoch": ("250", "Training batches an epoch."),
    "num_val_iterations_per_epoch": ("50", "Validation batches an epoch, for the online score."),
    "save_every": ("50", "Epochs between two writings of `checkpoint_latest.pth`, from which `--c` goes on."),
    "initial_lr": ("0.01", "Learning rate of the first epoch."),
    "weight_decay": ("3e-05", "Weight decay of the optimizer."),
    "oversample_foreground_percent": ("0.33", "Share of a batch's patches that are centred on a class of the step."),
    "enable_deep_supervision": ("true", "Whether the lower resolutions of the decoder have a loss, too."),
    "mirror_axes": ("nnU-Net's choice", "Axes (0, 1, 2) along which training and prediction mirror; `[]` for none."),
    "optimizer": ("SGD", "SGD, as nnU-Net's own, or AdamW, as its trainer nnUNetTrainerAdam."),
}
"""nnU-Net's settings that a schedule may override: default and meaning."""


def on_files(files: Any, config: Any) -> Any:
    """Adds the generated pages to the site."""
    from mkdocs.structure.files import File

    for name, write in PAGES.items():
        files.append(File.generated(config, name, content=write()))
    return files


def commands() -> str:
    """Returns the page of all commands, from the parser."""
    from nnunet_cil.cli.main import _parser

    parser = _parser()
    (chosen,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    summaries = {action.dest: action.help for action in chosen._choices_actions}
    lines = ["# Commands", "", f"{_text(parser.description)} {_text(parser.epilog)}", ""]
    lines += ["| command | what it does |", "|---|---|"]
    lines += [f"| [`{name}`](#nnunet_cil-{name}) | {_text(summaries[name])} |" for name in chosen.choices]
    for name, command in chosen.choices.items():
        lines += ["", f"## nnunet_cil {name} {{ #nnunet_cil-{name} }}", "", _text(command.description), ""]
        lines += ["```text", _usage(command), "```", ""]
        for group in command._action_groups:
            shown = [a for a in group._group_actions if a.help != argparse.SUPPRESS and not _is_help(a)]
            if shown and group.title not in ("positional arguments", "options"):
                lines += [f"{_text(str(group.title)).capitalize()}:", ""]
            for action in shown:
                lines += [f"`{_invocation(action)}`", f":   {_sentence(command, action)}", ""]
        if command.epilog:
            lines += ["```text", command.epilog, "```", ""]
    return "\n".join(lines) + "\n"


def trainers() -> str:
    """Returns the page of all trainers with their hyper-parameters, from their declarations."""
    from nnunet_cil.schedule import TRAINING_SETTINGS as types
    from nnunet_cil.shipped import trainers_file

    door = runpy.run_path(str(trainers_file()))
    lines = ["# Trainers and their options", ""]
    lines += ["`-tr` takes one of these, but not the base, nnUNetTrainerCIL. A schedule sets their options under"]
    lines += ["`hyperparameters`, and `nnunet_cil extend` takes them after `--hyperparameters`. [The"]
    lines += ["methods](../explanation/methods.md) and [PGCD](../explanation/pgcd.md) are explained elsewhere."]
    for name in sorted(door["__all__"], key=lambda name: (name == "nnUNetTrainerCIL", name != "nnUNetTrainerPGCD")):
        lines += ["", f"## {name}", "", *_trainer(door[name])]
    lines += ["", "## Settings of nnU-Net's training { #training }", ""]
    lines += [
        "A schedule sets these under `training`, for all steps or for one; `extend` takes them after `--training`."
    ]
    lines += ["", "| name | meaning | default | values |", "|---|---|---|---|"]
    for name, kind in types.items():
        default, meaning = TRAINING_SETTINGS[name]
        lines.append(f"| `{name}` | {meaning} | {default} | {_TYPES[kind]} |")
    return "\n".join(lines) + "\n"


def data_sets() -> str:
    """Returns the page of all data sets that can be converted, from their modules."""
    from nnunet_cil.datasets.catalogue import NAMES

    lines = ["# Data sets", ""]
    lines += [
        "[`nnunet_cil convert NAME SOURCE DATASET_ID`](commands.md#nnunet_cil-convert) turns a download into an nnU-Net data"
    ]
    lines += ["set. [How to bring data](../how-to/bring-data.md) shows it step by step."]
    for name, expected in NAMES.items():
        module = importlib.import_module(f"nnunet_cil.datasets.{name}")
        title, _, rest = inspect.cleandoc(module.__doc__ or "").partition("\n")
        lines += ["", f"## {name}", "", _docstring(title), "", _docstring(rest.strip()), ""]
        files = re.split(r"^(?:Args|Raises):", inspect.cleandoc(module.find.__doc__ or ""), flags=re.M)[0]
        lines += [f"`SOURCE`: {_text(expected.partition(': ')[2] or expected)}.", "", _docstring(files.strip()), ""]
        if isinstance(classes := getattr(module, "CLASSES", None), tuple):
            lines += [f"Classes, from number 1 on: {', '.join(classes)}.", ""]
        meanings = _arguments(module.find.__doc__ or "")
        for option, parameter in inspect.signature(module.find).parameters.items():
            if option != "source":
                lines += [
                    f"`--{option.replace('_', '-')}`",
                    f":   {_capitalised(_spelled_out(meanings[option], module))}{_default(parameter)}",
                    "",
                ]
    return "\n".join(lines) + "\n"


def schedules() -> str:
    """Returns the page of all shipped schedules, from their files."""
    from nnunet_cil.schedule import load_schedule, shipped_schedules

    found = [load_schedule(name) for name in shipped_schedules()]
    lines = ["# Schedules", ""]
    lines += [
        "`nnunet_cil plan`, `run`, `status` and `evaluate` take one of these by its name, or the file of your own:"
    ]
    lines += [
        "[how to write a schedule](../how-to/write-a-schedule.md). A published file never changes; another one is added."
    ]
    lines += ["", "| name | classes a step |", "|---|---|"]
    lines += [
        f"| [`{s.name}`](#{_anchor(s.name)}) | {', '.join(str(len(t.classes)) for t in s.steps)} |" for s in found
    ]
    for schedule in found:
        lines += ["", f"## {schedule.name} {{ #{_anchor(schedule.name)} }}", "", _text(schedule.citation), ""]
        lines += ["| step | classes | settings |", "|---|---|---|"]
        for index, step in enumerate(schedule.steps):
            settings = "<br>".join(
                f"`{k} = {json.dumps(v)}`" for k, v in {**step.training, **step.hyperparameters}.items()
            )
            lines.append(f"| {index} | {_text(', '.join(step.classes))} | {settings or 'defaults'} |")
        shared = schedule.cases == "shared"
        lines += [
            "",
            "Every step sees all training cases." if shared else "The training cases are dealt out to the steps.",
        ]
    return "\n".join(lines) + "\n"


def python() -> str:
    """Returns the page of what a user's own code may import; mkdocstrings fills it."""
    lines = ["# Python", "", "What your own code may import. All else may change without notice.", ""]
    for title, names in PUBLIC.items():
        lines += [f"## {title}", ""]
        for name in names:
            lines += [f"::: {name}", "    options:", "      show_root_full_path: true", ""]
    return "\n".join(lines) + "\n"


def contributing() -> str:
    """Returns ``CONTRIBUTING.md`` of the repository, with its links as seen from docs/."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return re.sub(r"\]\((?!https?:|#)(?:docs/)?([^)]+)\)", lambda m: f"]({_from_docs(m)})", text)


def _from_docs(match: re.Match[str]) -> str:
    return match[1] if match[0].startswith("](docs/") else f"../{match[1]}"


PAGES: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands,
    "reference/trainers.md": trainers,
    "reference/data-sets.md": data_sets,
    "reference/schedules.md": schedules,
    "reference/python.md": python,
    "contributing.md": contributing,
}
"""The generated pages, by name; none of them is in docs/."""

_ADDRESS = re.compile(r"(?<![<(`])(https?://[^\s,;)]+[^\s,;:).])")
_TYPES = {bool: "true or false", int: "whole number", float: "number", list: "list", str: "text"}


def _trainer(trainer: type) -> Iterator[str]:
    from nnunet_cil.training.hyperparameters import declared

    yield _docstring(inspect.cleandoc(trainer.__doc__ or ""))
    parameters = declared(trainer)
    if settable := {name: p for name, p in parameters.items() if p.is_settable}:
        yield from ("", "| option | meaning | default | values |", "|---|---|---|---|")
    for name, p in settable.items():
        yield f"| `{name}` | {_text(p.meaning)} | {_value(getattr(trainer, name))} | {_values(p)} |"
    held = {name: p for name, p in parameters.items() if not p.is_settable}
    reasons = [f"`{name}` at {_value(getattr(trainer, name))} ({_text(p.meaning)})" for name, p in held.items()]
    if reasons:
        yield from ("", f"Fixed: {'; '.join(reasons)}.")


def _value(value: Any) -> str:
    return json.dumps(value) if isinstance(value, (bool, str)) else f"{value:g}"


def _values(parameter: Any) -> str:
    if parameter.options:
        return ", ".join(map(_value, parameter.options))
    kind = _TYPES[type(parameter.default)]
    if isinstance(parameter.default, bool):
        return kind
    return f"{kind} from {parameter.low:g} to {parameter.high:,.16g}"


def _default(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return " Required."
    if parameter.default in (None, False):
        return ""
    values = [parameter.default] if isinstance(parameter.default, str) else parameter.default
    return f" Default: {', '.join(values)}."


def _arguments(docstring: str) -> dict[str, str]:
    """Returns the descriptions under ``Args:`` of a docstring, by name."""
    _, _, section = inspect.cleandoc(docstring).partition("\nArgs:\n")
    section = section.partition("\n\n")[0]
    entries = re.split(r"^    (?=\w+:)", section, flags=re.M)[1:]
    return {name: " ".join(text.split()) for name, _, text in (entry.partition(":") for entry in entries)}


def _spelled_out(meaning: str, module: Any) -> str:
    """Replaces the names of a module's constants by their keys."""
    constants = {name: value for name, value in vars(module).items() if name.isupper() and isinstance(value, dict)}
    return re.sub(r"``([A-Z_]+)``", lambda m: ", ".join(constants[m[1]]) if m[1] in constants else m[0], meaning)


def _usage(command: argparse.ArgumentParser) -> str:
    return command.format_usage().removeprefix("usage: ").replace("\n" + " " * len("usage: "), "\n").strip()


def _is_help(action: argparse.Action) -> bool:
    return "-h" in action.option_strings


def _invocation(action: argparse.Action) -> str:
    formatter = argparse.HelpFormatter("")
    return formatter._format_action_invocation(action)


def _sentence(command: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = command._get_formatter()._expand_help(action)
    return _text(_capitalised(text)) + ("" if text.endswith(".") else ".")


def _capitalised(text: str) -> str:
    """Begins a sentence; nnU-Net's names keep their first letter."""
    return text[:1].upper() + text[1:] if text.split()[0].islower() else text


def _text(text: str | None) -> str:
    """Escapes what Markdown would take for its own; addresses become links."""
    parts = _ADDRESS.split(" ".join((text or "").split()))
    parts[::2] = [re.sub(r"([\\`*_{}\[\]|$#])", r"\\\1", part).replace("<", "&lt;") for part in parts[::2]]
    parts[1::2] = [f"<{address}>" for address in parts[1::2]]
    return "".join(parts)


def _docstring(text: str) -> str:
    """Makes Markdown of a docstring: addresses become links."""
    return _ADDRESS.sub(r"<\1>", text)


def _anchor(name: str) -> str:
    return name.replace(".", "-")
