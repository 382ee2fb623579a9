"""Run one command and report what it used; stands alone so that the process which starts the command is small.

Linux counts the memory of the process that called exec into the peak of the one that replaces it, so a command
started from a process that has loaded libraries would seem to use as much.
"""

import json
import os
import sys
import time

if __name__ == "__main__":
    log, command = sys.argv[1], sys.argv[2:]
    start = time.perf_counter()
    process = os.fork()
    if process == 0:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.execvp(command[0], command)
    _, status, usage = os.wait4(process, 0)
    json.dump(
        {
            "wall_s": time.perf_counter() - start,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "peak_mb": usage.ru_maxrss / 1024,
            "exit_code": os.waitstatus_to_exitcode(status),
        },
        sys.stdout,
    )
