"""The process that `warm.run` and `warm.Popen` start: it lends what it was given to a fork, and ends as that does.

Arguments: the server's socket, and those of Python.
"""

import json
import os
import signal
import socket
import sys

address, *arguments = sys.argv[1:]
request = {
    "arguments": arguments,
    "folder": os.getcwd(),
    "environment": dict(os.environ),
    "ignores_interrupts": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
}
connection = socket.socket(socket.AF_UNIX)
connection.connect(address)
content = json.dumps(request).encode()
socket.send_fds(connection, [len(content).to_bytes(4, "big")], [0, 1, 2])
connection.sendall(content)
with connection.makefile(encoding="ascii") as answers:
    pid = answers.readline().strip()
    file = os.path.join(os.path.dirname(address), str(os.getpid()))
    with open(file + ".part", "w", encoding="ascii") as part:
        part.write(pid)
    os.rename(file + ".part", file)
    status = int(answers.readline())
os.unlink(file)
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
    os.kill(os.getpid(), -status)
os._exit(status)
