"""Checks and times training on one GPU: correctness, then speed, then many trials at once, then dense tasks.

    python benchmarks/gpu.py                        one GPU, at most 360 s
    python benchmarks/gpu.py --budget 420           more time for every part, in the same shares
    python benchmarks/gpu.py --parts speed many     these parts only
    python benchmarks/gpu.py --checks speed.compiled many.at_once   these checks alone, in this order
    python benchmarks/gpu.py --checks speed.compiled many.at_once --budget 200   the last may find no time left
    python benchmarks/gpu.py --small                every part in a tiny form on the CPU: two minutes, 2 cores; a test
    python benchmarks/gpu.py --small --device cuda:0   the same on the GPU, to see quickly whether it works at all

Needs torch 2.11 or later, torchvision, timm, pydantic, safetensors, and this project's folders workers/ and tasks/; no
Ray, MLflow, SQLAlchemy, scipy, scikit-learn or scikit-image. Data are drawn with numpy. Losses, models, optimizer and
training loop are the project's own; the plain loops beside it follow the public recipes (benchmarks/gpu/plain.py).

The parts take 100, 140, 60 and 60 of every 360 s. Checks run in a child process that this one watches: a check that
fails, hangs or crashes costs no other; one that exceeds its time is stopped, and its row says so. The table comes
last; the same figures with machine, versions and date are written to benchmarks/results/ (or --out FILE).

What to do with the result of a GPU:
1. Commit the file in benchmarks/results/, and copy its figures to docs/benchmarks.md with machine and date.
2. Each speed row names the specs whose guessed `resources.images_per_second` it replaces (also the cost in the comment
   at the head of the spec). The fastest variant of SwinV2-B becomes the `runtime` (compile, channels_last) and
   `optim.micro_batch` of the paper profiles, with the figure beside it.
3. The row of part many with the largest gain sets `resources.gpus` in the paper profile of specs/k12_grid.yaml.

Exit code: 0; 1 when a check failed, broke or was stopped; 2 when nothing can run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gpu import needs, record, runner  # noqa: E402 (the folder beside this file)
from gpu.parts import PARTS, TOTAL, chosen  # noqa: E402


def main() -> int:
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, metavar="SECONDS", help=f"for all parts; default {TOTAL:g}")
    parser.add_argument("--parts", nargs="+", choices=names, default=names)
    parser.add_argument("--checks", nargs="+", metavar="PART.CHECK", help="these checks only, as in gpu/parts.py")
    parser.add_argument("--small", action="store_true", help="tiny models; on the CPU unless --device is given")
    parser.add_argument("--device", help="as torch names it; default cuda:0, with --small cpu")
    parser.add_argument("--out", type=Path, help="JSON file; default benchmarks/results/gpu-DATE-DEVICE.json")
    parser.add_argument("--child", nargs=3, metavar=("PART", "CHECKS", "FILE"), help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = options.device or ("cpu" if options.small else "cuda:0")
    device = "cuda:0" if device == "cuda" else device
    if problems := needs.missing(device):
        print("benchmarks/gpu.py cannot start:", *problems, sep="\n  ", file=sys.stderr)
        return 2
    if options.worker:
        from gpu import worker

        return worker.serve(device)
    if options.child:
        from gpu import child

        part, checks, file = options.child
        return child.main(part, checks.split(","), Path(file), device, options.small)
    parts, budget = tuple(part for part in PARTS if part.name in options.parts), options.budget or TOTAL
    if options.checks:
        parts = chosen(options.checks)
        if not parts:
            parser.error(f"--checks: known are {', '.join(f'{p.name}.{c.name}' for p in PARTS for c in p.checks)}")
        budget = options.budget or sum(part.share for part in parts)

    def save(result: record.Result) -> Path:
        return record.write(result, options.out or record.default_path(result, ROOT), ROOT)

    result = runner.run(parts, budget, device, options.small, save, in_turn=bool(options.checks))
    if result.refused:
        print(f"benchmarks/gpu.py cannot start: {result.refused}", file=sys.stderr)
        return 2
    print(record.table(result))
    print(f"written to {save(result)}")
    return 0 if result.sound else 1


if __name__ == "__main__":
    sys.exit(main())
