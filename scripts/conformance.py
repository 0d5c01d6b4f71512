"""Judges a report of Autobahn cases: every case must be OK.

`INFORMATIONAL` cases have no right answer and pass. What is known to be less than strict is named in NOT_STRICT, with
its reason; a case that does better than the table says fails too, so that the table stays true.
"""

import collections
import json
import sys

# How many cases the pinned version has without 12 and 13: fewer means that not all of them ran.
CASES = 301

# Conformant, and not as early as it could be.
NOT_STRICT = {
    "6.4.3": "text is checked when its frame is complete, not byte by byte",
    "6.4.4": "text is checked when its frame is complete, not byte by byte",
}


def main(path):
    with open(path, encoding="utf-8") as file:
        (cases,) = json.load(file).values()
    faults = []
    if len(cases) != CASES:
        faults.append(f"{len(cases)} cases ran, not {CASES}")
    for name, case in cases.items():
        expected = {"NON-STRICT"} if name in NOT_STRICT else {"OK", "INFORMATIONAL"}
        if case["behavior"] not in expected:
            faults.append(f"case {name}: {case['behavior']}, expected {' or '.join(sorted(expected))}")
        if case["behaviorClose"] not in {"OK", "INFORMATIONAL"}:
            faults.append(f"case {name}: the close was {case['behaviorClose']}")
    counts = collections.Counter(case["behavior"] for case in cases.values())
    print("conformance:", ", ".join(f"{count} {behavior}" for behavior, count in counts.most_common()))
    for fault in faults:
        print(f"conformance: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
