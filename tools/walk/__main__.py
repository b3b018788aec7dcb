"""`make walk`: plays N sequences from a seed on; ends with 1 and the seeds of those that break an invariant."""

from __future__ import annotations

import argparse
import collections
import sys
import time
import traceback

from tools.walk import sequence

parser = argparse.ArgumentParser(prog="walk", description=__doc__)
parser.add_argument("--count", type=int, default=100_000)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

began = time.monotonic()
outcomes: collections.Counter[str] = collections.Counter()
kills = 0
found: list[int] = []
for seed in range(options.seed, options.seed + options.count):
    one = sequence.Sequence(seed)
    try:
        one.play()
    except AssertionError:
        found.append(seed)
        if len(found) <= 3:
            print(f"seed {seed}:")
            traceback.print_exc(limit=-3, file=sys.stdout)
    kills += one.kills
    outcomes.update(record.result.detailed for record in one.ended if record.result is not None)
print(
    f"{options.count} sequences in {time.monotonic() - began:.0f} s: {sum(outcomes.values())} deployments, {kills} kills"
)
for name, number in outcomes.most_common():
    print(f"  {number:8} {name}")
print(f"{len(found)} break an invariant: {found[:20]}" if found else "every invariant held")
sys.exit(1 if found else 0)
