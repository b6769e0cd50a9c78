"""The command in processes that are forked off one which has imported what it needs.

A start of `python -m bench.cli` takes seconds of imports, and so do the server that it forks its
workers off and each process in which it times. Here all of them are forks of a process that has
imported and has computed nothing: processes of their own, with their own environment, folder,
signals and exit code. A few tests of `bench.speed`, of cold starts and of the wheel start theirs
as everybody does.
"""

import atexit
import fcntl
import gc
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
import threading
import traceback
from multiprocessing import forkserver, process, resource_tracker, util
from pathlib import Path
from types import SimpleNamespace

IMPORTED = (
    "bench.run.preload",
    "bench.run.timing",
    "bench.run.tune",
    "tasks.openmm.packages",
)
ANSWER = 16  # bytes


class Commands:
    """The client's side of a process that forks."""

    def __init__(self, channel):
        self._channel = channel

    def start(
        self, arguments, folder, env, path, module="bench.cli", out=None, err=2, more=(), **options
    ):
        """Start a module; by default nothing of its output is kept, and errors go where ours do."""
        answers, theirs = os.pipe()
        request = {"module": module, "arguments": arguments, "folder": folder, "env": env}
        request |= {"path": path, "numbers": [1, 2, *more], **options}
        with Path(os.devnull).open("wb") as nowhere:
            out = nowhere.fileno() if out is None else out
            send(self._channel, request, [theirs, out, err, *more])
        os.close(theirs)
        return Command(arguments, answers)

    def run(self, *asked):
        """Run a command to its end; return what a finished process is."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            command = self.start(*asked, out=out.fileno(), err=err.fileno())
            command.wait()
            texts = [file.seek(0) or file.read().decode() for file in (out, err)]
        return subprocess.CompletedProcess(command.args, command.returncode, *texts)

    @property
    def subprocess(self):
        """What stands for the library in `bench.speed.crew`."""
        return SimpleNamespace(Popen=self.popen, DEVNULL=subprocess.DEVNULL)

    def popen(self, line, *, stdout, stderr, env, pass_fds, **options):
        """Start `python -m MODULE …` in a session of its own, as `subprocess.Popen` does."""
        _, _, module, *arguments = line
        files = {"out": stdout.fileno(), "err": stderr.fileno(), "more": pass_fds}
        path = env["PYTHONPATH"].split(os.pathsep)
        return self.start(arguments, str(Path.cwd()), env, path, module, session=True, **files)


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


def send(channel, request, descriptors):
    socket.send_fds(channel, [json.dumps(request).encode() + b"\n"], descriptors)


def received(channel):
    """Return the next request, and the descriptors that came with it; None at the end."""
    text, descriptors, _, _ = socket.recv_fds(channel, 1 << 20, 8)
    while text and not text.endswith(b"\n"):
        text += channel.recv(1 << 20)
    return (json.loads(text) if text else None), descriptors


def place(descriptors, numbers):
    """Have open files at these numbers, and at no other above those of every process."""
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 512) for descriptor in descriptors]
    os.closerange(3, 512)
    for descriptor, number in zip(high, numbers, strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)


def serve(channel):
    """Fork for every request; return it in the process that is to do it, and None at the end."""
    while True:
        request, descriptors = received(channel)
        if request is None:
            return None
        if os.fork() == 0:
            channel.detach()  # `place` closes it, and may give its number to another
            if attend(request["numbers"], *descriptors):
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


def attend(numbers, answers, *descriptors):
    """Fork the process that was asked for, and return True there; tell its id and how it ends."""
    from bench.speed.lifetime import end_with_parent

    child = os.fork()
    if child == 0:
        place(descriptors, numbers)
        return True
    place([answers], [3])
    end_with_parent()
    os.write(3, b"%*d" % (ANSWER, child))
    _, status = os.waitpid(child, 0)
    os.write(3, b"%*d" % (ANSWER, os.waitstatus_to_exitcode(status)))
    return False


def become(request, imported=()):
    """Make this process what a shell would have started, and run it."""
    if request.get("session"):
        os.setsid()
    os.environ.clear()
    os.environ.update({**dict(imported), **request["env"]})
    os.chdir(request["folder"])
    process.ORIGINAL_DIR = request["folder"]
    sys.path[:1] = [request["folder"], *request["path"]]
    importlib.invalidate_caches()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if request["module"] == "bench.cli":
        fork_the_server()
        fork_the_timers()
    sys.argv = [request["module"], *request["arguments"]]
    end(run(request["module"]))


def run(module):
    """Run a module as `python -m` does; return the exit code."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def end(code):
    """End as the interpreter does, without the seconds it takes to free all that is imported."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


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
        with ours:
            request = {"code": args[-1], "env": dict(os.environ), "numbers": list(passfds)}
            send(ours, request, passfds)
        return server

    util.spawnv_passfds = spawnv_passfds


def be_the_server(channel):
    """Wait for the code of `multiprocessing`'s server, and run it."""
    request, descriptors = received(channel)
    if request is None:
        os._exit(0)
    channel.detach()
    place(descriptors, request["numbers"])
    os.environ.clear()
    os.environ.update(request["env"])
    forkserver._forkserver._lock = threading.Lock()
    resource_tracker._resource_tracker._fd = resource_tracker._resource_tracker._pid = None
    try:
        exec(request["code"], {})
    finally:
        os._exit(0)


def fork_the_timers():
    """Let the processes in which this command times be forks of this process as it is now."""
    from bench.speed import crew

    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        place([theirs.detach()], [3])
        request = serve(socket.socket(fileno=3))
        if request is None:
            os._exit(0)
        become(request)
    theirs.close()
    crew.subprocess = Commands(ours).subprocess


def main(channel, tables):
    """Import, then fork for every request."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    before = dict(os.environ)
    for name in IMPORTED:
        importlib.import_module(name)
    runpy.run_path(str(Path(__file__).with_name("tables.py")))["make_once"](Path(tables))
    gc.freeze()
    imported = [(name, value) for name, value in os.environ.items() if name not in before]
    request = serve(socket.socket(fileno=int(channel)))
    if request is None:
        os._exit(0)
    become(request, imported)


def started(tables):
    """Start the process that imports; return it, and what it is asked by."""
    ours, theirs = socket.socketpair()
    with theirs:
        number = theirs.fileno()
        line = [sys.executable, __file__, str(number), str(tables)]
        server = subprocess.Popen(line, pass_fds=[number], stdin=subprocess.DEVNULL)
    return server, ours


if __name__ == "__main__":
    main(*sys.argv[1:])
