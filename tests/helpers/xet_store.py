"""The hub's store of large files as hf_xet uses it: parts of files (xorbs), and shards that say what files consist of.

It takes files apart and puts them together by what the client tells it, so content is checked by who downloads it.
"""

import struct
import threading
import time

# A shard begins with a header of this size: 32 bytes that mark it, its version, the size of its footer.
_HEADER = 48
_RECORD = 48
_END = b"\xff" * 32
_HAS_VERIFICATION = 1 << 31
_HAS_METADATA = 1 << 30


def hash_name(raw: bytes) -> str:
    """A hash as hf_xet spells it: four little-endian numbers of 64 bits."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


class XetStore:
    """Xorbs and files, in memory."""

    def __init__(self):
        self.lock = threading.Lock()
        self.xorbs: dict[str, bytes] = {}
        # Terms (xorb, bytes, first chunk, chunk after the last), and the sha256 of the content.
        self.files: dict[str, tuple[list[tuple[str, int, int, int]], str]] = {}

    def file_of(self, sha256: str) -> str | None:
        """The name here of a file with this content."""
        with self.lock:
            return next((name for name, (_, known) in self.files.items() if known == sha256), None)

    def size_of(self, name: str) -> int:
        return sum(size for _, size, _, _ in self.files[name][0])

    def add_shard(self, shard: bytes) -> None:
        """Enters the files of a shard.

        Raises:
            KeyError: if a xorb that one consists of is not there.
        """
        place = _HEADER
        found = {}
        while shard[place : place + 32] != _END:
            name = hash_name(shard[place : place + 32])
            flags, count = struct.unpack_from("<2I", shard, place + 32)
            place += _RECORD
            terms = []
            for _ in range(count):
                xorb = hash_name(shard[place : place + 32])
                _, size, start, end = struct.unpack_from("<4I", shard, place + 32)
                if xorb not in self.xorbs:
                    raise KeyError(f"no xorb {xorb}")
                terms.append((xorb, size, start, end))
                place += _RECORD
            if flags & _HAS_VERIFICATION:
                place += _RECORD * count
            sha256 = ""
            if flags & _HAS_METADATA:
                sha256 = hash_name(shard[place : place + 32])
                place += _RECORD
            found[name] = (terms, sha256)
        with self.lock:
            self.files.update(found)

    def reconstruction(self, name: str, url: str) -> dict:
        """What a file consists of, and which bytes below `url` to get for it."""
        terms, _ = self.files[name]
        sources: dict[str, list] = {}
        for xorb, _, start, end in terms:
            places = self._chunk_places(xorb)
            last = places[end] - 1
            chunks = {"start": start, "end": end}
            source = {"range": chunks, "url": f"{url}/{xorb}", "url_range": {"start": places[start], "end": last}}
            sources.setdefault(xorb, []).append(source)
        return {
            "offset_into_first_range": 0,
            "terms": [
                {"hash": xorb, "unpacked_length": size, "range": {"start": start, "end": end}}
                for xorb, size, start, end in terms
            ],
            "fetch_info": sources,
        }

    def _chunk_places(self, xorb: str) -> list[int]:
        """Where each chunk begins, and where the last ends. (A chunk's header: version, size, scheme, full size.)"""
        content = self.xorbs[xorb]
        places = [0]
        while places[-1] < len(content) and content[places[-1]] == 0:
            size = int.from_bytes(content[places[-1] + 1 : places[-1] + 4], "little")
            places.append(places[-1] + 8 + size)
        return places

    def connection(self, url: str, token: str) -> dict[str, str]:
        """How to reach the store, as the hub's headers say it."""
        return {
            "X-Xet-Cas-Url": url,
            "X-Xet-Access-Token": token,
            "X-Xet-Token-Expiration": str(int(time.time()) + 3600),
        }
