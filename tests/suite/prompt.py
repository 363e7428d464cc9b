"""haul's prompt on a pseudo terminal: what a person types, and what the screen must then say."""

import os
import pty
import re
import select
import signal
import socket
import sys
import time

PATIENCE_S = 30
haul, server, home, directory, fake = sys.argv[1:]


class Prompt:
    def __init__(self, address):
        self.seen = b""
        self.pid, self.screen = pty.fork()
        if self.pid == 0:
            os.chdir(directory)
            environment = {"HOME": home, "PATH": os.environ["PATH"], "TERM": "xterm", "COLUMNS": "100"}
            os.execve(haul, [haul, "--server", address, "--tls", "off"], environment)

    def expect(self, pattern):
        """Reads until the pattern was there, forgets it, and returns what came before."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = re.search(pattern.encode(), self.seen)
            if found:
                before = self.seen[:found.start()]
                self.seen = self.seen[found.end():]
                return before
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([self.screen], [], [], left)[0]
            try:
                read = os.read(self.screen, 65536) if ready else b""
            except OSError:
                read = b""
            if not read:
                self.end_with(f"no {pattern!r} in {self.seen!r}")
            self.seen += read

    def type(self, text):
        os.write(self.screen, text.encode())

    def do(self, text, pattern):
        self.expect("haul> ")
        self.type(text)
        self.expect(pattern)

    def end_with(self, why):
        os.kill(self.pid, signal.SIGKILL)
        sys.exit(why)

    def ended(self):
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                select.select([self.screen], [], [], max(0, deadline - time.monotonic()))
                if os.read(self.screen, 65536):
                    continue
            except OSError:
                break
            self.end_with("it does not end")
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


prompt = Prompt(server)
# Commands, names here, names there; blanks in names.
prompt.do("upl\tloc\t\r", r"uploaded local file.txt")
prompt.do("sta\tpho\tsum\t\r", r"photos/summer trip.txt: file, 4 bytes")
prompt.do("GET \"photos/sum\t\r", r"downloaded photos/summer trip.txt")
# It asks for the name, which is completed as well.
prompt.do("Upload\r", "File name: ")
prompt.type("loc\t\r")
prompt.expect("uploaded local file.txt")
# Ctrl-C clears the line.
prompt.do("rm -d photos\x03", r"haul> ")
prompt.type("cd photos\r")
prompt.do("pwd\r", r"/photos\r\n")
# The line before is in the history.
prompt.do("\x1b[A\r", r"/photos\r\n")
prompt.do("sync :/ ftp://me:hush@nowhere.invalid/\r", r"haul: ")
prompt.do("\x04", "")
assert prompt.ended() == 0

history = os.path.join(home, ".local/state/haul/history")
assert os.stat(history).st_mode & 0o777 == 0o600, oct(os.stat(history).st_mode)
with open(history) as lines:
    text = lines.read()
assert "cd photos" in text and "hush" not in text, text

# Ctrl-C ends a transfer and not the program; what comes next is in the same directory.
prompt = Prompt(fake)
prompt.do("cd sub\r", "")
prompt.do("download endless\r", "endless")
with open(os.path.join(directory, "begun"), "rb") as begun:
    begun.read()
prompt.type("\x03")
# That Ctrl-C broke the connection is no error.
assert b"broke" not in prompt.expect("haul: interrupted")
# Tab connects again before the command does.
prompt.do("rm x\t\x15mkdir here\r", "")
prompt.do("quit\r", "")
assert prompt.ended() == 0

# Ctrl-C ends the wait for a server that does not answer any more: its queue is full.
listener = socket.create_server(("127.0.0.1", 0), backlog=0)
port = listener.getsockname()[1]
prompt = Prompt(f"127.0.0.1:{port}")
accepted, _ = listener.accept()
with accepted, accepted.makefile("rw", newline="\r\n") as dialogue:
    for reply in ["220 ready", "230 in", "502 no FEAT"]:
        print(reply, file=dialogue, flush=True)
        if reply[0] == "2":
            dialogue.readline()
    prompt.expect("haul> ")
queued = []
while True:
    queued.append(socket.socket())
    queued[-1].settimeout(0.3)
    try:
        queued[-1].connect(("127.0.0.1", port))
    except TimeoutError:
        queued.pop().close()
        break


def is_connecting():
    with open("/proc/net/tcp") as table:
        fields = (line.split() for line in table)
        return any(it[2].endswith(f":{port:04X}") and it[3] == "02" for it in fields)


prompt.type("ls\r")
deadline = time.monotonic() + PATIENCE_S
while not is_connecting():
    if time.monotonic() > deadline:
        prompt.end_with("it does not connect")
    time.sleep(0.01)
prompt.type("\x03")
prompt.expect("haul: interrupted")
prompt.do("quit\r", "")
assert prompt.ended() == 0
