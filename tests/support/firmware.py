"""Guests that do one thing: 64 KiB of firmware for QEMU's ``pc`` machine.

With ``-bios`` the processor begins at the last 16 bytes, in real mode. No operating system, and no
time: the guest has done its thing within milliseconds of ``cont``.
"""

from __future__ import annotations

from pathlib import Path


_SIZE = 1 << 16
_RESET = _SIZE - 16

#: Enable the power management of the PIIX4 at port 0x600, by PCI's configuration ports, and ask it
#: to switch the machine off.
_POWER_OFF = bytes.fromhex(
    "ba f8 0c"  #           mov dx, 0xcf8
    "66 b8 40 0b 00 80"  #  mov eax, 0x80000b40    the PMBA register of device 1, function 3
    "66 ef"  #              out dx, eax
    "ba fc 0c"  #           mov dx, 0xcfc
    "66 b8 01 06 00 00"  #  mov eax, 0x601
    "66 ef"  #              out dx, eax
    "ba f8 0c"  #           mov dx, 0xcf8
    "66 b8 80 0b 00 80"  #  mov eax, 0x80000b80    its PMREGMISC register
    "66 ef"  #              out dx, eax
    "ba fc 0c"  #           mov dx, 0xcfc
    "b0 01"  #              mov al, 1
    "ee"  #                 out dx, al
    "ba 04 06"  #           mov dx, 0x604          PMCNTRL
    "b8 00 20"  #           mov ax, 0x2000         SUS_EN
    "ef"  #                 out dx, ax
    "f4"  #                 hlt
    "eb fd"  #              jmp to the hlt
)

#: Ask the keyboard controller to reset the machine.
_RESET_MACHINE = bytes.fromhex(
    "b0 fe"  #  mov al, 0xfe
    "e6 64"  #  out 0x64, al
    "f4"  #     hlt
    "eb fd"  #  jmp to the hlt
)


def power_off(directory: Path) -> list[str]:
    """Write a guest that switches its machine off; return QEMU's arguments for it."""
    return _guest(directory / "power-off.rom", _POWER_OFF)


def reset(directory: Path) -> list[str]:
    """Write a guest that resets its machine; return QEMU's arguments for it."""
    return _guest(directory / "reset.rom", _RESET_MACHINE)


def _guest(path: Path, code: bytes) -> list[str]:
    image = bytearray(_SIZE)
    image[: len(code)] = code
    back = (-(_RESET + 3)) & 0xFFFF
    image[_RESET : _RESET + 3] = b"\xe9" + back.to_bytes(2, "little")  # jmp to the beginning
    path.write_bytes(image)
    return ["-accel", "tcg", "-m", "16", "-bios", str(path)]
