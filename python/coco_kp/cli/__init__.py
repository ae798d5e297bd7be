"""The command line: one file a command, the rules of output in one place."""

import os

# gRPC writes lines of its own to stderr, for each failed handshake one, that are no events of ours;
# what a user should know is in the error. It looks when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
