"""A tracking server on PostgreSQL, both of which can be stopped and started."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def postgres_folder():
    """Where Debian puts the server's own programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    assert found, "PostgreSQL is missing: apt-get install postgresql"
    return found[-1].parent


class Server:
    """An MLflow server of its own on a PostgreSQL of its own, which nobody outside this machine can reach."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="ms-automl-server-"))
        self.bin = postgres_folder()
        user = pwd.getpwnam("postgres")
        self.folder.chmod(0o755)
        data = self.folder / "data"
        data.mkdir()
        os.chown(data, user.pw_uid, user.pw_gid)
        os.chown(self.folder, user.pw_uid, user.pw_gid)
        self.run_as("initdb", "-D", data, "--auth=trust", "--no-sync")
        self.start_database()
        self.run_as("createdb", "-h", self.folder, "mlflow")
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start_database(self):
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.folder}' -c fsync=off"
        data = self.folder / "data"
        self.run_as("pg_ctl", "-D", data, "-w", "-l", data / "log", "-o", options, "start")

    def stop_database(self):
        self.run_as("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "stop")

    def run_as(self, program, *arguments):
        command = ["runuser", "-u", "postgres", "--", self.bin / program, *arguments]
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, cwd=self.folder)

    def start(self):
        store = f"postgresql+psycopg2://postgres@/mlflow?host={self.folder}"
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--workers", "2"]
        command += ["--artifacts-destination", str(self.folder / "artifacts"), "--port", str(self.port)]
        with (self.folder / "server.log").open("a") as log:
            own = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # as in clusters/mlflow_server.sh
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, env=os.environ | own
            )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=2)
                return self
            except OSError:
                assert self.process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
                time.sleep(0.5)
        raise AssertionError("the server did not come up")

    def stop(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.stop()
        self.stop_database()
        shutil.rmtree(self.folder)
