"""The process that `warm.py` starts: it imports modules, and forks itself for whoever asks.

Arguments: the path of its socket, a named pipe at whose end it ends, and the modules.
"""

import contextlib
import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import sys

CHECK_EVERY = 0.01  # seconds


def streams(environment):
    """Standard input, output and error as Python makes them when it starts."""
    encoding, _, errors = environment.get("PYTHONIOENCODING", "").partition(":")
    result = []
    for number, mode in enumerate("rww"):
        raw = io.FileIO(number, mode, closefd=False)
        binary = io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
        result.append(
            io.TextIOWrapper(
                binary,
                encoding or "utf-8",
                "backslashreplace" if number == 2 else errors or "strict",
                line_buffering=number == 2 or os.isatty(number),
            )
        )
    return result


def see(path):
    """Does what Python does with PYTHONPATH when it starts, but for what the server has there as well."""
    folders = [folder for folder in path.split(os.pathsep) if folder]
    sys.path[1:1] = folders
    for folder in folders:
        hook = os.path.join(folder, "sitecustomize.py")
        if os.path.exists(hook):
            runpy.run_path(hook)
            break


def become(request, descriptors):
    """Makes this process the one that was asked for."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    handler = signal.SIG_IGN if request["ignores_interrupts"] else signal.default_int_handler
    signal.signal(signal.SIGINT, handler)
    sys.stdin, sys.stdout, sys.stderr = streams(request["environment"])
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    see(request["environment"].get("PYTHONPATH", ""))
    first, *others = request["arguments"]
    if first == "-m":
        sys.argv, sys.path[0] = others, request["folder"]
        runpy.run_module(others[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv, sys.path[0] = ["-c", *others[1:]], ""
        exec(compile(others[0], "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
    else:
        sys.argv, sys.path[0] = request["arguments"], os.path.dirname(os.path.abspath(first))
        runpy.run_path(first, run_name="__main__")


def received(connection):
    """A request, and the three descriptors that came with it."""
    size, descriptors, _, _ = socket.recv_fds(connection, 4, 3)
    with connection.makefile("rb") as file:
        return json.loads(file.read(int.from_bytes(size, "big"))), descriptors


def keep(connection):
    """Starts what is asked for, and tells how it ended; if whoever asked is gone, so is this."""
    request, descriptors = received(connection)
    pid = os.fork()
    if pid == 0:
        connection.close()
        return become(request, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    connection.sendall(b"%d\n" % pid)
    ended = 0
    while not ended:
        if select.select([connection], [], [], CHECK_EVERY)[0]:
            os.kill(pid, signal.SIGKILL)
            os._exit(1)
        ended, status = os.waitpid(pid, os.WNOHANG)
    connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def main(address, alive, *modules):
    pipe = os.open(alive, os.O_RDONLY)
    for module in modules:
        importlib.import_module(module)
    # Forks neither look through what is here for garbage, nor copy it for that.
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    # Under another name until it listens.
    listener.bind(address + ".part")
    listener.listen()
    os.rename(address + ".part", address)
    os.write(1, b"ready\n")
    while listener in select.select([listener, pipe], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            keep(connection)
            return
        connection.close()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


if __name__ == "__main__":
    main(*sys.argv[1:])
