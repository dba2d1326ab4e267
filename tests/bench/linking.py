"""Compares what a call over shared memory costs in a program that links shmrpc::grpc with one that does not.

linking.py WITHOUT WITH [ROUNDS [SECONDS]]    (two programs of linking_bench.cc; PROGRAM=default has it run as that)

The two take turns, each round the other one first. A round that other programs disturb is many times slower, so what
counts is the fastest quarter of each program's rounds: prints its median and its range for both, and the medians' ratio.
"""

import statistics
import subprocess
import sys


def command(program, seconds):
    path, _, transports = program.partition("=")
    return [path, seconds, transports] if transports else [path, seconds]


def main():
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    programs = sys.argv[1:3]
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 60
    seconds = sys.argv[4] if len(sys.argv) > 4 else "0.3"
    medians = ([], [])
    for number in range(rounds):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            output = subprocess.run(
                command(programs[which], seconds), stdout=subprocess.PIPE, text=True, timeout=60, check=True
            ).stdout
            medians[which].append(int(output.split()[0]))
    fast = [sorted(values)[: (rounds + 3) // 4] for values in medians]
    for name, values in zip(("without", "with"), fast):
        print(f"{name:8} {statistics.median(values):.0f} ns a call, from {values[0]} to {values[-1]}")
    print(f"ratio    {statistics.median(fast[1]) / statistics.median(fast[0]):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
