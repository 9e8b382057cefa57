"""The sentences that a report opens with: which method is best, by how much, and what was kept and learnt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunet_cil.evaluation.continual import mean
from nnunet_cil.evaluation.results import JOINT, dice_of, last_mean, lost, pooled, short
from nnunet_cil.evaluation.tables import interval_text
from nnunet_cil.names import markdown_text

_NOTABLE = 0.0005
"""The smallest Dice that is not printed as 0."""

Methods = Mapping[str, Sequence[Mapping[str, Any]]]
"""Method (short) -> its results with Dice, one entry a fold."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A question, and the sentences that answer it."""

    question: str
    text: str

    def markdown(self) -> str:
        """Returns a paragraph."""
        return f"**{markdown_text(self.question)}** {markdown_text(self.text)}"


def answers(content: Mapping[str, Any]) -> list[Answer]:
    """Returns the answers to what a reader asks first.

    Args:
        content: as in ``results.json``.
    """
    methods = {name: folds for name, folds in dice_of(content).items() if name != short(JOINT)} or dice_of(content)
    if len(methods) > 1:
        text = _lead(methods, content["differences_to_best"])
        found = [Answer(question="Which method is best, and by more than its interval?", text=text)]
    else:
        name, folds = next(iter(methods.items()))
        text = f"All classes have a mean Dice of {_number(last_mean(folds, 'all'))} after the last step with {name}."
        found = [Answer(question="How good is it?", text=text)]
    if len(content["steps"]) > 1:
        found.append(Answer(question="What was kept?", text=_kept(methods, content["steps"])))
        found.append(Answer(question="What was learnt?", text=_learnt(methods)))
    if unseen := _unseen(methods):
        it = "it" if len(unseen) == 1 else "them"
        text = f"{_listed(unseen)}: no scored case shows {it}, so every mean is without {it}."
        found.append(Answer(question="What was not scored?", text=text))
    return found


def _unseen(methods: Methods) -> list[str]:
    """Returns the classes without a score in any fold and method after the last step."""
    last = [fold["classes"][-1] for folds in methods.values() for fold in folds]
    return [name for name in last[0] if all(math.isnan(scores[name]) for scores in last)]


def _lead(methods: Methods, differences: Sequence[Mapping[str, Any]]) -> str:
    """Says which method is best, and whom it leads by more than the interval of the difference."""
    best, folds = next(iter(methods.items()))
    text = f"{best}, with a mean Dice of {_number(last_mean(folds, 'all'))} over all classes after the last step"
    found = [
        d for d in differences if d["group"] == "all" and short(d["method"]) in methods and not math.isnan(d["low"])
    ]
    if not found:
        return f"{text}. One case and one training tell no interval."
    found.sort(key=lambda d: -d["difference"])
    behind, level = ([d for d in found if (d["high"] < 0) == is_behind] for is_behind in (True, False))
    following = found[0]
    if not level:
        text += ", ahead of every other by more than its interval"
    elif not behind:
        text += f", but not by more than its interval: {_names(level)} may be as good"
    else:
        text += f". It is ahead of {_names(behind)} by more than its interval, but not of {_names(level)}"
    text += (
        f". The next is {short(following['method'])}, at {following['difference']:+.3f} "
        f"({interval_text(following['low'], following['high'], is_t=False)})."
    )
    if min(d["num_trainings"] for d in found) == 1:
        text += " The interval is over patients alone: another training may turn the order."
    return text


def _names(found: Sequence[Mapping[str, Any]]) -> str:
    return _listed([short(d["method"]) for d in found])


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _kept(methods: Methods, steps: Sequence[Sequence[str]]) -> str:
    """Says how the old classes ended, and which of them has lost most."""

    def end(name: str) -> str:
        folds = methods[name]
        return f"{_number(last_mean(folds, 'old'))}, {_loss(pooled(folds).forgetting)}"

    order = sorted(methods, key=lambda name: -_low(last_mean(methods[name], "old")))
    most, least = order[0], order[-1]
    if math.isnan(last_mean(methods[most], "old")):
        return "No scored case shows an old class."
    name, loss = _most_lost(methods[most], steps)
    text = (
        f"{most} kept most: its old classes end at {end(most)}" if len(order) > 1 else f"Old classes end at {end(most)}"
    )
    text += f" ({name} has lost most, {loss:.3f})" if loss >= _NOTABLE else ""
    return f"{text}. {least} kept least: {end(least)}." if len(order) > 1 else f"{text}."


def _learnt(methods: Methods) -> str:
    dice = {name: pooled(folds).new_when_learnt for name, folds in methods.items()}
    most, *_, least = sorted([*dice, *dice], key=lambda name: -_low(dice[name]))
    if math.isnan(dice[most]):
        return "No scored case shows a new class."
    text = f"new classes have {_number(dice[most])} right after their step."
    if len(dice) == 1:
        return text.capitalize()
    return f"{most} learnt most: {text} {least} least: {_number(dice[least])}."


def _most_lost(folds: Sequence[Mapping[str, Any]], steps: Sequence[Sequence[str]]) -> tuple[str, float]:
    """Returns the class that has lost most since its best Dice, and how much; mean over folds."""
    losses = {name: mean(lost(f["classes"], name) for f in folds) for names in steps[:-1] for name in names}
    name = max(losses, key=lambda n: _low(losses[n]))
    return name, losses[name]


def _loss(value: float) -> str:
    if math.isnan(value):
        return "with nothing to compare"
    return "as good as ever" if value < _NOTABLE else f"{value:.3f} below their best"


def _number(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.3f}"


def _low(value: float) -> float:
    return -math.inf if math.isnan(value) else value
