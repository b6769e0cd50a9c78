"""Servers that tests start on loopback, and processes that they wait for and end."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[3]


def wait_for(condition, seconds=600):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s")


def children(process):
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def workers(process):
    """What the server of a command's workers has started; the server itself is a child."""
    try:
        started = psutil.Process(process.pid).children()
        return [worker for one in started for worker in one.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def stop(process):
    """Kill a process with all that it has started."""
    family = children(process)
    if process.poll() is None:
        family.append(psutil.Process(process.pid))
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, 30)
    process.wait(30)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def listens(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def mlflow_server(folder, port, backend=None):
    """Start an MLflow server that keeps the artifacts below `folder`, and serves them."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", backend or f"sqlite:///{folder}/server.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # processes of its own
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: listens(port) or process.poll() is not None)
    assert process.poll() is None
    return process


def postgres_programs():
    """Return the folder of PostgreSQL's programs; None where it is not installed."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found = shutil.which("initdb")
    return debian[-1] if debian else Path(found).resolve().parent if found else None


@contextmanager
def postgres(*databases):
    """Run PostgreSQL on loopback in a folder of its own; give the address of each database."""
    programs = postgres_programs()
    # it refuses root, and must be able to enter the folder
    user = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        folder, port, password = Path(name), free_port(), os.urandom(12).hex()
        (folder / "password").write_text(password)
        if user:
            for path in (folder, folder / "password"):
                shutil.chown(path, user["user"], user["group"])

        def call(program, *arguments):
            words = [programs / program, *arguments]
            done = subprocess.run(words, cwd=folder, capture_output=True, text=True, **user)
            assert done.returncode == 0, done.stderr

        call(
            *("initdb", "-D", "data", "-U", "convboard", "-E", "UTF8", "--locale", "C"),
            *("--auth", "scram-sha-256", "--pwfile", "password", "--no-sync"),
        )
        command = [programs / "postgres", "-D", "data", "-h", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(
            [*command, "-k", name, "-F"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **user,
        )
        try:
            wait_for(lambda: listens(port))
            address = f"convboard:{password}@127.0.0.1:{port}"
            for database in databases:
                call(
                    "psql", f"postgresql://{address}/postgres", "-qc", f"CREATE DATABASE {database}"
                )
            yield [f"postgresql+psycopg://{address}/{database}" for database in databases]
        finally:
            server.send_signal(signal.SIGQUIT)
            server.wait(30)


class RayCluster:
    """A Ray cluster of raylets on this machine, each a node of its own with one core."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="ray-")
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.nodes = []

    def start(self, cpus=1):
        """Start one more node."""
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
        command += ["--num-cpus", str(cpus), "--num-gpus", "0", "--disable-usage-stats"]
        command += ["--object-store-memory", "100000000", "--node-ip-address", "127.0.0.1"]
        if self.nodes:
            command += ["--address", self.address]
        else:
            command += ["--head", "--port", str(self.port), "--temp-dir", self.folder]
            command += ["--include-dashboard", "false"]
        process = subprocess.Popen(
            command,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.nodes.append(process)
        wait_for(lambda: listens(self.port) and self.raylet(process))
        return process

    def raylet(self, node):
        return any(member.name() == "raylet" for member in children(node))

    def works(self, node):
        """Ray's processes of a node that run convboard's jobs."""
        return [member for member in children(node) if member.name().startswith("ray::_events")]

    def close(self):
        for node in reversed(self.nodes):
            stop(node)
        shutil.rmtree(self.folder, ignore_errors=True)
