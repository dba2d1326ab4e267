"""python_calls.py ADDRESS COUNT [UID]: calls Echo COUNT times through gRPC Python, and checks the replies. With UID it
becomes that user first."""

import os
import sys

import grpc


def main():
    if len(sys.argv) > 3:
        os.setuid(int(sys.argv[3]))
    with grpc.insecure_channel(sys.argv[1]) as channel:
        # Bytes in, bytes out: field 1 of both messages is the payload.
        echo = channel.unary_unary("/shmrpc.conformance.Echo/Echo")
        for i in range(int(sys.argv[2])):
            payload = b"python %d" % i
            message = bytes([0x0A, len(payload)]) + payload
            if echo(message, timeout=60) != message:
                print(f"call {i} came back changed", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
