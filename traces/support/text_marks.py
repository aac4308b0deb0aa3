"""Byte order marks: text that was saved as UTF-16 or UTF-32, or with a mark that JSON has no place for."""

from __future__ import annotations

from traces.support.errors import InputError

__all__ = ["refuse_marks"]

# UTF-32 first: its little-endian mark begins with that of UTF-16.
WIDE = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
UTF8 = b"\xef\xbb\xbf"


def refuse_marks(head: bytes, name: str, *, utf8: bool = False) -> None:
    """Refuse text in UTF-16 or UTF-32, as it is what a file with such a mark holds.

    Parameters
    ----------
    head : bytes
        The first bytes of a file of any kind: no binary format begins like this.
    name : str
        What the error calls the file.
    utf8 : bool
        Whether the mark of UTF-8 is refused as well.

    Raises
    ------
    InputError
    """
    for mark, encoding in WIDE.items():
        if head.startswith(mark):
            detail = f"The file is {encoding} text, by its byte order mark; formats here are UTF-8."
            remedy = (
                f"Save it as UTF-8: iconv -f {encoding} -t UTF-8 FILE > NEW; in PowerShell, Out-File -Encoding utf8."
            )
            raise InputError.of("text_encoding", name, detail, remedy)
    if utf8 and head.startswith(UTF8):
        detail = "The file begins with a byte order mark (EF BB BF), which is no part of its format."
        raise InputError.of("text_encoding", name, detail, "Save it as UTF-8 without a mark: tail -c +4 FILE > NEW.")
