"""The user of the registry that asks for a password."""

from __future__ import annotations

from typing import Final

LOGIN: Final = "user:correct horse"
HTPASSWD: Final = "user:$2b$05$gVbPyfwjRNv8HgWxGg7S7.WTuPg.dl2ikRqQu4xl5wPUKH3cb5rF.\n"
"""The same under bcrypt, as ``htpasswd -B`` writes it."""
