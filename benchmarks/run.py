"""All benchmarks in one table: `make bench`.

python benchmarks/run.py [dataset.path=my/data]
"""

import sys
from pathlib import Path

import data
import networks
import noise
import samplers
import startup
import trainer
from measure import report


def main() -> None:
    overrides = sys.argv[1:]
    rows = [
        *networks.rows(),
        *trainer.rows(["experiment=digits"]),
        *trainer.rows(["experiment=mnist_cpu", *overrides], rounds=3),
        *data.rows(["experiment=mnist_cpu", *overrides]),
        *noise.rows(),
        *samplers.rows(),
        *startup.rows(),
    ]
    report(rows, Path("runs/benchmarks/table.md"))


if __name__ == "__main__":
    main()
