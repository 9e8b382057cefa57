"""The README's commands are the ones that are run."""

from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_ci_runs_the_readmes_test_command():
    command = 'pip install ".[test]" && pytest'
    assert f"```bash\n{command}\n```" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"\nbash -c '{command}'\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_readme_stays_short_and_its_links_lead_somewhere():
    import re

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 120
    for file in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for link in re.findall(r"\]\(([^)#]+)", file.read_text(encoding="utf-8")):
            assert link.startswith("http") or (file.parent / link).exists(), f"{file.name}: {link}"
