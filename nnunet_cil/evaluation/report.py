"""Pages that open offline, in one file each: ``report.html``, and an inspected data set."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_cil.evaluation.answers import answers
from nnunet_cil.evaluation.summary import Section, facts, overview, title

CHARTS = ("differences", "curves", "classes", "forgetting", "cases", "matrix")
"""The names of the figures of scores that a report has a place for."""

_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}


@dataclass(frozen=True)
class Picture:
    """A picture, SVG or PNG, and what it shows.

    Attributes:
        file: the picture.
        text: what it shows.
        narrow: address of the same for a narrow screen; where it is empty, a reader scrolls sideways.
    """

    file: Path
    text: str
    narrow: str = ""

    @property
    def data(self) -> str:
        """Returns the picture as an address that a page can hold."""
        return picture_address(self.file.read_bytes(), self.file.suffix)


def picture_address(content: bytes, ending: str) -> str:
    """Returns the address of a picture that a page holds in itself.

    Args:
        content: of its file.
        ending: of its file, ``.svg`` or ``.png``.
    """
    return f"data:{_TYPES[ending]};base64,{base64.b64encode(content).decode()}"


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A part of the report: tables, and pictures below them."""

    title: str
    sections: Sequence[Section] = ()
    pictures: Sequence[Picture] = ()
    is_open: bool = True

    @property
    def anchor(self) -> str:
        """Returns the part's address on the page."""
        return self.title.lower().replace(" ", "-")


def report(
    content: Mapping[str, Any],
    *,
    charts: Mapping[str, Picture],
    overlays: Sequence[Picture],
    training: Sequence[Picture],
) -> str:
    """Returns the report as HTML.

    Args:
        content: as in ``results.json``.
        charts: figures of scores, by the names of their files.
        overlays: segmented cases.
        training: curves of the loss terms.
    """
    standings, steps, *tables = overview(content)
    pictures = {name: [charts[name]] if name in charts else [] for name in CHARTS}
    parts = [
        _Part(title="After each step", sections=[steps], pictures=pictures["curves"]),
        _Part(
            title="Classes and cases",
            pictures=[*pictures["classes"], *pictures["forgetting"], *pictures["cases"]],
        ),
        _Part(title="Pictures", pictures=overlays),
        _Part(title="Tables", sections=tables, pictures=pictures["matrix"]),
        _Part(title="Training", pictures=training, is_open=False),
    ]
    return render(
        "report.html.jinja",
        title=title(content),
        facts=facts(content),
        answers=answers(content),
        standings=standings,
        differences=pictures["differences"],
        parts=parts,
        commands=content["commands"],
        versions=content["versions"],
        checkpoints=content["checkpoints_sha256"],
    )


def page(title: str, facts: Sequence[str], sections: Sequence[Section], pictures: Sequence[Picture]) -> str:
    """Returns the page of an inspected data set as HTML.

    Args:
        title: heading.
        facts: a paragraph each.
        sections: tables; the first stands before the pictures, the others after them.
        pictures: cases.
    """
    return render("inspection.html.jinja", title=title, facts=facts, sections=sections, pictures=pictures)


def render(template: str, **content: Any) -> str:
    """Returns a page as HTML, from a template beside this module and its content."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("nnunet_cil", "evaluation"), autoescape=True, trim_blocks=True)
    return environment.get_template(template).render(**content)
