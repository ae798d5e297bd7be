"""A key provider that does nothing: what grpcio's Python server costs by itself.

``python -m benches.empty_provider`` listens on loopback, says where, and answers every WrapKey with
one and the same packet. Never use it: what it is sent is lost.
"""

from __future__ import annotations

import json
import signal
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor

import grpc
from tests.support.ocicrypt import encode_message

PACKET = b'{"kid":"kbs:///default/key/1","wrapped_data":"","iv":"","wrap_type":"A256GCM"}'


def main() -> None:
    """Serve until SIGTERM."""
    document = {"keywrapresults": {"annotation": b64encode(PACKET).decode()}}
    answer = encode_message(json.dumps(document).encode())
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
        lambda _request, _context: answer
    )
    service = grpc.method_handlers_generic_handler(
        "keyprovider.KeyProviderService", {"WrapKey": handler}
    )
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"empty provider ready on 127.0.0.1:{port}", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    server.stop(None).wait()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main()
