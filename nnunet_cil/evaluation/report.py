"""Pages that open offline, in one file each: ``report.html``, and an inspected data set."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_cil.evaluation.results import short
from nnunet_cil.evaluation.summary import Section, overview, title

_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}


@dataclass(frozen=True)
class Picture:
    """A picture, SVG or PNG, and what it shows.

    Attributes:
        file: the picture.
        text: what it shows.
        narrow_file: the same for a narrow screen; where there is none, a reader scrolls sideways.
    """

    file: Path
    text: str
    narrow_file: Path | None = None

    @property
    def data(self) -> str:
        """Returns the picture as an address that a page can hold."""
        return _address(self.file)

    @property
    def narrow(self) -> str:
        """Returns that of a narrow screen; empty where there is none."""
        return "" if self.narrow_file is None else _address(self.narrow_file)


def _address(file: Path) -> str:
    return f"data:{_TYPES[file.suffix]};base64,{base64.b64encode(file.read_bytes()).decode()}"


def report(
    content: Mapping[str, Any], *, charts: Sequence[Picture], overlays: Sequence[Picture], training: Sequence[Picture]
) -> str:
    """Returns the report as HTML.

    Args:
        content: as in ``results.json``.
        charts: figures of scores.
        overlays: segmented cases.
        training: curves of the loss terms.
    """
    return render(
        "report.html.jinja",
        title=title(content),
        methods=[short(t) for t in content["trainers"]],
        cases=Path(content["cases"]).name,
        sections=overview(content),
        charts=charts,
        overlays=overlays,
        training=training,
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
