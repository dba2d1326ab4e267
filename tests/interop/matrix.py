"""Runs gRPC's interoperability cases between shmrpc, gRPC C++ and gRPC Python, in every pair that is of interest and over
every transport that the pair can speak, and prints the results as a matrix.

matrix.py SHMRPC_PEER GRPC_PEER GENERATED    (GENERATED: where protoc has put the Python messages)

Exit code 0: all passed. 77: the Python packages are not there.
"""

import os
import subprocess
import sys
import tempfile

CASES = (
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "custom_metadata",
    "status_code_and_message",
    "special_status_message",
    "unimplemented_method",
    "unimplemented_service",
    "cancel_after_begin",
    "cancel_after_first_response",
    "timeout_on_sleeping_server",
    "concurrent_large_unary",
    "rpc_soak",
    "channel_soak",
    "gzip",
)
PATIENCE_SECONDS = 240


class Server:
    """A peer that serves; `addresses` is where."""

    def __init__(self, command, *addresses):
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            [*command, "server", *addresses], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            raise RuntimeError(f"{command} did not start on {addresses}: {line!r}")
        self.addresses = line.split()[2:]

    def stop(self):
        self.process.stdin.close()
        self.process.wait(timeout=30)


def run_client(command, address):
    """What is wrong with each case; empty for those that passed."""
    results = {}
    try:
        output = subprocess.run(
            [*command, "client", address, *CASES],
            stdout=subprocess.PIPE,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        ).stdout
        missing = "the client ended before this case"
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode()
        missing = f"not done within {PATIENCE_SECONDS} s"
    for line in output.splitlines():
        name, _, result = line.partition(" ")
        results[name] = "" if result.rstrip() == "ok" else result
    return {case: results.get(case, missing) for case in CASES}


def main():
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        import google.protobuf  # noqa: F401  pylint: disable=import-outside-toplevel,unused-import
        import grpc  # noqa: F401  pylint: disable=import-outside-toplevel,unused-import
    except ImportError as error:
        print(f"matrix.py: {error}: install python3-grpcio and python3-protobuf")
        return 77
    shmrpc_peer = [sys.argv[1]]
    grpc_peer = [sys.argv[2]]
    python_peer = [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "python_peer.py"), sys.argv[3]]
    os.environ.pop("SHMRPC_TRANSPORT", None)

    with tempfile.TemporaryDirectory() as directory:
        socket = f"{directory}/s"
        shmrpc = Server(shmrpc_peer, "127.0.0.1:0", f"unix:{socket}", "grpc:127.0.0.1:0")
        cpp = Server(grpc_peer, "127.0.0.1:0")
        python = Server(python_peer, "127.0.0.1:0")
        tcp, unix, grpc_only = shmrpc.addresses
        plain = grpc_only[len("grpc:"):]
        pairs = (
            ("shmrpc -> shmrpc, shm", shmrpc_peer, f"{tcp}@shm"),
            ("shmrpc -> shmrpc, tcp", shmrpc_peer, f"{tcp}@tcp"),
            ("shmrpc -> shmrpc, unix", shmrpc_peer, f"{unix}@unix"),
            ("shmrpc -> shmrpc, gRPC on the same port", shmrpc_peer, f"{tcp}@grpc"),
            ("shmrpc -> shmrpc, gRPC on a Unix socket", shmrpc_peer, f"grpc+{unix}"),
            ("shmrpc -> gRPC C++, found by itself", shmrpc_peer, cpp.addresses[0]),
            ("shmrpc -> gRPC C++, grpc:", shmrpc_peer, f"grpc:{cpp.addresses[0]}"),
            ("shmrpc -> gRPC Python, found by itself", shmrpc_peer, python.addresses[0]),
            ("gRPC C++ -> shmrpc, everybody's port", grpc_peer, tcp),
            ("gRPC C++ -> shmrpc, gRPC's port", grpc_peer, plain),
            ("gRPC C++ -> shmrpc, Unix socket", grpc_peer, unix),
            ("gRPC Python -> shmrpc, everybody's port", python_peer, tcp),
            ("gRPC Python -> shmrpc, Unix socket", python_peer, unix),
            ("gRPC C++ -> gRPC C++", grpc_peer, cpp.addresses[0]),
            ("gRPC C++ -> gRPC Python", grpc_peer, python.addresses[0]),
            ("gRPC Python -> gRPC C++", python_peer, cpp.addresses[0]),
            ("gRPC Python -> gRPC Python", python_peer, python.addresses[0]),
        )
        results = []
        for name, command, address in pairs:
            results.append(run_client(command, address))
            failed = sum(1 for why in results[-1].values() if why)
            print(f"{name}: {len(CASES) - failed} passed, {failed} failed", flush=True)
        for server in (shmrpc, cpp, python):
            server.stop()

    print()
    width = max(len(case) for case in CASES)
    letters = [chr(ord("A") + i) for i in range(len(pairs))]
    for letter, (name, _, _) in zip(letters, pairs):
        print(f"{letter}  {name}")
    print()
    print(" " * width, " ".join(letters))
    for case in CASES:
        print(case.ljust(width), " ".join("x" if result[case] else "." for result in results))
    print()
    failed = 0
    for letter, (name, _, _), result in zip(letters, pairs, results):
        for case in CASES:
            if result[case]:
                failed += 1
                print(f"{letter} {name}: {case} {result[case]}")
    total = len(CASES) * len(pairs)
    print(f"interop: {total - failed} passed, {failed} failed ({len(CASES)} cases, {len(pairs)} pairs)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
