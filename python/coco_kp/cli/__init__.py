"""The command line: one file a command, the rules of output in one place."""
