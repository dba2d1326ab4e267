#!/usr/bin/env python3
"""Writes tests/fuzz/seeds/: a few inputs for each fuzzer that get past the first checks.

Run it after a change of the wire format or of a fuzzer's input: tests/fuzz/make_seeds.py. It needs nothing but Python.
What each fuzzer makes of its input is said at the top of its source.
"""

import pathlib
import struct

SEEDS = pathlib.Path(__file__).parent / "seeds"

METHOD, REQUEST, RESPONSE, FRAGMENT, RESET, GO_AWAY, HEADERS, MESSAGE, CREDIT, ALIVE = range(1, 11)
MORE, DEADLINE, METADATA, STATUS, NO_MESSAGE, OPEN, NOT_PROCESSED = 1, 2, 4, 8, 16, 32, 64


def write(fuzzer, name, content):
    folder = SEEDS / fuzzer
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def varint(value):
    encoded = b""
    while value >= 128:
        encoded += bytes([value % 128 + 128])
        value //= 128
    return encoded + bytes([value])


def field(number, value):
    """A field of a protobuf message: a number, or something with a length."""
    if isinstance(value, int):
        return varint(number * 8) + varint(value)
    return varint(number * 8 + 2) + varint(len(value)) + value


def block(content):
    return struct.pack("<I", len(content)) + content


def metadata(*entries):
    return block(b"".join(field(1, field(1, key) + field(2, value)) for key, value in entries))


def frame(kind, flags=0, code=0, call=0, body=b"", size=None):
    """As session_link.h takes it. With `size`, zeros follow at the input's end."""
    return struct.pack("<BBHBH", kind, flags, code, call, len(body) if size is None else size) + body


def hello(message, step=255):
    return bytes([step]) + b"SHMRPC1\n" + struct.pack("<I", len(message)) + message


def hellos():
    window = field(1, 256 * 1024) + field(2, 4096 * 1024)
    for number in range(2, 12):  # wherever the window stands
        write("hello", f"window{number}", hello(field(1, 1) + field(number, window)))
    write("hello", "byte_by_byte", hello(field(1, 1) + field(2, b"b" * 36), step=0))
    write("hello", "http2", b"\x05PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    write("hello", "too_long", b"\xffSHMRPC1\n" + struct.pack("<I", 4097))


def frames():
    entries = metadata((b"key", b"value"), (b"key-bin", b"\x00\xff"))
    write("frame", "request", struct.pack("<BBH", 0, DEADLINE | METADATA, 0) + struct.pack("<Q", 10**9) + entries)
    write("frame", "request_more", struct.pack("<BBH", 0, MORE, 0) + struct.pack("<I", 100000) + b"xyz")
    attempts = metadata((b"grpc-previous-rpc-attempts", b"2"))
    write("frame", "request_attempts", struct.pack("<BBH", 0, METADATA, 0) + attempts)
    status = block(field(1, b"message") + field(2, b"details"))
    write("frame", "response", struct.pack("<BBH", 1, METADATA | STATUS | NO_MESSAGE, 5) + entries + status)
    write("frame", "response_ok", struct.pack("<BBH", 1, 0, 0) + b"xyz")
    write("frame", "headers", struct.pack("<BBH", 2, METADATA, 0) + entries)
    write("frame", "message", struct.pack("<BBH", 3, MORE, 0) + struct.pack("<I", 1000) + b"xyz")
    write("frame", "message_of_client", struct.pack("<BBH", 64 + 5, OPEN, 0) + b"xyz")
    write("frame", "credit", struct.pack("<BBH", 4, 0, 0) + struct.pack("<II", 100, 200))
    write("frame", "go_away", struct.pack("<BBH", 5, NOT_PROCESSED, 0))


def server_sessions():
    path = frame(METHOD, body=b"/a.Service/Method")
    calls = b"".join(frame(REQUEST, call=call, body=b"xyz") for call in range(6))
    write("server_session", "unary", path + calls)
    stream = frame(REQUEST, OPEN | NO_MESSAGE, call=2)
    messages = frame(MESSAGE, OPEN, call=2, body=b"abc") + frame(CREDIT, call=2, body=struct.pack("<II", 64, 64))
    two = b"".join(frame(REQUEST, call=call, body=b"xyz") for call in range(2))
    write("server_session", "stream", path + two + stream + messages * 3 + frame(MESSAGE, NO_MESSAGE, call=2))
    write("server_session", "reset", path + two + stream + messages + frame(RESET, code=1, call=2))
    more = frame(REQUEST, MORE, call=0, body=struct.pack("<I", 6) + b"abc") + frame(FRAGMENT, call=0, body=b"def")
    write("server_session", "pieces", path + more)
    large = frame(MESSAGE, MORE | OPEN, call=2, body=struct.pack("<I", 10) + b"abc")
    cut_off = large + frame(FRAGMENT, MORE, call=2, body=b"def") + frame(RESET, call=2)
    write("server_session", "cut_off", path + two + stream + cut_off)
    write("server_session", "window", path + two + stream + frame(MESSAGE, OPEN, call=2, size=30000))
    write("server_session", "alive", path + frame(ALIVE))


def client_sessions():
    entries = metadata((b"key", b"value"))
    unary = b"".join(frame(RESPONSE, call=call, body=b"") for call in (0, 1, 4, 5))
    write("client_session", "unary", b"\x00" + unary)
    stream = frame(HEADERS, METADATA, call=2, body=entries) + frame(MESSAGE, call=2, body=b"")
    end = frame(RESPONSE, NO_MESSAGE, call=2)
    write("client_session", "stream", b"\x03" + stream + end)
    write("client_session", "two_streams", b"\x0b" + stream + frame(MESSAGE, call=3, body=b"") + end)
    credit = frame(CREDIT, call=2, body=struct.pack("<II", 64, 64))
    write("client_session", "credit", b"\x03" + credit + end)
    pieces = frame(RESPONSE, MORE, call=0, body=struct.pack("<I", 6) + b"abc") + frame(FRAGMENT, call=0, body=b"def")
    write("client_session", "pieces", b"\x00" + pieces)
    cut_off = frame(MESSAGE, MORE, call=3, body=struct.pack("<I", 9) + b"abc") + frame(RESET, call=3)
    write("client_session", "cut_off", b"\x03" + cut_off)
    refused = frame(RESPONSE, NO_MESSAGE | NOT_PROCESSED, code=14, call=0)
    farewell = frame(GO_AWAY) + refused + frame(GO_AWAY, NOT_PROCESSED)
    write("client_session", "go_away", b"\x00" + farewell)
    status = block(field(1, b"message"))
    write("client_session", "status", b"\x00" + frame(RESPONSE, STATUS | NO_MESSAGE, code=5, call=1, body=status))
    write("client_session", "window", b"\x00" + frame(MESSAGE, call=2, size=30000))


def rings():
    def record(length, lines):
        return struct.pack("<I", length).ljust(64 * lines, b"r")

    write("ring", "records", b"\x00" + struct.pack("<Q", 0) + record(16, 1) + record(100, 2) + record(512, 8))
    padded = b"".join(record(512, 8) for _ in range(3)) + record(256, 4)
    write("ring", "padding", b"\x00" + struct.pack("<Q", 0) + padded + struct.pack("<I", 0xFFFFFFFF))
    write("ring", "wraps", b"\x00" + struct.pack("<Q", 2**64 - 64) + record(16, 1))
    step = struct.pack("<BBHB", 2, 1, 100, 84)
    write("ring", "producer", b"\x01" + struct.pack("<Q", 0) + step * 40)
    write("ring", "producer_wraps", b"\x01" + struct.pack("<Q", 2**64 - 128) + step * 40)


def targets():
    for number, text in enumerate([
            b"localhost:50051", b"[::1]:1", b"dns:///host:1", b"ipv4:127.0.0.1:1,127.0.0.1:2", b"ipv6:[::1]:1",
            b"unix:/run/a.sock", b"unix:///a", b"unix-abstract:name", b"inproc:name", b"grpc:ipv4:10.0.0.1:443,1.1.1.1:2",
            b"a:1,unix:/b,inproc:c", b"auto", b"latency", b"host:65536", b":1"]):
        write("target", f"{number}", b"x" + text)
    numbers = struct.pack("<QQqqqqB", 1000, 1000, 10**9, 10**6, 10**9, 10**9, 3)
    policy = struct.pack("<iqqddB", 3, 10**6, 10**9, 1.5, 0.2, 14) + struct.pack("<dd", 10, 0.1)
    write("target", "options", b"\x00" + numbers + policy + b"unix:/nowhere")


def plugins():
    proto = b"""syntax = "proto3";
package a.b;
// A service.
service Service {
  rpc Unary(Request) returns (Reply);
  rpc Up(stream Request) returns (Reply) { option deprecated = true; }
  rpc Down(Request) returns (stream Reply);  // trails
  rpc Both(stream Request) returns (stream Outer.Inner);
}
message Request { string name = 1; }
message Reply {}
message Outer { message Inner {} }
"""
    write("plugin", "mock", b"mock=true\n" + proto)
    write("plugin", "plain", b"\n" + proto)
    write("plugin", "names", b"mock=false\n" + b"""syntax = "proto2";
service class { rpc delete(int) returns (stream int); rpc async(int) returns (int); rpc Stub(int) returns (int); }
message int { optional string operator = 1; }
""")
    write("plugin", "unknown", b"nonsense=1,mock\n" + proto)
    file = field(1, b"a.proto") + field(12, b"proto3") + field(4, field(1, b"M"))
    method = field(1, b"Call") + field(2, b".M") + field(3, b".M")
    file += field(6, field(1, b"S") + field(2, method))
    write("plugin", "request", b"\x00" + field(1, b"a.proto") + field(2, b"mock=true") + field(15, file))


if __name__ == "__main__":
    hellos()
    frames()
    server_sessions()
    client_sessions()
    rings()
    targets()
    plugins()
