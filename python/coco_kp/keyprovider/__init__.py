"""ocicrypt's key-provider protocol: both its ends, over gRPC and over stdin and stdout."""
