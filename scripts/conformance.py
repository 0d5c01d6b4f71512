"""Checks a report of Autobahn cases: every case must be OK in the strict sense.

`INFORMATIONAL` cases have no right answer and pass; `NON-STRICT` ones fail.
"""

import collections
import json
import sys

# Number of cases of the pinned version without 12 and 13; a smaller number means that some did not run.
CASES = 301
PASSES = {"OK", "INFORMATIONAL"}


def main(path):
    with open(path, encoding="utf-8") as file:
        (cases,) = json.load(file).values()
    faults = []
    if len(cases) != CASES:
        faults.append(f"{len(cases)} cases ran, not {CASES}")
    for name, case in cases.items():
        if case["behavior"] not in PASSES:
            faults.append(f"case {name}: {case['behavior']}")
        if case["behaviorClose"] not in PASSES:
            faults.append(f"case {name}: its close was {case['behaviorClose']}")
    counts = collections.Counter(case["behavior"] for case in cases.values())
    print("conformance:", ", ".join(f"{count} {behavior}" for behavior, count in counts.most_common()))
    for fault in faults:
        print(f"conformance: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
