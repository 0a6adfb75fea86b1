"""`python FILE_OF_THIS -m MODULE ...` does what `python -m MODULE ...` does, in a process forked by
the server that the environment names (`fly64lib.notebook.fork_server`); started as usual where it
names none.

Only light modules of the standard library: this runs for every job, under `python -I -S`."""

import json
import os
import signal
import socket
import sys
from contextlib import suppress
from select import select

SERVER = "FLY64_FORK_SERVER"  # the environment variable that holds the server's socket


def python() -> list[str]:
    """The beginning of a command that runs this file, to be followed by `-m MODULE ...`."""
    return [sys.executable, "-I", "-S", __file__]


class Forked:
    """`python ARGUMENTS` as a forked process with this one's stdout and stderr, to be handled as a
    subprocess.Popen is. It dies with this process.

    Raises ConnectionError where no server answers."""

    stdin = stdout = stderr = returncode = None
    cpu_s = peak_mb = 0.0  # of the ended process and those that it has waited for

    def __init__(self, arguments: list[str], environment: dict[str, str], cwd: str) -> None:
        asked = {"arguments": arguments, "environment": environment, "cwd": cwd}
        said = json.dumps(asked).encode()
        self.connection, server = socket.socket(socket.AF_UNIX), os.environ[SERVER]
        try:
            self.connection.connect(server)
            with open(os.devnull) as nothing:
                streams = [nothing.fileno(), 1, 2]
                socket.send_fds(self.connection, [len(said).to_bytes(4, "big")], streams)
            self.connection.sendall(said)
        except OSError as error:
            text = f"no server answers at {server}, which {SERVER} names ({error.strerror}): it"
            raise ConnectionError(f"{text} has ended; start the study again") from error

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs."""
        if self.returncode is None and select([self.connection], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self) -> int:
        """The exit code, when the process has ended."""
        if self.returncode is None:
            said = b""
            with suppress(ConnectionError), self.connection:
                said = self.connection.recv(1024)
            # Whoever watched the process was killed, and the process with it.
            ended = json.loads(said) if said else (-signal.SIGKILL, 0.0, 0.0)
            self.returncode, self.cpu_s, self.peak_mb = ended
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the process and its group, if it still runs."""
        if self.returncode is None:
            with suppress(ConnectionError):
                self.connection.send(bytes([number]))

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def main() -> int:
    """Run what the arguments say and return its exit code, as a shell would for a signal."""
    if SERVER not in os.environ:
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
    try:
        process = Forked(sys.argv[1:], dict(os.environ), os.getcwd())
    except ConnectionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
        signal.signal(number, lambda number, _: process.send_signal(number))
    code = process.wait()
    if code < 0:
        print(f"error: ended by {signal.Signals(-code).name}", file=sys.stderr)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    raise SystemExit(main())
