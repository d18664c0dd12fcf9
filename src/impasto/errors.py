"""What can go wrong through no fault of the code, and what is worth saying when it goes well.

An `ImpastoError` is a mistake that the caller can mend: its text is one sentence that names the
file or option and the mend. Everything else that escapes is a defect of impasto.
"""

from __future__ import annotations


class ImpastoError(ValueError):
    """Bad input; the text says what is wrong and how to mend it."""


class ImpastoNotice(UserWarning):
    """Something the caller may want to know: only the first frame was used, a name was taken."""
