"""Measures nnU-Net's export of a prediction, all classes at once and in blocks: peak memory and time. Needs no data.

    python benchmarks/export_memory.py -o benchmarks/results/export_memory.json
    python benchmarks/export_memory.py --table benchmarks/results/export_memory.json

Random logits of a volume are resampled to half as large again along each axis, a process each.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cost_report import table


def export(num_classes: int, size: int, *, in_blocks: bool) -> dict[str, Any]:
    """Exports once; returns seconds and MiB, of which the logits before the export are no part."""
    import numpy as np
    import synthetic
    import torch
    from nnunetv2.inference.export_prediction import export_prediction_from_logits
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunet_cil.training import class_blocks

    plans = PlansManager(synthetic.base_plans("3d", [32] * 3, 2, None, [size] * 3))
    managers = plans, plans.get_configuration("3d_fullres")
    if in_blocks:
        managers = class_blocks.in_blocks(*managers)
    names = ["background", *synthetic.class_names(num_classes - 1)]
    content = {"labels": {name: c for c, name in enumerate(names)}, "file_ending": ".nii.gz"}
    shape = (size * 3 // 2,) * 3
    properties = {
        "spacing": [1.0] * 3,
        "shape_after_cropping_and_before_resampling": shape,
        "shape_before_cropping": shape,
        "bbox_used_for_cropping": [[0, s] for s in shape],
        "sitk_stuff": {"spacing": (1.0,) * 3, "origin": (0.0,) * 3, "direction": tuple(np.eye(3).ravel())},
    }
    logits = torch.randn(num_classes, size, size, size, generator=torch.Generator().manual_seed(0))
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        export_prediction_from_logits(
            logits, properties, managers[1], managers[0], content, str(Path(folder) / "x"), num_threads_torch=1
        )
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": time.perf_counter() - begin, "mib": (after - before) / 2**10}


def show(rows: list[dict[str, Any]]) -> str:
    """Returns the table."""
    header = ["classes", "volume", "export", "seconds", "memory beside the logits"]
    cells = [
        [
            str(r["classes"]),
            f"{r['size']}³ to {r['size'] * 3 // 2}³",
            "in blocks" if r["in_blocks"] else "nnU-Net's",
            f"{r['seconds']:.0f}",
            f"{r['mib'] / 1024:.2f} GiB",
        ]
        for r in rows
    ]
    return table(header, cells)


def main() -> None:
    """Measures, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[14, 118], help="(default: %(default)s)")
    parser.add_argument("--size", type=int, default=96, help="of the volume's axes (default: %(default)s)")
    parser.add_argument("-o", dest="output", type=Path, help="JSON file")
    parser.add_argument("--table", type=Path, help="measure nothing: print the table of a file")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print("\n" + json.dumps(export(**args.child)))
        return
    if args.table:
        print(show(json.loads(args.table.read_text())))
        return
    rows = []
    for classes in args.classes:
        for in_blocks in (False, True):
            asked = {"num_classes": classes, "size": args.size, "in_blocks": in_blocks}
            command = [sys.executable, __file__, "--child", json.dumps(asked)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            rows.append({"classes": classes, "size": args.size, "in_blocks": in_blocks, **found})
    print(show(rows))
    if args.output:
        args.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
