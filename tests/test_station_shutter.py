"""The button on a camera, played by a named pipe."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from edge_mdda.station import shutter
from edge_mdda.station.shutter import EV_KEY, EVENT, KEY_CAMERA, Shutter, buttons

KEYS = " ".join(["100000" if word == KEY_CAMERA // 64 else "0" for word in range(KEY_CAMERA // 64, -1, -1)])
DEVICES = f"""I: Bus=0003 Vendor=046d
N: Name="Keyboard"
H: Handlers=sysrq kbd event0 leds
B: EV=120013
B: KEY=1000000000007 ff9f207ac14057ff

I: Bus=0003 Vendor=1d4d
N: Name="Dermatoscope"
H: Handlers=kbd event7
B: EV=3
B: KEY={KEYS}

"""


@pytest.fixture()
def root(tmp_path) -> Path:
    (tmp_path / "proc/bus/input").mkdir(parents=True)
    (tmp_path / "proc/bus/input/devices").write_text(DEVICES)
    (tmp_path / "dev/input").mkdir(parents=True)
    os.mkfifo(tmp_path / "dev/input/event7")
    return tmp_path


@pytest.mark.skipif(shutter.WORD_BITS != 64, reason="the list above is that of a 64-bit kernel")
def test_only_a_device_with_the_key_counts(root, tmp_path):
    assert 1 << (KEY_CAMERA % 64) == 0x100000
    assert buttons(root) == [root / "dev/input/event7"]
    assert buttons(tmp_path / "nothing") == []


@pytest.mark.skipif(shutter.WORD_BITS != 64, reason="the list above is that of a 64-bit kernel")
def test_presses_are_counted_and_other_keys_are_not(root):
    listener = Shutter(root, look_again_s=0.05)
    pipe = root / "dev/input/event7"

    def press(code: int, value: int) -> None:
        os.write(writer, EVENT.pack(0, 0, EV_KEY, code, value))

    def wait_for(count: int) -> None:
        end = time.monotonic() + 10
        while listener.pressed < count:
            assert time.monotonic() < end
            time.sleep(0.01)

    for expected in (1, 2):  # the second time after it was unplugged
        writer = os.open(pipe, os.O_WRONLY)
        press(30, 1)
        press(KEY_CAMERA, 1)
        press(KEY_CAMERA, 0)
        wait_for(expected)
        os.close(writer)
        time.sleep(0.5)  # the listener lets go of it, as of an unplugged device
    assert listener.pressed == 2
    listener.close()
