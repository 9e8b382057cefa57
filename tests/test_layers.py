"""Imports point one way: a lower layer never imports a higher one (CONTRIBUTING.md)."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "nnunet_cil"
LAYERS = {
    "case_hashes": 0,
    "content": 0,
    "errors": 0,
    "files": 0,
    "fold_cases": 0,
    "limits": 0,
    "lineage": 0,
    "model_card": 0,
    "model_changes": 0,
    "locks": 0,
    "names": 0,
    "next_stage": 0,
    "nnunet_files": 0,
    "owners": 0,
    "predicted_from": 0,
    "shipped": 0,
    "schedule": 0,
    "slurm_queue": 0,
    "labels": 0,
    "regions": 0,
    "step_plans": 0,
    "training_command": 0,
    "validation": 0,
    "host": 1,
    "losses": 1,
    "networks": 1,
    "evaluation": 2,
    "datasets": 2,
    "training": 3,
    "workflows": 4,
    "cli": 5,
}
ALLOWED = {
    "host": {"host"},
    "losses": {"losses"},
    "networks": {"networks", "losses"},
    "evaluation": {"evaluation", "host"},
    "datasets": {"datasets", "host"},
    "training": {"training", "host", "losses", "networks"},
    "workflows": {"workflows", "training", "datasets", "evaluation", "host", "losses", "networks"},
}
"""Beside the modules of layer 0, which ``losses`` and ``networks`` do without."""
FREE = {"errors"}
"""Errors may be raised anywhere."""

pytestmark = pytest.mark.skipif(not PACKAGE.is_dir(), reason="needs a checkout")


def imported(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda f: str(f.relative_to(PACKAGE)))
def test_no_import_points_up(file):
    own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imported(file):
        name = module.split(".")
        if name[0] != "nnunet_cil" or len(name) == 1 or name[1] in FREE or own == "__init__":
            if LAYERS.get(own) == 2:
                assert name[0] != "torch", f"{file.name}: evaluation and datasets do without torch"
            continue
        low = {n for n, layer in LAYERS.items() if layer == 0} if own not in ("losses", "networks") else set()
        allowed = low | ALLOWED.get(own, set()) if LAYERS[own] < 5 else set(LAYERS)
        assert name[1] in allowed, f"{own} (layer {LAYERS[own]}) imports {module} (layer {LAYERS[name[1]]})"


def test_every_module_has_a_layer():
    assert {p.name.removesuffix(".py") for p in PACKAGE.iterdir() if p.name[0] != "_" and p.suffix != ".typed"} == set(
        LAYERS
    )


def test_only_the_command_line_prints():
    for file in PACKAGE.rglob("*.py"):
        if file.relative_to(PACKAGE).parts[0] != "cli":
            calls = [n for n in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
            assert not any(isinstance(c.func, ast.Name) and c.func.id == "print" for c in calls), file
