"""The tables of ``comparison.html``, made from the content of ``comparison.json``, and the sentences that stand above them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_cil.errors import counted
from nnunet_cil.evaluation.answers import Answer
from nnunet_cil.evaluation.bootstrap import FEW, NUM_REPLICATES
from nnunet_cil.evaluation.comparison import FAR_MM
from nnunet_cil.evaluation.comparison_summary import FINDINGS
from nnunet_cil.evaluation.report import Picture, render
from nnunet_cil.evaluation.summary import Section
from nnunet_cil.evaluation.tables import Table, number

_MOST_ROWS = 40
"""The number of rows of a long table that the page shows; all are in the CSV and JSON files."""


def comparison_page(content: Mapping[str, Any], pictures: Sequence[Picture]) -> str:
    """Returns the page as HTML.

    Args:
        content: as in ``comparison.json``, with NaN.
        pictures: the cases that changed most.
    """
    before, after = sections(content)
    return render(
        "comparison.html.jinja",
        title="What changes from model A to model B",
        models={"A": content["model_a"], "B": content["model_b"]},
        answers=answers(content),
        before=before,
        pictures=pictures,
        after=after,
        versions=content["versions"],
        command=content["command"],
    )


def comparison_text(content: Mapping[str, Any]) -> str:
    """Returns what is printed: the answers, and agreement class by class."""
    lines = [*(f"{a.question} {a.text}" for a in answers(content)), "", _agreement(content).table.markdown()]
    if findings := content["findings"]:
        lines += ["", _findings(findings).table.markdown()]
    return "\n".join(lines)


def answers(content: Mapping[str, Any]) -> list[Answer]:
    """Answers the questions that the page is opened for."""
    shared = [c for c in content["classes"] if c["is_shared"] and not math.isnan(c["dice"])]
    lowest = shared[0]
    agreement = (
        f"Mean Dice of the two: {content['mean_dice']:.3f} ({counted(len(shared), 'class', 'classes')} of both, "
        f"{counted(content['num_cases'], 'case')}). Least in {lowest['class']}: {lowest['dice']:.3f} in the mean, "
        f"{lowest['lowest_dice']:.3f} in {lowest['lowest_case']}."
    )
    if content["in_no_case"]:
        agreement += f" Not compared, since neither finds it in any case: {', '.join(content['in_no_case'])}."
    if content["unknown_to_b"]:
        agreement += f" B does not know {', '.join(content['unknown_to_b'])}."
    found = [Answer(question="Does B find what A finds?", text=agreement)]
    if content["fail_below"] is not None:
        where = f"No: {', '.join(content['below'])}." if content["below"] else "Yes."
        found.append(Answer(question=f"Is every class of A at {content['fail_below']:g} or above?", text=where))
    found.append(Answer(question="What should a person look at?", text=_to_look_at(content["findings"])))
    if content["reference"]:
        found.append(Answer(question="Which is better, by the labels?", text=_reference_answer(content["reference"])))
    return found


def _to_look_at(findings: Sequence[Mapping[str, Any]]) -> str:
    cases = {kind: {f["case"] for f in findings if f["kind"] == kind} for kind in _TO_LOOK_AT}
    told = [f"{counted(len(cases[kind]), 'case')} in which {what}" for kind, what in _TO_LOOK_AT.items() if cases[kind]]
    if not told:
        return "At nothing: no class appears, vanishes or changes places with another one in any case."
    return f"{'; '.join(told)}."


_TO_LOOK_AT = {
    "swapped": "two classes have changed places",
    "vanished": "a class is missing with B",
    "appeared": "a class is new with B",
    "far": "a class has new components far from the old ones",
}
"""Kind of a finding -> what it says of a case."""


def _reference_answer(rows: Sequence[Mapping[str, Any]]) -> str:
    """Says what the labels say of both models."""
    both = [row for row in rows if not math.isnan(row["difference"])]
    parts = []
    if both:
        row = next((r for r in both if r["class"] == "all shared"), both[0])
        parts.append(
            f"B's Dice of {row['class']} is {row['dice_b']:.3f} and A's {row['dice_a']:.3f}: {_difference_text(row)}."
        )
    own = [r for r in rows if math.isnan(r["difference"]) and not math.isnan(r["dice_b"])]
    parts += [f"B's Dice of {r['class']}, which A does not know, is {r['dice_b']:.3f}." for r in own[:3]]
    return " ".join(parts)


def _difference_text(row: Mapping[str, Any]) -> str:
    if math.isnan(row["low"]):
        return f"{row['difference']:+.3f}"
    verdict = "includes" if row["low"] <= 0 <= row["high"] else "leaves out"
    return f"{row['difference']:+.3f}, with an interval of {row['low']:+.3f} to {row['high']:+.3f} that {verdict} 0"


def sections(content: Mapping[str, Any]) -> tuple[list[Section], list[Section]]:
    """Returns the tables that stand before the pictures, and those after them."""
    before = [_agreement(content)]
    if content["findings"]:
        before.append(_findings(content["findings"]))
    if content["reference"]:
        before.append(_against_labels(content["reference"]))
    before.append(_cases(content["cases"]))
    return before, [_moved(content["moved"])]


def _agreement(content: Mapping[str, Any]) -> Section:
    unit = content["distance_unit"]
    body = []
    for row in content["classes"]:
        volumes = [_volume(row[f"volume_{m}_ml"], row[f"num_voxels_{m}"]) for m in "ab"]
        body.append(
            [
                row["class"] + ("" if row["is_shared"] else " (one model only)"),
                number(row["dice"]),
                number(row["lowest_dice"]),
                "" if math.isnan(row["hd95_mm"]) else f"{row['hd95_mm']:.2f}",
                *volumes,
                *(
                    str(row[key]) if row["is_shared"] else ""
                    for key in ("num_cases", "num_vanished", "num_appeared", "num_cases_far")
                ),
            ]
        )
    header = ["class", "Dice", "lowest", f"HD95 {unit}", "volume A", "volume B"]
    return Section(
        "Agreement of A and B",
        "Least agreement first. Dice: mean over the cases in which either model finds the class (0 where one does not). HD95: "
        "mean over those in which both do. Volumes: mean over all cases. Far: cases with new components "
        f"{FAR_MM:g} {unit} or more from all of A's.",
        Table([*header, "cases", "vanished", "appeared", "far"], body),
    )


def _findings(findings: Sequence[Mapping[str, Any]]) -> Section:
    body = [[f["case"], _finding_text(f), _ml(f["volume_ml"])] for f in findings[:_MOST_ROWS]]
    return Section("Look at these", _shown(findings), Table(["case", "what", "volume"], body, num_labels=2))


def _finding_text(finding: Mapping[str, Any]) -> str:
    text = FINDINGS[finding["kind"]]
    if finding.get("num_components") == 1:
        text = "has a new component far from the old ones"
    return f"{finding['class']} {text}"


def _against_labels(rows: Sequence[Mapping[str, Any]]) -> Section:
    body = [
        [
            row["class"],
            number(row["dice_a"]),
            number(row["dice_b"]),
            "" if math.isnan(row["difference"]) else f"{row['difference']:+.3f}",
            "" if math.isnan(row["low"]) else f"{row['low']:+.3f} to {row['high']:+.3f}",
            str(row["num_cases"]),
        ]
        for row in rows
    ]
    return Section(
        "Against the labels",
        "Mean Dice of either model, and B's less A's on the same cases, with its interval (95 %, over patients; percentiles of "
        f"{NUM_REPLICATES} draws, or a t interval where fewer than {FEW} patients make it the wider). It says nothing of another "
        "training.",
        Table(["class", "Dice A", "Dice B", "B - A", "interval", "cases"], body),
    )


def _cases(cases: Sequence[Mapping[str, Any]]) -> Section:
    body = [
        [
            c["case"],
            c["lowest_class"],
            number(c["lowest_dice"]),
            number(c["dice"]),
            _volume(c["moved_ml"], c["moved_voxels"]),
        ]
        for c in cases[:_MOST_ROWS]
    ]
    text = "The case first whose most changed class agrees least. Changed: all voxels whose class differs."
    table = Table(["case", "most changed class", "its Dice", "mean Dice", "changed"], body, num_labels=2)
    return Section("Cases in the order of their change", " ".join(filter(None, [text, _shown(cases)])), table)


def _moved(moved: Sequence[Mapping[str, Any]]) -> Section:
    body = [[m["a"], m["b"], _volume(m["volume_ml"], m["num_voxels"]), str(m["num_cases"])] for m in moved[:_MOST_ROWS]]
    text = "Over all cases, the most first. Classes that overlap in a voxel are joined by +."
    table = Table(["A says", "B says", "volume", "cases"], body, num_labels=2)
    return Section("Voxels that changed class", " ".join(filter(None, [text, _shown(moved)])), table)


def _shown(rows: Sequence[Any]) -> str:
    return f"The first {_MOST_ROWS} of {len(rows)}." if len(rows) > _MOST_ROWS else ""


def _volume(volume_ml: float, num_voxels: float) -> str:
    """Returns a volume; in voxels where the files do not say how large these are, blank where there is none."""
    if math.isnan(num_voxels):
        return ""
    return f"{num_voxels:.0f} voxels" if math.isnan(volume_ml) else _ml(volume_ml)


def _ml(volume_ml: float) -> str:
    return "" if math.isnan(volume_ml) else f"{volume_ml:.1f} ml" if volume_ml >= 1 else f"{volume_ml:.3f} ml"
