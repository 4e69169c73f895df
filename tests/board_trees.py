"""The files in /proc, /sys and /etc that boards show, as far as this program reads them: laid out below a folder.

Values are those of real boards at rest; a test changes what it is about.
"""

from __future__ import annotations

from pathlib import Path

PI_MEMORY = {"MemTotal": 3885396, "MemFree": 2900000, "MemAvailable": 3361024, "SwapTotal": 102396, "SwapFree": 102396}
JETSON_MEMORY = {"MemTotal": 7802020, "MemAvailable": 5802020, "SwapTotal": 3901008, "SwapFree": 3901008}
BOOKWORM = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nID=debian\n'
JAMMY = 'PRETTY_NAME="Ubuntu 22.04.4 LTS"\nNAME="Ubuntu"\nID=ubuntu\n'
PI_MOUNTS = """\
/dev/mmcblk0p2 / ext4 rw,noatime 0 0
devtmpfs /dev devtmpfs rw,relatime,size=1678176k,nr_inodes=419544,mode=755 0 0
proc /proc proc rw,relatime 0 0
/dev/mmcblk0p1 /boot/firmware vfat rw,relatime,fmask=0022,dmask=0022,errors=remount-ro 0 0
/dev/sda1 /media/usb\\040stick vfat rw,nosuid,nodev 0 0
"""


def put(root: Path, files: dict[str, str]) -> Path:
    """Write files below a folder; returns it."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def cpuinfo(part: str, features: str, cores: int) -> str:
    """An ARM board's /proc/cpuinfo."""
    one = (
        f"BogoMIPS\t: 108.00\nFeatures\t: {features}\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
        f"CPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 3\n"
    )
    return "".join(f"processor\t: {n}\n{one}\n" for n in range(cores))


def meminfo(sizes: dict[str, int]) -> str:
    return "".join(f"{name + ':':<16}{size:>8} kB\n" for name, size in sizes.items())


def cpufreq(policy: int, cores: str, governor: str, now: int, limit: int, hardware: int) -> dict[str, str]:
    folder = f"sys/devices/system/cpu/cpufreq/policy{policy}"
    return {
        f"{folder}/related_cpus": f"{cores}\n",
        f"{folder}/scaling_governor": f"{governor}\n",
        f"{folder}/scaling_cur_freq": f"{now}\n",
        f"{folder}/scaling_max_freq": f"{limit}\n",
        f"{folder}/cpuinfo_max_freq": f"{hardware}\n",
    }


def zone(number: int, kind: str, millidegrees: str, **trips: int) -> dict[str, str]:
    folder = f"sys/class/thermal/thermal_zone{number}"
    files = {f"{folder}/type": f"{kind}\n", f"{folder}/temp": f"{millidegrees}\n"}
    for index, (trip, limit) in enumerate(trips.items()):
        files[f"{folder}/trip_point_{index}_type"] = f"{trip}\n"
        files[f"{folder}/trip_point_{index}_temp"] = f"{limit}\n"
    return files


def pi4(root: Path, throttled: str = "0") -> Path:
    """Raspberry Pi 4, Raspberry Pi OS bookworm, CSI camera."""
    files = {
        "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
        "proc/cpuinfo": cpuinfo("0xd08", "fp asimd evtstrm crc32 cpuid", 4)
        + "Revision\t: c03114\nSerial\t\t: 10000000abcdef01\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n",
        "proc/meminfo": meminfo(PI_MEMORY),
        "proc/swaps": "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/var/swap file 102396 0 -2\n",
        "proc/mounts": PI_MOUNTS,
        "etc/fstab": "# comment\nPARTUUID=1-02 / ext4 defaults,noatime 0 1\n",
        "etc/os-release": BOOKWORM,
        "sys/devices/platform/soc/soc:firmware/get_throttled": f"{throttled}\n",
        "sys/class/hwmon/hwmon1/name": "rpi_volt\n",
        "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "0\n",
        "sys/class/thermal/cooling_device0/type": "gpio-fan\n",
        "sys/class/thermal/cooling_device0/cur_state": "1\n",
        "sys/class/video4linux/video0/name": "unicam-image\n",
        "sys/class/video4linux/video10/name": "bcm2835-codec-decode\n",
        "sys/class/video4linux/video13/name": "bcm2835-isp-output0\n",
        "dev/video0": "",
        "run/systemd/timesync/synchronized": "",
        "sys/fs/ext4/mmcblk0p2/errors_count": "0\n",
    }
    files |= zone(0, "cpu-thermal", "48199", critical=110000) | cpufreq(
        0, "0 1 2 3", "ondemand", 600000, 1800000, 1800000
    )
    return put(root, files)


def pi5(root: Path) -> Path:
    """Raspberry Pi 5 with its real-time clock, offline, zram, USB camera."""
    files = {
        "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
        "proc/cpuinfo": cpuinfo("0xd0b", "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimddp", 4),
        "proc/meminfo": meminfo(PI_MEMORY | {"MemTotal": 8256000, "MemAvailable": 7400000}),
        "proc/swaps": "Filename Type Size Used Priority\n/dev/zram0 partition 2097136 4096 100\n",
        "proc/mounts": PI_MOUNTS,
        "etc/os-release": BOOKWORM,
        "run/systemd/units/x": "",
        "sys/class/rtc/rtc0/name": "rpi_rtc\n",
        "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "0\n",
        "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
        "sys/class/thermal/cooling_device0/cur_state": "2\n",
        "sys/class/video4linux/video0/name": "HD Webcam: HD Webcam\n",
        "sys/class/video4linux/video1/name": "HD Webcam: HD Webcam\n",
        "sys/class/video4linux/video19/name": "rpi-hevc-dec\n",
        "sys/class/video4linux/video20/name": "pispbe-input\n",
        "dev/video0": "",
        "dev/video1": "",
    }
    files |= zone(0, "cpu-thermal", "55650", critical=110000, active=50000)
    return put(root, files | cpufreq(0, "0 1 2 3", "ondemand", 1500000, 2400000, 2400000))


def jetson(root: Path) -> Path:
    """Jetson Orin Nano, JetPack 6, NVMe, power rails, over-current counters."""
    files = {
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
        "proc/cpuinfo": cpuinfo("0xd42", "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimddp", 6),
        "proc/meminfo": meminfo(JETSON_MEMORY),
        "proc/swaps": "Filename Type Size Used Priority\n/dev/zram0 partition 650164 0 5\n",
        "proc/mounts": "/dev/nvme0n1p1 / ext4 rw,relatime 0 0\n",
        "etc/os-release": JAMMY,
        "run/systemd/timesync/synchronized": "",
        "sys/class/rtc/rtc0/name": "tegra-rtc c2a0000.rtc\n",
        "sys/class/hwmon/hwmon0/name": "tmp451\n",
        "sys/class/hwmon/hwmon1/name": "ina3221\n",
        "sys/class/hwmon/hwmon3/name": "soctherm_oc\n",
        "sys/class/hwmon/hwmon3/oc1_event_cnt": "0\n",
        "sys/class/hwmon/hwmon3/oc2_event_cnt": "0\n",
        "sys/class/hwmon/hwmon3/oc3_event_cnt": "0\n",
        "sys/class/thermal/cooling_device3/type": "cpufreq-cpu0\n",
        "sys/class/thermal/cooling_device3/cur_state": "0\n",
        "sys/class/video4linux/video0/name": "vi-output, imx219 9-0010\n",
        "dev/video0": "",
    }
    rails = {"VDD_IN": (5072, 1000), "VDD_CPU_GPU_CV": (5072, 200), "VDD_SOC": (5064, 300)}
    for number, (label, (millivolts, milliamperes)) in enumerate(rails.items(), 1):
        files |= {
            f"sys/class/hwmon/hwmon1/in{number}_label": f"{label}\n",
            f"sys/class/hwmon/hwmon1/in{number}_input": f"{millivolts}\n",
            f"sys/class/hwmon/hwmon1/curr{number}_input": f"{milliamperes}\n",
        }
    files["sys/class/hwmon/hwmon1/in7_label"] = "Sum of shunt voltages\n"
    files |= zone(0, "cpu-thermal", "47875", passive=99000, critical=104500)
    files |= zone(1, "gpu-thermal", "", passive=99000)  # asleep: the read fails or is empty
    files |= zone(8, "tj-thermal", "49906", passive=99000, critical=104500)
    for policy in (0, 4):
        files |= cpufreq(policy, f"{policy}", "schedutil", 729600, 1510400, 1510400)
    return put(root, files)
