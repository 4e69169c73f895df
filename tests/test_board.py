"""What the program reads of a board, and what it thinks of it: boards as trees of files."""

from __future__ import annotations

import board_trees
import pytest
from board_trees import put

from edge_mdda.diagnostics import checks
from edge_mdda.diagnostics.finding import FAILED, OK, UNKNOWN, WARNING
from edge_mdda.hardware import inventory, sensors

IN_SUMMER = 1_782_000_000.0  # 2026-06-21


def test_a_pi_4(tmp_path):
    root = board_trees.pi4(tmp_path)
    assert inventory.model(root) == "Raspberry Pi 4 Model B Rev 1.4"
    assert (inventory.cpu(root), inventory.cores(root)) == ("Cortex-A72", 4)
    assert inventory.emulation(root, "aarch64") is None
    assert sensors.zones(root) == [sensors.Zone("cpu-thermal", 48.199, None, 110.0)]
    assert sensors.clocks(root) == [sensors.Clock("0 1 2 3", "ondemand", 600.0, 1800.0, 1800.0)]
    assert sensors.throttling(root) == sensors.Throttling("get_throttled (sysfs), rpi_volt", (), ())
    assert sensors.power(root) == {}
    assert inventory.cameras(root) == [inventory.Camera("unicam-image", ("/dev/video0",), True)]
    assert inventory.clock_synchronised(root) is True
    for check in ("swap", "root_file_system", "camera", "temperature", "throttling", "cpu_clock", "memory"):
        assert getattr(checks, check)(root).status == OK, check
    assert checks.clock(root, IN_SUMMER).status == OK
    assert checks.power(root).status == UNKNOWN


def test_a_pi_5(tmp_path):
    root = board_trees.pi5(tmp_path)
    assert inventory.cpu(root) == "Cortex-A76"
    assert sensors.throttling(root) is not None  # its firmware has another address
    assert inventory.cameras(root) == [inventory.Camera("HD Webcam: HD Webcam", ("/dev/video0", "/dev/video1"), True)]
    offline = checks.clock(root, IN_SUMMER)
    assert offline.status == OK
    assert "not synchronised" in offline.value
    assert "rpi_rtc" in offline.value
    assert checks.swap(root).status == OK  # zram, though in use


def test_a_jetson(tmp_path):
    root = board_trees.jetson(tmp_path)
    assert (inventory.cpu(root), inventory.cores(root)) == ("Cortex-A78AE", 6)
    assert sensors.power(root) == {"VDD_IN": 5.072, "VDD_CPU_GPU_CV": 1.014, "VDD_SOC": 1.519}
    assert sensors.total_power(sensors.power(root)) == 5.072  # the module's input, not the sum
    assert [zone.name for zone in sensors.zones(root)] == ["cpu-thermal", "tj-thermal"]  # the GPU's sleeps
    assert sensors.throttling(root) == sensors.Throttling("soctherm_oc, cooling devices", (), ())
    one = sensors.sample(root)
    assert (one["temperature_c"], one["clock_mhz"], one["power_w"], one["throttled"]) == (49.906, 729.6, 5.072, [])
    assert checks.temperature(root).status == OK
    assert "VDD_SOC 1.52" in checks.power(root).value


def test_an_empty_tree_is_unknown_and_no_error(tmp_path):
    assert inventory.model(tmp_path) is None
    assert sensors.sample(tmp_path) == dict.fromkeys(
        ["temperature_c", "clock_mhz", "throttled", "throttled_since_start", "power_w", "available_mb"]
    )
    for check in ("memory", "root_file_system", "camera", "temperature", "throttling", "cpu_clock", "power"):
        assert getattr(checks, check)(tmp_path).status == UNKNOWN, check
    assert checks.swap(tmp_path).status == OK
    assert checks.clock(tmp_path, IN_SUMMER).status == UNKNOWN


def test_garbage_in_sensors_is_no_error(tmp_path):
    root = board_trees.pi4(tmp_path, throttled="banana")
    put(
        root,
        {"sys/class/thermal/thermal_zone0/temp": "-2147483648\n", "proc/meminfo": "\0\xff no\n", "proc/swaps": "x"},
    )
    put(root, {"sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "<unsupported>\n", "proc/mounts": "a b\n"})
    assert sensors.zones(root) == []
    assert sensors.clocks(root)[0].now is None
    assert sensors.throttling(root).source == "rpi_volt"
    assert checks.memory(root).status == UNKNOWN
    assert checks.root_file_system(root).status == UNKNOWN


@pytest.mark.parametrize(
    ("bits", "status", "words"),
    [
        ("50005", FAILED, ("under-voltage", "throttled", "power supply")),
        ("0x50000", WARNING, ("now: none", "under-voltage", "power supply")),
        ("80008", FAILED, ("soft temperature limit", "cool")),
        ("e0000", WARNING, ("clock capped", "cool")),
        ("0", OK, ("now: none; since the start: none",)),
    ],
)
def test_throttling_of_a_pi(tmp_path, bits, status, words):
    found = checks.throttling(board_trees.pi4(tmp_path, throttled=bits))
    assert found.status == status
    for word in words:
        assert word in found.value + found.advice


def test_throttling_of_a_jetson(tmp_path):
    root = board_trees.jetson(tmp_path)
    put(root, {"sys/class/hwmon/hwmon3/oc3_event_cnt": "37\n"})
    found = checks.throttling(root)
    assert (found.status, "instantaneous over-current (37 events)" in found.value) == (WARNING, True)
    put(root, {"sys/class/thermal/cooling_device3/cur_state": "4\n"})
    assert checks.throttling(root).status == FAILED


def test_the_firmwares_answers(tmp_path, monkeypatch):
    """``vcgencmd`` as a Raspberry Pi 5 prints it; what this machine shows by itself may come on top."""
    program = tmp_path / "vcgencmd"
    program.write_text(
        "#!/bin/sh\ncase $1 in get_throttled) echo throttled=0x50004;;\n"
        "pmic_read_adc) echo ' 3V3_SYS_A current(1)=0.20000000A'; echo ' VDD_CORE_A current(7)=1.50000000A'\n"
        "echo ' 3V3_SYS_V volt(9)=3.30000000V'; echo ' VDD_CORE_V volt(15)=0.80000000V'\n"
        "echo ' EXT5V_V volt(24)=5.10000000V';; *) exit 1;; esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = sensors.throttling()
    assert "vcgencmd" in found.source
    assert {"throttled"} <= set(found.now)
    assert {"under-voltage", "throttled"} <= set(found.since_start)
    if not sensors.power(ask_firmware=False):
        assert sensors.power() == {"3V3_SYS": 0.66, "VDD_CORE": 1.2}
    program.write_text("#!/bin/sh\nexit 1\n")
    assert sensors._vcgencmd(inventory.ROOT, "get_throttled") is None


@pytest.mark.parametrize(
    ("changes", "check", "status", "word"),
    [
        ({"sys/class/thermal/thermal_zone0/temp": "78000"}, "temperature", WARNING, "warm"),
        ({"sys/class/thermal/thermal_zone0/temp": "86000"}, "temperature", FAILED, "heat sink"),
        ({"proc/swaps": "F T S U P\n/var/swap file 102396 51200 -2\n"}, "swap", WARNING, "zram"),
        ({"proc/meminfo": "MemTotal: 440000 kB\nMemAvailable: 60000 kB\n"}, "memory", FAILED, "native"),
        ({"proc/meminfo": "MemTotal: 440000 kB\nMemAvailable: 150000 kB\n"}, "memory", WARNING, "close"),
        ({"proc/mounts": "/dev/mmcblk0p2 / ext4 ro,noatime 0 0\n"}, "root_file_system", FAILED, "fsck"),
        ({"proc/mounts": "/dev/sda1 / ext4 ro 0 0\n", "etc/fstab": "x / ext4 ro"}, "root_file_system", WARNING, "USB"),
        ({"proc/mounts": "/dev/mmcblk0p2 / ext4 rw 0 0\n"}, "root_file_system", WARNING, "noatime"),
        ({"proc/mounts": "/dev/mmcblk0p2 / ext4 rw,noatime,nobarrier 0 0\n"}, "root_file_system", WARNING, "nobarrier"),
        ({"proc/mounts": "overlay / overlay rw,relatime 0 0\n"}, "root_file_system", WARNING, "lost"),
        ({"sys/fs/ext4/mmcblk0p2/errors_count": "3"}, "root_file_system", FAILED, "replace the card"),
        ({"sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "powersave"}, "cpu_clock", WARNING, "ondemand"),
        ({"sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": "900000"}, "cpu_clock", WARNING, "capped"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_board_is_found(tmp_path, changes, check, status, word):
    found = getattr(checks, check)(put(board_trees.pi4(tmp_path), changes))
    assert (found.status, word in found.advice) == (status, True), found


def test_a_camera_that_only_others_may_open(tmp_path):
    root = board_trees.pi4(tmp_path)
    (root / "dev/video0").unlink()  # os.access says no, as it does without permission; root may open anything
    assert "usermod" in checks.camera(root).advice


def test_the_clock(tmp_path):
    root = board_trees.pi4(tmp_path)
    assert checks.clock(root, 0.0).status == FAILED
    assert checks.clock(root, 5e9).status == FAILED
    (root / "run/systemd/timesync/synchronized").unlink()
    lonely = checks.clock(root, IN_SUMMER)
    assert (lonely.status, "RTC" in lonely.advice) == (WARNING, True)


def test_the_disk():
    mib = 2**20
    assert checks.judge_disk("/home", 50 * mib, 9000 * mib, 1.0).status == FAILED
    assert checks.judge_disk("/home", 500 * mib, 9000 * mib, 1.0).status == WARNING
    assert checks.judge_disk("/home", 5000 * mib, 9000 * mib, 0.001).status == WARNING
    assert checks.judge_disk("/home", 5000 * mib, 9000 * mib, 0.5).status == OK


def test_emulation_is_noticed(tmp_path):
    root = put(tmp_path, {"proc/cpuinfo": "processor : 0\nvendor_id : AuthenticAMD\nflags : fpu hypervisor\n"})
    assert "another architecture" in inventory.emulation(root, "aarch64")
    assert inventory.emulation(root, "x86_64") is None
    assert inventory.virtual_machine(root)
    assert inventory.emulation(board_trees.pi4(tmp_path / "pi"), "x86_64") is not None


def test_mounts_by_folder(tmp_path):
    table = inventory.mounts(board_trees.pi4(tmp_path))
    assert inventory.mount_of("/media/usb stick/visit", table).device == "/dev/sda1"
    assert inventory.mount_of("/media/usb", table).device == "/dev/mmcblk0p2"
