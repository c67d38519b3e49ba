"""Runs `dlx` commands in processes forked from a server that has imported torch and dlx.

A command then starts about 4 s sooner than in a new Python, which matters for the dozens of commands of the
documentation. Everything else is as in a process of its own: arguments, working folder, environment, the three standard
streams and the exit code. Tests of starting, stopping and importing take new processes.

    python -P tests/warm_dlx.py serve SOCKET           listens until it is killed
    python -IS tests/warm_dlx.py call SOCKET ARGS...   runs `dlx ARGS...`, and ends with its exit code
"""

import json
import os
import signal
import socket
import sys
from typing import NoReturn

MAX_MESSAGE = 2**20  # bytes: arguments and environment of a command
MODULES = (
    "dlx.execution.workers.worker",
    "dlx.execution.planning.plan",
    "dlx.cli.output.outcome",
    "dlx.cli.output.display",
    "SimpleITK",
    "matplotlib.figure",
    "torch._dynamo",
)


def serve(path: str) -> None:
    """Forks a process for each command that `call` asks for."""
    for module in MODULES:
        __import__(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that answer
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        print("listening", flush=True)
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                server.close()
                _answer(connection)
            connection.close()


def _answer(connection: socket.socket) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, streams, _, _ = socket.recv_fds(connection, MAX_MESSAGE, 3)
    command = os.fork()
    if command == 0:
        connection.close()
        _become_dlx(json.loads(message), streams)
    _, status = os.waitpid(command, 0)
    connection.sendall(bytes([os.waitstatus_to_exitcode(status) % 256]))
    os._exit(0)


def _become_dlx(asked: dict, streams: list[int]) -> NoReturn:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    sys.argv = ["dlx", *asked["arguments"]]
    from dlx.cli.entry import main

    main()
    sys.exit()  # so that Python ends this process as any other


def call(path: str, arguments: list[str]) -> int:
    """The exit code of `dlx` with these arguments."""
    asked = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [json.dumps(asked).encode()], [0, 1, 2])
        answer = connection.recv(1)
    return answer[0] if answer else 1


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    sys.exit(call(sys.argv[2], sys.argv[3:]))
