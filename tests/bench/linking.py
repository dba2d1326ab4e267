"""Compares what a call over shared memory costs in a program that links shmrpc::grpc with one that does not.

linking.py WITHOUT WITH [ROUNDS [SECONDS]]    (two programs of linking_bench.cc)

The two take turns, each round the other one first. Prints the median of the rounds for both, and the median, the
smallest and the largest of the rounds' ratios.
"""

import statistics
import subprocess
import sys


def main():
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    programs = sys.argv[1:3]
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 15
    seconds = sys.argv[4] if len(sys.argv) > 4 else "1"
    medians = ([], [])
    for number in range(rounds):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            output = subprocess.run(
                [programs[which], seconds], stdout=subprocess.PIPE, text=True, timeout=60, check=True
            ).stdout
            medians[which].append(int(output.split()[0]))
    ratios = [linked / plain for plain, linked in zip(*medians)]
    for name, values in zip(("without", "with"), medians):
        print(f"{name:8} median {statistics.median(values):.0f} ns, from {min(values)} to {max(values)}")
    print(f"ratio    median {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
