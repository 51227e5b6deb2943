"""Where ids are made."""

from typing import Final

from sitq.adapters import chance, clocks

_VERSION_7: Final = 0x7 << 76
_VARIANT: Final = 0x2 << 62


def new_id() -> str:
    """Return a UUID of version 7 (RFC 9562): 48 bits of wall time in ms, then chance."""
    dice = chance.bits_80()
    high = dice >> 68 << 64  # 12 bits behind the version
    low = dice & ((1 << 62) - 1)
    value = (clocks.wall_ms() << 80) | _VERSION_7 | high | _VARIANT | low
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
