"""Write WARC and ARC records byte by byte, good ones and wrong ones."""

from __future__ import annotations

import base64
import gzip
import hashlib


def warc(
    kind: str, block: bytes, number: int = 0, *, url: str = "http://example.org/", length: int | None = None,
    digest: bool = True, **fields: str,
) -> bytes:  # fmt: skip
    """One record, with CR LF CR LF behind it. length: what its header claims, where it lies."""
    headers = {
        "WARC-Type": kind,
        "WARC-Record-ID": f"<urn:uuid:00000000-0000-4000-8000-{number:012d}>",
        "WARC-Date": "2024-05-01T10:20:30Z",
        "WARC-Target-URI": url,
        "Content-Type": "application/http; msgtype=response" if kind == "response" else "text/plain",
        "Content-Length": str(len(block) if length is None else length),
    }
    if digest:
        headers["WARC-Block-Digest"] = "sha1:" + base64.b32encode(hashlib.sha1(block).digest()).decode()
    headers |= {name.replace("_", "-"): value for name, value in fields.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return b"WARC/1.0\r\n" + head.encode() + b"\r\n" + block + b"\r\n\r\n"


def http(body: bytes, content_type: str = "text/html; charset=utf-8", status: str = "200 OK", **headers: str) -> bytes:
    """One HTTP response."""
    fields = {"Content-Type": content_type} | {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def page(text: str, charset: str = "utf-8", title: str = "Title") -> bytes:
    """A page whose main text is `text`, twice as long as anything else on it."""
    return f"<html><head><title>{title}</title></head><body><p>{text}</p></body></html>".encode(charset)


def html_record(number: int, text: str, **fields: str) -> bytes:
    """A good record with a page of that text."""
    return warc("response", http(page(text)), number, url=f"http://example.org/{number}", **fields)


def arc(
    url: str, block: bytes, kind: str = "text/html", length: int | None = None, date: str = "20080430204825"
) -> bytes:
    """One ARC record, with LF behind it."""
    size = len(block) if length is None else length
    return f"{url} 192.0.2.1 {date} {kind} {size}\n".encode() + block + b"\n"


ARC_HEAD = arc(
    "filedesc://x.arc", b"1 0 InternetArchive\nURL IP-address Archive-date Content-type Archive-length\n", "text/plain"
)


def members(*records: bytes) -> bytes:
    """Every record a gzip member of its own."""
    return b"".join(gzip.compress(record, mtime=0) for record in records)
