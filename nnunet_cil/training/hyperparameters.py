"""Hyper-parameters of trainers: declared in one line each, checked where a schedule sets them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Generic, TypeVar

from nnunet_cil.errors import CILError, did_you_mean, nearest
from nnunet_cil.files import shortened
from nnunet_cil.limits import MAX_COUNT, MAX_WEIGHT, is_number

Value = TypeVar("Value", bool, int, float, str)


@dataclass(frozen=True, kw_only=True)
class Hyperparameter(Generic[Value]):
    """A class attribute of a trainer that a schedule may set. Its value is what reading the attribute gives.

    Attributes:
        default: a value of the type that is expected; a whole number accepts only whole numbers.
        meaning: one sentence for the documentation; of a fixed one, the reason.
        low: least value.
        high: largest value.
        options: the texts that are allowed; empty for a number or a switch.
        is_settable: False where a trainer fixes it at its default.
    """

    default: Value
    meaning: str
    low: float = 0
    high: float = MAX_WEIGHT
    options: tuple[str, ...] = ()
    is_settable: bool = True

    def __get__(self, trainer: object | None, owner: type) -> Value:
        """Returns the default, for as long as no value is set on the trainer."""
        return self.default

    def check(self, value: Any) -> str | None:
        """Checks a value; returns the values that are allowed where it is not one of them, else None."""
        if self.options:
            if value in self.options:
                return None
            meant = nearest(value, self.options) if isinstance(value, str) else None
            return f"one of {', '.join(map(repr, self.options))}{f' (did you mean {meant!r}?)' if meant else ''}"
        if isinstance(self.default, bool):
            return None if isinstance(value, (bool, int, float)) and value in (0, 1) else "true or false"
        kind = type(self.default)
        if is_number(value, self.low, self.high) and kind(value) == value:
            return None
        is_finite = not isinstance(value, float) or math.isfinite(value)
        what = "a whole number" if kind is int else "a number" if is_finite else "a finite number"
        return f"{what} from {self.low} to {self.high}"

    def is_of_kind(self, value: Any) -> bool:
        """Tells whether an earlier version can have had this value, whatever range it has today."""
        if self.options:
            return value in self.options
        kinds = bool, (int, float)
        return all(isinstance(value, kind) == isinstance(self.default, kind) for kind in kinds)


def number(default: float, meaning: str, *, low: float = 0, high: float = MAX_WEIGHT) -> Hyperparameter[float]:
    """Declares a number."""
    return Hyperparameter(default=default, meaning=meaning, low=low, high=high)


def whole_number(default: int, meaning: str, *, low: float = 0, high: float = MAX_COUNT) -> Hyperparameter[int]:
    """Declares a whole number."""
    return Hyperparameter(default=default, meaning=meaning, low=low, high=high)


def switch(default: bool, meaning: str) -> Hyperparameter[bool]:
    """Declares a switch; true or false in JSON, or 1 or 0 as in schedules of earlier versions."""
    return Hyperparameter(default=default, meaning=meaning, high=1)


def choice(default: str, options: Sequence[str], meaning: str) -> Hyperparameter[str]:
    """Declares a choice of a few texts."""
    return Hyperparameter(default=default, meaning=meaning, options=tuple(options))


def fixed(value: Value, reason: str) -> Hyperparameter[Value]:
    """Declares a hyper-parameter of fixed value, which a schedule cannot set; ``reason`` says why, or what to set."""
    return Hyperparameter(default=value, meaning=reason, is_settable=False)


def declared(trainer: type) -> dict[str, Hyperparameter[Any]]:
    """Returns a trainer's hyper-parameters by name, its parents' first, fixed ones included."""
    found: dict[str, Hyperparameter[Any]] = {}
    for owner in reversed(trainer.__mro__):
        found |= {name: value for name, value in vars(owner).items() if isinstance(value, Hyperparameter)}
    return found


def settable(trainer: type) -> dict[str, Hyperparameter[Any]]:
    """Returns a trainer's hyper-parameters that a schedule may set, by name."""
    return {name: parameter for name, parameter in declared(trainer).items() if parameter.is_settable}


def check(trainer: type, values: Mapping[str, Any], where: str) -> None:
    """Refuses names that a trainer does not have, and values that it does not take, its own defaults among them.

    Args:
        trainer: a trainer class.
        values: by name, as in a schedule.
        where: the file or schedule that sets them, for the message.

    Raises:
        CILError: with the nearest name, or the range.
    """
    known = settable(trainer)
    for name, parameter in known.items():
        expected = parameter.check(getattr(trainer, name))
        if expected is not None:
            given = shortened(getattr(trainer, name))
            raise CILError(f"{trainer.__name__} sets {name!r} to {given}, but it must be {expected}.")
    for name, value in values.items():
        if found := _refusal(trainer, name, value):
            raise CILError(f"{where} sets the hyper-parameter {name!r}{found}")


def _refusal(trainer: type, name: str, value: Any) -> str | None:
    """Returns the end of the sentence that refuses a value; None for one that the trainer takes, or fixes it at."""
    known = declared(trainer)
    if name not in known:
        return f", which {trainer.__name__} does not have{did_you_mean(name, settable(trainer))}."
    if not known[name].is_settable:
        held = getattr(trainer, name)
        if value == held and (isinstance(held, bool) or not isinstance(value, bool)):
            return None
        because = f"{held!r}: {known[name].meaning}. Remove it. A step that has begun to train keeps it."
        return f", which {trainer.__name__} fixes at {because}"
    expected = known[name].check(value)
    return None if expected is None else f" to {shortened(value)}, but it must be {expected}."


def taken(trainer: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values that a trainer takes, or fixes at just that."""
    return {name: value for name, value in values.items() if _refusal(trainer, name, value) is None}


class Settings(SimpleNamespace):
    """The values of a trainer's hyper-parameters, by name, as its loss reads them."""


def settings(trainer: object) -> Settings:
    """Returns the values of a trainer's hyper-parameters."""
    return Settings(**{name: getattr(trainer, name) for name in declared(type(trainer))})


def set_values(trainer: object, values: Mapping[str, Any]) -> None:
    """Sets hyper-parameters of a trainer, each in the type of its default; the values have been checked."""
    known = declared(type(trainer))
    for name, value in values.items():
        setattr(trainer, name, type(known[name].default)(value))


def restore(trainer: object, recorded: Mapping[str, Any], chosen: Collection[str]) -> dict[str, Any]:
    """Sets a trainer's hyper-parameters to what they were when its training began, but for those chosen since.

    Args:
        trainer: a trainer.
        recorded: name -> value, as in the record of the training.
        chosen: names that its schedule sets to what the trainer takes.

    Returns:
        The values that today's defaults would have changed, by name.
    """
    known = declared(type(trainer))
    found = {
        name: value
        for name, value in recorded.items()
        if name in known and name not in chosen and value != getattr(trainer, name) and known[name].is_of_kind(value)
    }
    for name, value in found.items():
        setattr(trainer, name, value)
    return found
