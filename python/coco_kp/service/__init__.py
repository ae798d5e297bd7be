"""Doors to the key provider: gRPC and standard input and output."""
