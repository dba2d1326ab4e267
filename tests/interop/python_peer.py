"""The gRPC Python side of the matrix.

python_peer.py GENERATED server ADDRESS       serves TestService; prints "listening on ADDRESS" until its input ends
python_peer.py GENERATED client ADDRESS CASE...

GENERATED is the folder of the messages that protoc has generated.
"""

import concurrent.futures
import os
import sys
import threading

import grpc

# The messages are in the package grpc.testing, which is not the library's own package grpc, but has to be found in it.
grpc.__path__.append(os.path.join(sys.argv[1], "grpc"))
from grpc.testing import empty_pb2, messages_pb2  # noqa: E402

SERVICE = "/grpc.testing.TestService/"
REQUEST_SIZES = (27182, 8, 1828, 45904)
RESPONSE_SIZES = (31415, 9, 2653, 58979)
ECHO_INITIAL = ("x-grpc-test-echo-initial", "test_initial_metadata_value")
ECHO_TRAILING = ("x-grpc-test-echo-trailing-bin", b"\xab\xab\xab")
SPECIAL_MESSAGE = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"
CHANNEL_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


def payload(size):
    return messages_pb2.Payload(body=b"\0" * size)


# ---- The server.


class TestService(grpc.GenericRpcHandler):
    """The methods by their paths."""

    def __init__(self):
        simple = (messages_pb2.SimpleRequest.FromString, messages_pb2.SimpleResponse.SerializeToString)
        output = (
            messages_pb2.StreamingOutputCallRequest.FromString,
            messages_pb2.StreamingOutputCallResponse.SerializeToString,
        )
        self._methods = {
            "EmptyCall": grpc.unary_unary_rpc_method_handler(
                self.empty_call, empty_pb2.Empty.FromString, empty_pb2.Empty.SerializeToString
            ),
            "UnaryCall": grpc.unary_unary_rpc_method_handler(self.unary_call, *simple),
            "StreamingOutputCall": grpc.unary_stream_rpc_method_handler(self.streaming_output_call, *output),
            "StreamingInputCall": grpc.stream_unary_rpc_method_handler(
                self.streaming_input_call,
                messages_pb2.StreamingInputCallRequest.FromString,
                messages_pb2.StreamingInputCallResponse.SerializeToString,
            ),
            "FullDuplexCall": grpc.stream_stream_rpc_method_handler(self.full_duplex_call, *output),
        }

    def service(self, handler_call_details):
        if not handler_call_details.method.startswith(SERVICE):
            return None
        return self._methods.get(handler_call_details.method[len(SERVICE):])

    @staticmethod
    def echo_metadata(context):
        for key, value in context.invocation_metadata():
            if key == ECHO_INITIAL[0]:
                context.send_initial_metadata(((key, value),))
            if key == ECHO_TRAILING[0]:
                context.set_trailing_metadata(((key, value),))

    @staticmethod
    def set_status(request, context):
        if not request.HasField("response_status"):
            return False
        for code in grpc.StatusCode:
            if code.value[0] == request.response_status.code:
                context.set_code(code)
        context.set_details(request.response_status.message)
        return True

    def empty_call(self, request, context):
        self.echo_metadata(context)
        return empty_pb2.Empty()

    def unary_call(self, request, context):
        if request.response_compressed.value:
            context.set_compression(grpc.Compression.Gzip)
        self.echo_metadata(context)
        self.set_status(request, context)
        return messages_pb2.SimpleResponse(payload=payload(request.response_size))

    def streaming_output_call(self, request, context):
        self.echo_metadata(context)
        for parameters in request.response_parameters:
            yield messages_pb2.StreamingOutputCallResponse(payload=payload(parameters.size))
        self.set_status(request, context)

    def streaming_input_call(self, requests, context):
        self.echo_metadata(context)
        size = sum(len(request.payload.body) for request in requests)
        return messages_pb2.StreamingInputCallResponse(aggregated_payload_size=size)

    def full_duplex_call(self, requests, context):
        self.echo_metadata(context)
        for request in requests:
            if self.set_status(request, context):
                return
            for parameters in request.response_parameters:
                yield messages_pb2.StreamingOutputCallResponse(payload=payload(parameters.size))


def serve(address):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=32))
    server.add_generic_rpc_handlers((TestService(),))
    port = server.add_insecure_port(address)
    server.start()
    print("listening on", address if port <= 1 else f"{address.rpartition(':')[0]}:{port}", flush=True)
    sys.stdin.buffer.read()
    server.stop(5).wait()


# ---- The client.


def check(condition, *details):
    if not condition:
        raise AssertionError(" ".join(repr(detail) for detail in details))




class Client:
    """One method for each case."""

    def __init__(self, target):
        self.target = target
        self.channel = self.new_channel()

    def new_channel(self):
        return grpc.insecure_channel(self.target, options=CHANNEL_OPTIONS)

    @staticmethod
    def method(channel, kind, name, request_type, response_type, service=SERVICE):
        return getattr(channel, kind)(service + name, request_type.SerializeToString, response_type.FromString)

    def unary(self, channel=None):
        return self.method(
            channel or self.channel, "unary_unary", "UnaryCall", messages_pb2.SimpleRequest, messages_pb2.SimpleResponse
        )

    def full_duplex(self):
        return self.method(
            self.channel,
            "stream_stream",
            "FullDuplexCall",
            messages_pb2.StreamingOutputCallRequest,
            messages_pb2.StreamingOutputCallResponse,
        )

    def streaming_input(self):
        return self.method(
            self.channel,
            "stream_unary",
            "StreamingInputCall",
            messages_pb2.StreamingInputCallRequest,
            messages_pb2.StreamingInputCallResponse,
        )

    @staticmethod
    def ping(request_bytes, response_bytes):
        return messages_pb2.StreamingOutputCallRequest(
            response_parameters=[messages_pb2.ResponseParameters(size=response_bytes)], payload=payload(request_bytes)
        )

    @staticmethod
    def large_request(**fields):
        return messages_pb2.SimpleRequest(response_size=314159, payload=payload(271828), **fields)

    def large_unary_on(self, channel):
        reply = self.unary(channel)(self.large_request(), timeout=60)
        check(reply.payload.body == b"\0" * 314159, len(reply.payload.body))

    def empty_unary(self):
        self.method(self.channel, "unary_unary", "EmptyCall", empty_pb2.Empty, empty_pb2.Empty)(empty_pb2.Empty())

    def large_unary(self):
        self.large_unary_on(self.channel)

    def client_streaming(self):
        requests = (messages_pb2.StreamingInputCallRequest(payload=payload(size)) for size in REQUEST_SIZES)
        check(self.streaming_input()(requests).aggregated_payload_size == 74922)

    def server_streaming(self):
        call = self.method(
            self.channel,
            "unary_stream",
            "StreamingOutputCall",
            messages_pb2.StreamingOutputCallRequest,
            messages_pb2.StreamingOutputCallResponse,
        )
        request = messages_pb2.StreamingOutputCallRequest(
            response_parameters=[messages_pb2.ResponseParameters(size=size) for size in RESPONSE_SIZES]
        )
        sizes = [len(reply.payload.body) for reply in call(request)]
        check(sizes == list(RESPONSE_SIZES), sizes)

    def ping_pong(self):
        turn = threading.Semaphore(1)

        def requests():
            for sizes in zip(REQUEST_SIZES, RESPONSE_SIZES):
                turn.acquire()  # pylint: disable=consider-using-with
                yield self.ping(*sizes)

        received = []
        for reply in self.full_duplex()(requests()):
            received.append(len(reply.payload.body))
            turn.release()
        check(received == list(RESPONSE_SIZES), received)

    def empty_stream(self):
        check(list(self.full_duplex()(iter(()))) == [])

    def custom_metadata(self):
        metadata = (ECHO_INITIAL, ECHO_TRAILING)
        _, unary = self.unary().with_call(messages_pb2.SimpleRequest(response_size=1), metadata=metadata)
        stream = self.full_duplex()(iter((self.ping(1, 1),)), metadata=metadata)
        check(len(list(stream)) == 1)
        for call in (unary, stream):
            check(ECHO_INITIAL in [tuple(pair) for pair in call.initial_metadata()], call.initial_metadata())
            check(ECHO_TRAILING in [tuple(pair) for pair in call.trailing_metadata()], call.trailing_metadata())

    def check_unary_status(self, message):
        request = messages_pb2.SimpleRequest(response_status=messages_pb2.EchoStatus(code=2, message=message))
        call = self.unary().future(request)
        check((call.code(), call.details()) == (grpc.StatusCode.UNKNOWN, message), call.code(), call.details())

    def status_code_and_message(self):
        self.check_unary_status("test status message")
        request = messages_pb2.StreamingOutputCallRequest(
            response_status=messages_pb2.EchoStatus(code=2, message="test status message")
        )
        call = self.full_duplex()(iter((request,)))
        status = (call.code(), call.details())
        check(status == (grpc.StatusCode.UNKNOWN, "test status message"), status)

    def special_status_message(self):
        self.check_unary_status(SPECIAL_MESSAGE)

    def unimplemented(self, service):
        method = self.method(
            self.channel, "unary_unary", "UnimplementedCall", empty_pb2.Empty, empty_pb2.Empty, service=service
        )
        code = method.future(empty_pb2.Empty()).code()
        check(code == grpc.StatusCode.UNIMPLEMENTED, code)

    def unimplemented_method(self):
        self.unimplemented(SERVICE)

    def unimplemented_service(self):
        self.unimplemented("/grpc.testing.UnimplementedService/")

    def cancel_after_begin(self):
        never = threading.Event()

        def requests():
            never.wait(60)
            yield from ()

        call = self.streaming_input().future(requests())
        call.cancel()
        never.set()
        check(call.code() == grpc.StatusCode.CANCELLED, call.code())

    def cancel_after_first_response(self):
        never = threading.Event()

        def requests():
            yield self.ping(27182, 31415)
            never.wait(60)

        call = self.full_duplex()(requests())
        check(len(next(call).payload.body) == 31415)
        call.cancel()
        never.set()
        check(call.code() == grpc.StatusCode.CANCELLED, call.code())

    def timeout_on_sleeping_server(self):
        self.empty_unary()  # connected
        never = threading.Event()

        def requests():
            yield self.ping(27182, 31415)
            never.wait(60)

        call = self.full_duplex()(requests(), timeout=0.001)
        code = call.code()
        never.set()
        check(code == grpc.StatusCode.DEADLINE_EXCEEDED, code)

    def concurrent_large_unary(self):
        calls = [self.unary().future(self.large_request()) for _ in range(1000)]
        for call in calls:
            check(len(call.result().payload.body) == 314159)

    def rpc_soak(self):
        for _ in range(1000):
            self.large_unary()

    def channel_soak(self):
        for _ in range(1000):
            with self.new_channel() as channel:
                self.large_unary_on(channel)

    def gzip(self):
        request = self.large_request(response_compressed=messages_pb2.BoolValue(value=True))
        reply = self.unary()(request, compression=grpc.Compression.Gzip)
        check(len(reply.payload.body) == 314159)
        replies = list(self.full_duplex()(iter((self.ping(27182, 31415),)), compression=grpc.Compression.Gzip))
        check(len(replies) == 1 and len(replies[0].payload.body) == 31415)


def run_cases(target, names):
    client = Client(target)
    failed = 0
    for name in names:
        why = ""
        try:
            getattr(client, name)()
        except Exception as error:  # pylint: disable=broad-except
            why = f"{type(error).__name__}: {error}".replace("\n", " ")
        failed += 1 if why else 0
        print(name, f"failed: {why}" if why else "ok", flush=True)
    return 1 if failed else 0


def main():
    if len(sys.argv) == 4 and sys.argv[2] == "server":
        return serve(sys.argv[3])
    if len(sys.argv) >= 5 and sys.argv[2] == "client":
        return run_cases(sys.argv[3], sys.argv[4:])
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
