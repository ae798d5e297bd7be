"""``python -I -S timed.py COMMAND…`` runs a command and prints what it took, as JSON.

A program of its own, and a small one: the peak memory that the kernel tells of a child begins with
that of its parent (getrusage(2)), and a benchmark has more than what it measures.
"""

import json
import os
import sys
import time

began = time.perf_counter()
nowhere = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=[nowhere])
_, status, usage = os.wait4(child, 0)
seconds = time.perf_counter() - began
took = {
    "seconds": seconds,
    "processor": usage.ru_utime + usage.ru_stime,
    "memory": 1024 * usage.ru_maxrss,
    "code": os.waitstatus_to_exitcode(status),
}
json.dump(took, sys.stdout)
