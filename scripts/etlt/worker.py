"""Runs in the codec's own interpreter: python worker.py encrypt|decrypt SOURCE SKIP TARGET.

Appends to TARGET what SOURCE holds after SKIP bytes, encrypted or decrypted with the key that
standard input gives. Python 3.10 and NVIDIA's package are all that is needed here.
"""

import sys

from eff_tao_encryption.tao_codec import decrypt_stream, encrypt_stream


def main():
    """Do the one thing."""
    task, source, skip, target = sys.argv[1:]
    key = sys.stdin.buffer.read()
    work = {"encrypt": encrypt_stream, "decrypt": decrypt_stream}[task]
    with open(source, "rb") as reader, open(target, "ab") as writer:  # noqa: PTH123 - no pathlib
        reader.seek(int(skip))
        work(reader, writer, key, encryption=True, rewind=False)


if __name__ == "__main__":
    main()
