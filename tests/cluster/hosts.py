"""Three hosts on one machine: each with network, processes and file system of its own, reached by SSH.

Everything lives inside the namespaces of one process, the operator's: when it ends, however it ends, the kernel
takes the processes, mounts and network devices of all hosts with it.
"""

import contextlib
import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
NETWORK = "10.77.0"
USER = "ray"
USER_ID = 1999  # of nobody on this machine: it exists on the hosts alone
PROGRAMS = ("ip", "nsenter", "rsync", "ssh", "ssh-keygen", "sshd", "unshare")
TRIED = """
PATH=$PATH:/usr/sbin:/sbin
mount -t tmpfs tmpfs /mnt
ip link add bridge type bridge
ip link add one type veth peer name two
"""
NAMESPACES = ["--net", "--mount", "--pid", "--uts", "--ipc"]
SHARED = Path("/mnt/shared")
"""Where every host sees the one folder that they share."""

SSHD = f"""\
ListenAddress 0.0.0.0
HostKey /run/lab/host_key
AuthorizedKeysFile /run/lab/key.pub
PasswordAuthentication no
StrictModes no
UsePAM no
UseDNS no
PidFile none
AllowUsers {USER}
MaxStartups 50
"""

# Run as root in new namespaces. OWN_FILES gives them folders of their own where programs leave things; the paths
# in "$@" stay what they are outside.
OWN_FILES = """\
mount -t tmpfs tmpfs /mnt
for path in "$@"; do mkdir -p "/mnt/keep$path"; mount --bind "$path" "/mnt/keep$path"; done
for path in /home /root /run /tmp /var/tmp /dev/shm; do mount -t tmpfs -o mode=755 tmpfs "$path"; done
chmod 1777 /tmp /var/tmp /dev/shm
for path in "$@"; do
    [ -e "$path/." ] || mkdir -p "$path"
    mount --bind "/mnt/keep$path" "$path"
done
ip link set lo up
"""
OPERATOR = f"""\
set -euo pipefail
{OWN_FILES}
touch "$1/ready"
sleep infinity &
wait $!
"""
HOST = f"""\
set -euo pipefail
name=$1 lab=$2 hidden=$3; shift 3
hostname "$name"
{OWN_FILES}
mkdir -p /run/lab /run/sshd /home/{USER} {SHARED}
cp "$lab"/{{host_key,key.pub,sshd_config}} /run/lab
for file in passwd group shadow hosts; do mount --bind "$lab/$file" "/etc/$file"; done
mount --bind "$lab/shared" {SHARED}
umount "$lab"
for path in $hidden; do [ ! -d "$path" ] || mount -t tmpfs -o ro tmpfs "$path"; done
chown {USER_ID}:{USER_ID} /home/{USER}
until ip link show eth0 up 2>/dev/null | grep -q eth0; do sleep 0.05; done
"$(command -v sshd)" -D -e -f /run/lab/sshd_config &
wait $!  # and reap what loses its parent
"""


def why_not():
    """What is missing for hosts on this machine, in a line; None where nothing is."""
    if missing := [name for name in PROGRAMS if _program(name) is None]:
        return f"hosts need {', '.join(missing)} (apt-get install iproute2 openssh-server rsync)"
    tried = subprocess.run(
        ["unshare", *NAMESPACES, "--fork", "--mount-proc", "sh", "-ec", TRIED],
        capture_output=True,
        text=True,
    )
    return None if tried.returncode == 0 else f"namespaces are not allowed here: {tried.stderr.strip()}"


def _program(name):
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def _end_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Hosts:
    """Hosts ``host1`` to ``hostN`` at 10.77.0.1 to .N, and the operator at .254, all gone after :meth:`close`.

    Args:
        count: of hosts.
        hidden: folders of this machine that the hosts see empty.
    """

    def __init__(self, count, hidden):
        self.hidden = hidden
        self.ips = [f"{NETWORK}.{number}" for number in range(1, count + 1)]
        self.lab = Path(tempfile.mkdtemp(prefix="ms-automl-hosts-"))
        self.started = []
        self.namespaces = []  # of processes, by host: what each is known by
        try:
            self._write_files()
            self.operator = self._start(["bash", "-c", OPERATOR, "bash", *self._kept(ROOT)])
            self._wait_until((self.lab / "ready").exists)
            self._network("ip link add bridge type bridge; ip link set bridge up")
            self._network(f"ip address add {NETWORK}.254/24 dev bridge")
            for number in range(1, count + 1):
                self._host(number)
            for ip in self.ips:
                self._wait_until(lambda ip=ip: self.ssh(ip, "true", check=False).returncode == 0)
        except BaseException:
            self.close()
            raise

    def _write_files(self):
        self.lab.chmod(0o755)
        for name in ("shared", "operator"):
            (self.lab / name).mkdir()
        self.shared.chmod(0o777)
        self.key = self.lab / "key"
        for file in (self.key, self.lab / "host_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
        entries = {
            "passwd": f"{USER}:x:{USER_ID}:{USER_ID}::/home/{USER}:/bin/bash",
            "group": f"{USER}:x:{USER_ID}:",
            "shadow": f"{USER}:*:19000:0:99999:7:::",
            "hosts": "\n".join(f"{ip} host{number}" for number, ip in enumerate(self.ips, 1)),
        }
        for name, entry in entries.items():
            (self.lab / name).write_text(f"{Path('/etc', name).read_text().rstrip()}\n{entry}\n")
        (self.lab / "sshd_config").write_text(SSHD)

    @property
    def shared(self):
        """What the hosts see as :data:`SHARED`."""
        return self.lab / "shared"

    def _start(self, command, inside=()):
        """Run a command in namespaces of its own; returns its process id."""
        log = (self.lab / "log").open("a")
        full = [*inside, "unshare", *NAMESPACES, "--fork", "--kill-child=KILL", "--mount-proc", "--", *command]
        process = subprocess.Popen(full, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                   start_new_session=True, preexec_fn=_end_with_parent)  # fmt: skip
        log.close()
        self.started.append(process)
        return _innermost(process.pid, "unshare")

    def _host(self, number):
        arguments = [f"host{number}", str(self.lab), " ".join(map(str, self.hidden)), *self._kept()]
        pid = self._start(["bash", "-c", HOST, "bash", *arguments], self._inside())
        name = f"port{number}"
        self._network(f"ip link add {name} type veth peer name eth0 netns {pid}")
        self._network(f"ip link set {name} master bridge up")
        self.namespaces.append(Path(f"/proc/{pid}/ns/pid").readlink())
        into = f"nsenter -t {pid} -n"
        self._network(f"{into} ip address add {self.ips[number - 1]}/24 dev eth0; {into} ip link set eth0 up")
        return pid

    def _kept(self, *paths):
        """What stays where it is in every namespace: the lab, and the Python that runs the tests."""
        python = [path for path in (sys.prefix, sys.base_prefix) if path not in ("/usr", "/usr/local")]
        return [str(path) for path in dict.fromkeys([self.lab, *paths, *python])]

    def _inside(self, *namespaces):
        return [
            "nsenter",
            "-t",
            str(self.operator),
            *(namespaces or ("--net", "--mount", "--pid", "--uts", "--ipc")),
        ]

    def _network(self, script):
        # Into the network alone: process ids are those that this process sees.
        subprocess.run([*self._inside("--net"), "sh", "-ec", script], check=True, timeout=30)

    def _wait_until(self, condition):
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, (self.lab / "log").read_text()[-2000:]
            time.sleep(0.1)

    def run(self, *command, timeout, check=True, **environment):
        """Run a command as the operator, with a home of its own; returns what it said, both streams in one."""
        home = self.lab / "operator"
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
        own = {"HOME": home, "PATH": path, "TMPDIR": home, "RAY_TMPDIR": home / "ray", "LC_ALL": "C.UTF-8"}
        given = [f"{name}={value}" for name, value in (own | environment).items()]
        limit = ["timeout", "--kill-after=10", str(timeout)]
        done = subprocess.run(
            [*self._inside(), "env", "-i", "-C", ROOT, *given, *limit, *map(str, command)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
            timeout=timeout + 20,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{shlex.join(map(str, command))}\n{done.stdout[-6000:]}"
        return done

    def ssh(self, ip, command, timeout=60, check=True):
        """Run a shell command on a host, as its user."""
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        return self.run("ssh", "-i", self.key, *options, "-o", "ConnectTimeout=5", f"{USER}@{ip}", command,
                        timeout=timeout, check=check)  # fmt: skip

    def cut(self, number):
        """Cut a host off from the network."""
        self._network(f"ip link set port{number} down")

    def mend(self, number):
        """Give a host its network back."""
        self._network(f"ip link set port{number} up")

    def processes(self, number):
        """Command lines of what runs on a host, but for SSH itself."""
        lines = [line for line in _members(self.namespaces[number - 1]) if "sshd" not in line and HOST not in line]
        return [line for line in lines if line]

    def close(self):
        """End everything; what the machine had before is what it has now."""
        for process in self.started[:1]:
            process.kill()  # the operator: by --kill-child all inside goes with it
        for process in self.started:
            process.wait(timeout=30)
        deadline = time.monotonic() + 30
        while any(_members(namespace) for namespace in self.namespaces) and time.monotonic() < deadline:
            time.sleep(0.1)
        shutil.rmtree(self.lab, ignore_errors=True)


def _members(namespace):
    """Command lines of the processes in a namespace."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "ns/pid").readlink() == namespace:
                found.append((entry / "cmdline").read_text().replace("\0", " ").strip())
    return found


def _innermost(pid, wrapper):
    """The process that a chain of wrappers (nsenter, unshare) has started, once it is there."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if name not in (wrapper, "nsenter", "unshare", "python3", "python"):
                return pid
            (pid,) = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        time.sleep(0.01)
    raise AssertionError("the namespaces did not come up")
