"""A schedule against the plans of its steps: its name leads to them, but only their contents say whether they are its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_cil.errors import CILError
from nnunet_cil.schedule import Schedule
from nnunet_cil.step_plans import StepPlan


def refuse_other_schedule(schedule: Schedule, datasets: Sequence[str], plan: StepPlan, step: int, remedy: str) -> None:
    """Refuses plans of a step that were written from another schedule than the file holds now.

    Without it, an edited schedule would give other old and new classes, and another forgetting, from the same models.

    Args:
        schedule: as it is now.
        datasets: nnU-Net's name of each step's data set.
        plan: the step's, found by the schedule's name.
        step: index of the step.
        remedy: the error's last sentence.

    Raises:
        CILError: says what differs.
    """
    if differs := _difference(schedule, datasets, plan, step):
        raise CILError(f"The schedule {schedule.name} is not the one that was planned: {differs}. {remedy}")


def _difference(schedule: Schedule, datasets: Sequence[str], plan: StepPlan, step: int) -> str:
    """Says in what a schedule and the plans of a step differ; blank where they agree."""
    ours, planned = [s.classes for s in schedule.steps], plan.steps
    for index, (now, then) in enumerate(zip(ours, planned, strict=False)):
        if now != then:
            return f"step {index} learns {', '.join(now)}, in the plans {', '.join(then)}"
    if len(ours) != len(planned):
        return f"it has {len(ours)} steps, the plans {len(planned)}"
    if (plan.schedule, plan.step) != (schedule.name, step):
        return f"the plans of step {step} are those of step {plan.step} of {plan.schedule}"
    cases = "shared" if plan.cases is None else "disjoint"
    if cases != schedule.cases:
        return f"its 'cases' are {schedule.cases}, in the plans {cases}"
    if step and plan.previous is not None and plan.previous.dataset != datasets[step - 1]:
        return f"step {step - 1} learns from {datasets[step - 1]}, in the plans from {plan.previous.dataset}"
    return ""


def other_settings(schedule: Schedule, plans: Sequence[StepPlan]) -> list[str]:
    """Says which training settings and hyper-parameters of a schedule are not those of the plans, a line a step.

    They change no score of a model that is there: it was trained as its plans say.
    """
    lines = []
    for own, plan in zip(schedule.steps, plans, strict=True):
        pairs = (own.training, plan.training), (own.hyperparameters, plan.hyperparameters)
        if found := [text for now, then in pairs for text in _other_values(now, then)]:
            lines.append(f"step {plan.step}: {', '.join(found)}")
    return lines


def _other_values(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    names = [name for name in {**now, **then} if now.get(name) != then.get(name)]
    return [f"{name} {_value(now, name)} (in the plans {_value(then, name)})" for name in names]


def _value(settings: Mapping[str, Any], name: str) -> str:
    return json.dumps(settings[name]) if name in settings else "not set"
