"""Bytes on disk: records of opaque segments. The store knows no tensor and no history.

**file** — what `files` writes: whole or not at all. **record** — one object on disk: a header, and segments
each raw or one zstd frame. **pack** — an immutable file of many records and a footer; its sorted **idx** can
be rebuilt from the footer, the footer from the records. **loose** — a small object in a file of its own.
**ref** — a name that holds an id and moves by compare-and-swap; every move is a line of its **reflog**.
**lock** — a kernel lock, released by death.

Invariants, after a power cut at any point too: whatever a ref names is complete and readable; a ref holds
its old or its new value; an object present under its id is never rewritten in place, and a damaged one is
never taken as already stored; stored bytes are verified before anything is decompressed; no symbolic link,
FIFO or device in the store is followed.
"""
