"""Talks to a server with ftplib: `ftplib_client.py HOST PORT SECTION`. Any surprise is an exception."""

import ftplib
import io
import random
import sys

SIZES = [0, 1, 1023, 1024, 1025, 65535, 65536, 65537, 3 << 20]


def connect(encoding="utf-8"):
    ftp = ftplib.FTP(timeout=10, encoding=encoding)
    ftp.connect(sys.argv[1], int(sys.argv[2]))
    ftp.login()
    return ftp


def content(size):
    return random.Random(size).randbytes(size)


def put(ftp, name, data, **options):
    return ftp.storbinary("STOR " + name, io.BytesIO(data), **options)


def get(ftp, name, **options):
    parts = []
    ftp.retrbinary("RETR " + name, parts.append, **options)
    return b"".join(parts)


def equal(got, expected):
    if got != expected:
        short = lambda value: repr(value)[:300]
        raise AssertionError(f"got {short(got)}, expected {short(expected)}")


def refused(code, call, *arguments, **options):
    try:
        answer = call(*arguments, **options)
    except ftplib.Error as error:
        equal(str(error)[:3], code)
    else:
        raise AssertionError(f"not refused: {answer}")


def binary(ftp):
    for size in SIZES:
        equal(put(ftp, "f", content(size))[:3], "226")
        equal(ftp.size("f"), size)
        equal(get(ftp, "f"), content(size))
    # Appended, and stored under a name that the server chooses.
    put(ftp, "a", b"one ")
    ftp.storbinary("APPE a", io.BytesIO(b"two"))
    equal(get(ftp, "a"), b"one two")
    before = set(ftp.nlst())
    ftp.storbinary("STOU", io.BytesIO(b"unique"))
    (name,) = set(ftp.nlst()) - before
    equal(get(ftp, name), b"unique")


def restart(ftp):
    data = content(200_000)
    put(ftp, "f", data)
    for rest in [0, 1, 65536, 199_999, 200_000]:
        equal(get(ftp, "f", rest=rest), data[rest:])
    # The rest of a file that is there in part is the same as all of it.
    for rest in [0, 1, 100_000]:
        put(ftp, "g", data[:100_000])
        put(ftp, "g", data[rest:], rest=rest)
        equal(get(ftp, "g"), data)
    # An offset past the end is refused, once.
    refused("554", get, ftp, "f", rest=200_001)
    equal(get(ftp, "f"), data)
    refused("554", put, ftp, "new", b"x", rest=100)
    assert "new" not in ftp.nlst()


def ascii(ftp):
    ftp.storlines("STOR text", io.BytesIO(b"one\ntwo\r\n\nlast\n"))
    lines = []
    ftp.retrlines("RETR text", lines.append)
    equal(lines, ["one", "two", "", "last"])
    equal(get(ftp, "text"), b"one\ntwo\n\nlast\n")
    put(ftp, "bare", b"\n" * 70_000 + b"end")
    lines = []
    ftp.retrlines("RETR bare", lines.append)
    equal(lines, [""] * 70_000 + ["end"])
    refused("550", ftp.sendcmd, "SIZE text")


def listings(ftp):
    ftp.mkd("d")
    ftp.mkd("d/sub")
    put(ftp, "d/f", content(1234))
    facts = dict(ftp.mlsd("d"))
    files = {name: facts[name] for name in facts if facts[name]["type"] not in ("cdir", "pdir")}
    equal(sorted(files), ["f", "sub"])
    equal((files["f"]["type"], files["f"]["size"], files["sub"]["type"]), ("file", "1234", "dir"))
    equal(len(files["f"]["modify"]), 14)
    (only,) = [f for name, f in ftp.mlsd("d", facts=["type", "size"]) if name == "f"]
    equal(only, {"type": "file", "size": "1234"})
    equal(sorted(ftp.nlst("d")), ["d/f", "d/sub"])
    ftp.cwd("d")
    equal(sorted(ftp.nlst()), ["f", "sub"])
    lines = []
    ftp.dir(lines.append)
    equal(sorted(line.split(None, 8)[8] for line in lines), ["f", "sub"])
    equal(sorted(line[0] for line in lines), ["-", "d"])
    (line,) = [line for line in lines if line.endswith(" f")]
    equal(line.split()[4], "1234")
    equal(ftp.sendcmd("MDTM f"), "213 " + files["f"]["modify"])
    ftp.cwd("sub")
    equal(ftp.nlst(), [])
    equal([name for name, f in ftp.mlsd() if f["type"] not in ("cdir", "pdir")], [])
    refused("550", ftp.nlst, "/nothing")
    refused("550", lambda: list(ftp.mlsd("/nothing")))
    refused("501", lambda: list(ftp.mlsd("/d/f")))
    # Many entries come complete.
    ftp.cwd("/")
    ftp.mkd("many")
    ftp.cwd("many")
    names = [f"entry {i:04}" for i in range(500)]
    for name in names:
        put(ftp, name, b"")
    equal(sorted(ftp.nlst()), names)
    equal(sorted(name for name, f in ftp.mlsd() if f["type"] == "file"), names)


def names(ftp):
    def there_and_back(ftp, names):
        for name in names:
            put(ftp, name, name.encode(ftp.encoding))
            equal(get(ftp, name), name.encode(ftp.encoding))
            assert name in ftp.nlst(), name
            assert name in [entry for entry, _ in ftp.mlsd()], name
            ftp.rename(name, "moved")
            ftp.delete("moved")
            equal(ftp.mkd(name), "/" + name)
            ftp.cwd(name)
            equal(ftp.pwd(), "/" + name)
            ftp.cwd("..")
            ftp.rmd(name)

    there_and_back(
        ftp,
        ["with space", " lead", "trail ", 'a"b""c', "it's", "back\\slash", "100%", "-la", "-rf"]
        + ["~root", "*", "[x]", "semi;colon", "\N{ROCKET} \u00e9 e\u0301", "n" * 255],
    )
    # Not UTF-8 at all, and a byte that Telnet would take.
    latin = connect("latin-1")
    there_and_back(latin, ["caf\xe9", "\x80\xa0\xfe", "\xc3("])
    latin.quit()
    for verb in ["STOR", "MKD"]:
        ftp.voidcmd("EPSV")
        refused("553", ftp.voidcmd, f"{verb} " + "n" * 256)


def changes(ftp):
    equal(ftp.mkd("d"), "/d")
    equal(ftp.mkd('d/quo"te'), '/d/quo"te')
    equal(ftp.cwd("d")[:3], "250")
    equal(ftp.pwd(), "/d")
    put(ftp, "f", b"content")
    equal(ftp.rename("f", "g")[:3], "250")
    equal(ftp.rename("g", "/h")[:3], "250")
    equal(get(ftp, "/h"), b"content")
    refused("550", ftp.rename, "f", "x")
    refused("550", ftp.rmd, "/d")
    equal(ftp.rmd('quo"te')[:3], "250")
    equal(ftp.cwd("..")[:3], "250")
    equal(ftp.rmd("d")[:3], "250")
    equal(ftp.delete("h")[:3], "250")
    equal(ftp.nlst(), [])
    put(ftp, "f", b"old, and longer")
    put(ftp, "f", b"new")
    equal(get(ftp, "f"), b"new")
    equal(ftp.sendcmd("MFMT 20200102030405 f")[:27], "213 Modify=20200102030405; ")
    equal(ftp.sendcmd("MDTM f"), "213 20200102030405")


def abort(ftp):
    put(ftp, "big", bytes(80 << 20))
    ftp.voidcmd("TYPE I")
    for _ in range(3):
        data = ftp.transfercmd("RETR big")
        data.recv(1000)
        answer = ftp.abort()
        data.close()
        # Cut: two replies, of which abort() read the first. Had it been sent: two as well.
        assert answer[:3] in ("426", "226"), answer
        equal(ftp.voidresp()[:3], "226")
        equal(ftp.voidcmd("NOOP")[:3], "200")
    # Nothing to abort.
    assert ftp.abort()[:3] in ("225", "226")
    equal(ftp.voidcmd("NOOP")[:3], "200")
    # An upload that is aborted leaves what was there.
    data = ftp.transfercmd("STOR big")
    data.sendall(b"other" * 1000)
    equal(ftp.abort()[:3], "426")
    data.close()
    equal(ftp.voidresp()[:3], "226")
    equal(ftp.size("big"), 80 << 20)


def active(ftp):
    ftp.set_pasv(False)
    for size in SIZES:
        put(ftp, "f", content(size))
        equal(get(ftp, "f"), content(size))
    equal(ftp.nlst(), ["f"])
    ftp.set_pasv(True)
    equal(ftp.nlst(), ["f"])


def refusals(ftp):
    refused("550", get, ftp, "nothing")
    refused("550", ftp.cwd, "nothing")
    refused("550", ftp.delete, "nothing")
    refused("550", ftp.rmd, "nothing")
    refused("550", ftp.size, "nothing")
    ftp.mkd("d")
    refused("550", ftp.mkd, "d")
    refused("550", get, ftp, "d")
    refused("550", ftp.delete, "d")
    refused("550", ftp.mkd, "no/such/dir")
    refused("500", ftp.voidcmd, "NONSENSE")
    refused("501", ftp.voidcmd, "CWD")
    refused("503", ftp.voidcmd, "RNTO x")
    refused("504", ftp.voidcmd, "MODE Z")
    for command in ["CDUP", "CWD /../..", "CWD ../../.."]:
        equal(ftp.voidcmd(command)[:3], "250")
        equal(ftp.pwd(), "/")
    equal(ftp.voidcmd("NOOP")[:3], "200")


session = connect()
globals()[sys.argv[3]](session)
equal(session.quit()[:3], "221")
