"""The command in processes that are forked off one which has imported what it needs.

A start of `python -m bench.cli` takes seconds of imports, and so does the server that it forks its
workers off. Here both are forks of a process that has imported and has computed nothing: processes
of their own, with their own environment, folder, signals and exit code.
"""

import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from multiprocessing import process, util
from pathlib import Path

IMPORTED = ("bench.run.preload", "bench.run.timing", "bench.cli.main")
ANSWER = 16  # bytes


class Commands:
    """The client's side: starts the process that imports, and asks it for commands."""

    def __init__(self, tables: Path) -> None:
        self._channel, theirs = socket.socketpair()
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), str(tables)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )

    def start(self, arguments, folder, env, path, out=None, err=2):
        """Start a command; say nothing of its output, and its errors go where ours do."""
        answers, theirs = os.pipe()
        request = {"arguments": arguments, "folder": folder, "env": env, "path": path}
        text = json.dumps(request).encode() + b"\n"
        with Path(os.devnull).open("wb") as nowhere:
            out = nowhere.fileno() if out is None else out
            socket.send_fds(self._channel, [text], [theirs, out, err])
        os.close(theirs)
        return Command(arguments, answers)

    def run(self, *asked):
        """Run a command to its end; return what a finished process is."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            command = self.start(*asked, out.fileno(), err.fileno())
            command.wait()
            texts = [file.seek(0) or file.read().decode() for file in (out, err)]
        return subprocess.CompletedProcess(command.args, command.returncode, *texts)

    def close(self) -> None:
        self._channel.close()
        self._server.wait()


class Command:
    """A command under way, with what `subprocess.Popen` has for it."""

    def __init__(self, arguments, answers):
        self.args, self.returncode, self._answers = arguments, None, answers
        self.pid = self._answer()

    def _answer(self):
        return int(os.read(self._answers, ANSWER))

    def poll(self):
        if self.returncode is None and select.select([self._answers], [], [], 0)[0]:
            self.returncode = self._answer()
            os.close(self._answers)
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None and not select.select([self._answers], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.poll()

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def received(channel, count):
    """Return the next message, and the descriptors that came with it; None at the end."""
    text, descriptors, _, _ = socket.recv_fds(channel, 1 << 20, count)
    while text and not text.endswith(b"\n"):
        text += channel.recv(1 << 20)
    return (json.loads(text) if text else None), descriptors


def serve(channel, tables):
    """Fork for every request; return it in the process that is to be the command."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    before = dict(os.environ)
    for name in IMPORTED:
        importlib.import_module(name)
    runpy.run_path(str(Path(__file__).with_name("tables.py")))["make_once"](tables)
    imported = {name: value for name, value in os.environ.items() if name not in before}
    while True:
        request, descriptors = received(channel, 3)
        if request is None:
            return None
        if os.fork() == 0:
            channel.close()
            if attend(*descriptors):
                request["env"] = imported | request["env"]
                return request
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)
        reap()


def reap():
    """Forget the attendants that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def attend(answers, out, err):
    """Fork the command, tell its process and how it ends; return True in that process."""
    child = os.fork()
    if child == 0:
        os.close(answers)
        for descriptor, standard in ((out, 1), (err, 2)):
            os.dup2(descriptor, standard)
            os.close(descriptor)
        return True
    os.close(out)
    os.close(err)
    os.write(answers, b"%*d" % (ANSWER, child))
    _, status = os.waitpid(child, 0)
    os.write(answers, b"%*d" % (ANSWER, os.waitstatus_to_exitcode(status)))
    return False


def become(request):
    """Make this process what a shell would have started."""
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["folder"])
    process.ORIGINAL_DIR = request["folder"]
    sys.path[:1] = [request["folder"], *request["path"]]
    importlib.invalidate_caches()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    fork_the_server()
    sys.argv = ["convboard", *request["arguments"]]
    runpy.run_module("bench.cli", run_name="__main__", alter_sys=True)


def fork_the_server():
    """Let the server of this command's workers be a fork of this process as it is now.

    It is forked at once, while there is no thread that could hold a lock, and waits for the
    environment that the command has when it wants its server.
    """
    ours, theirs = socket.socketpair()
    server = os.fork()
    if server == 0:
        ours.close()
        be_the_server(theirs)
    theirs.close()
    begin = util.spawnv_passfds

    def spawnv_passfds(path, args, passfds):
        if "forkserver" not in args[-1]:
            return begin(path, args, passfds)
        util.spawnv_passfds = begin
        request = {"code": args[-1], "env": dict(os.environ), "numbers": list(passfds)}
        with ours:
            socket.send_fds(ours, [json.dumps(request).encode() + b"\n"], passfds)
        return server

    util.spawnv_passfds = spawnv_passfds


def be_the_server(channel):
    """Wait for the code of `multiprocessing`'s server, and run it."""
    import fcntl
    import threading
    from multiprocessing import forkserver, resource_tracker

    request, descriptors = received(channel, 8)
    if request is None:
        os._exit(0)
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 512) for descriptor in descriptors]
    os.closerange(3, 512)
    for descriptor, number in zip(high, request["numbers"], strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["env"])
    forkserver._forkserver._lock = threading.Lock()
    resource_tracker._resource_tracker._fd = resource_tracker._resource_tracker._pid = None
    try:
        exec(request["code"], {})
    finally:
        os._exit(0)


if __name__ == "__main__":
    asked = serve(socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2]))
    if asked is None:
        os._exit(0)  # nothing of it is worth the seconds of an orderly end
    become(asked)
