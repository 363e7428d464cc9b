"""A server as they were in 1985: RFC 959 and not a verb more. No FEAT, EPSV, SIZE, MDTM, REST, MLSD; LIST is `ls -l`, or
what MS-DOS would say.

    ancient.py HOST PORT ROOT unix|dos
"""

import os
import socketserver
import socket
import sys
import time

host, port, root, style = sys.argv[1:]
root = os.fsencode(root)


def line(name, stat):
    is_dir = os.path.stat.S_ISDIR(stat.st_mode)
    when = time.gmtime(stat.st_mtime)
    if style == "dos":
        size = b"      <DIR>         " if is_dir else b"%20d" % stat.st_size
        return time.strftime("%m-%d-%y  %I:%M%p", when).encode() + b" " + size + b" " + name
    # A year instead of the time of day, half a year from now and more.
    form = "%b %e %H:%M" if abs(time.time() - stat.st_mtime) < 180 * 86400 else "%b %e  %Y"
    mode = os.path.stat.filemode(stat.st_mode).encode()
    return b"%s %3d root     root     %8d %s %s" % (mode, stat.st_nlink, stat.st_size, time.strftime(form, when).encode(), name)


class Session(socketserver.StreamRequestHandler):
    def say(self, text):
        self.wfile.write((text.encode() if isinstance(text, str) else text) + b"\r\n")

    def real(self, path):
        return root + os.path.normpath(b"/" + os.path.join(self.cwd, path)).replace(b"//", b"/")

    def send(self, move):
        if self.passive is None:
            return self.say("425 PASV first")
        self.say("150 here")
        data, _ = self.passive.accept()
        self.passive.close()
        self.passive = None
        with data:
            move(data)
        self.say("226 done")

    def handle(self):
        self.cwd, self.passive, old = b"/", None, None
        self.say("220 an old server")
        for received in self.rfile:
            verb, _, argument = received.rstrip(b"\r\n").partition(b" ")
            verb = verb.upper()
            try:
                if verb == b"USER":
                    self.say("331 password")
                elif verb == b"PASS":
                    self.say("230 in")
                elif verb in (b"TYPE", b"NOOP", b"MODE", b"STRU"):
                    self.say("200 yes")
                elif verb == b"PWD":
                    self.say(b'257 "' + self.cwd.replace(b'"', b'""') + b'"')
                elif verb in (b"CWD", b"CDUP"):
                    path = self.real(b".." if verb == b"CDUP" else argument)
                    if os.path.isdir(path):
                        self.cwd = path[len(root):].rstrip(b"/") or b"/"
                        self.say("250 yes")
                    else:
                        self.say("550 no such directory")
                elif verb == b"PASV":
                    self.passive = socket.create_server((host, 0))
                    number = self.passive.getsockname()[1]
                    self.say(f"227 here ({host.replace('.', ',')},{number >> 8},{number & 255})")
                elif verb == b"LIST":
                    # Whatever is asked, it takes for a name; and it shows no name with a dot in front.
                    path = self.real(argument)
                    names = sorted(os.listdir(path)) if os.path.isdir(path) else None
                    if names is None:
                        self.say("550 no such directory")
                        continue
                    lines = [line(it, os.lstat(os.path.join(path, it))) for it in names if it[:1] != b"."]
                    self.send(lambda data: data.sendall(b"".join(it + b"\r\n" for it in lines)))
                elif verb == b"RETR":
                    with open(self.real(argument), "rb") as file:
                        self.send(lambda data: data.sendall(file.read()))
                elif verb == b"STOR":
                    with open(self.real(argument), "wb") as file:
                        def store(data):
                            while piece := data.recv(65536):
                                file.write(piece)
                            file.flush()
                        self.send(store)
                elif verb == b"MKD":
                    os.mkdir(self.real(argument))
                    self.say("257 made")
                elif verb == b"RMD":
                    os.rmdir(self.real(argument))
                    self.say("250 gone")
                elif verb == b"DELE":
                    os.unlink(self.real(argument))
                    self.say("250 gone")
                elif verb == b"RNFR":
                    old = self.real(argument)
                    self.say("350 and to what?" if os.path.exists(old) else "550 no such file")
                elif verb == b"RNTO":
                    os.rename(old, self.real(argument))
                    self.say("250 done")
                elif verb == b"QUIT":
                    return self.say("221 bye")
                else:
                    self.say("500 what?")
            except OSError as error:
                self.say(f"550 {error.strerror}")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 100


Server((host, int(port)), Session).serve_forever()
