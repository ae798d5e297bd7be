"""The command line, as transcripts: what is typed, and what is seen of it."""
