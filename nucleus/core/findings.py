"""What `marram doctor` finds: one sentence, one code, one fix each; and how bad all together are."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from nucleus.core import certificate

GOOD, WARNING, BAD = "ok", "warning", "error"
EXPIRES_SOON_S = 30 * 86_400.0
CLOCK_FLOOR_S = 1_735_689_600.0  # 2025-01-01: no release of this nucleus is older
CLOCK_SKEW_S = 300.0  # what SigV4 and most brokers forgive
DISK_LOW_BYTES, DISK_CRITICAL_BYTES = 200 * 1024 * 1024, 20 * 1024 * 1024  # the second: spec/nucleus.md 3.4


class Finding(Struct, frozen=True):
    """`level` is ok, warning or error; `fix` is empty when there is nothing to do."""

    code: str
    level: str
    what: str
    fix: str = ""


def exit_code(found: Iterable[Finding]) -> int:
    """0: all is well, 1: warnings only, 2: at least one error."""
    levels = {one.level for one in found}
    return 2 if BAD in levels else 1 if WARNING in levels else 0


def clock(now: float) -> Finding:
    if now < CLOCK_FLOOR_S:
        what = f"the clock stands at {now:.0f} s after 1970, before this nucleus was made: no certificate will be valid"
        return Finding("CLOCK_NOT_SET", BAD, what, "start time synchronisation (timedatectl set-ntp true)")
    return Finding("CLOCK", GOOD, "the clock is plausible")


def clock_against(name: str, theirs: float, now: float) -> Finding:
    """The device's clock beside a server's (its Date header, whole seconds)."""
    skew_s = now - theirs
    if abs(skew_s) > CLOCK_SKEW_S:
        what = f"the clock is {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} that of {name}"
        return Finding("CLOCK_SKEWED", BAD, what, "start time synchronisation (timedatectl set-ntp true)")
    return Finding("CLOCK_AGREES", GOOD, f"the clock agrees with that of {name} (within {CLOCK_SKEW_S:.0f} s)")


def disk(where: str, free_bytes: int, free_files: int) -> Finding:
    """`free_files` below 0: the file system does not count them."""
    told = f"{where} has {free_bytes // (1024 * 1024)} MiB free"
    fix = "free some space: old logs, other programs' data, or a smaller componentStoreMaxSizeBytes"
    if free_bytes < DISK_CRITICAL_BYTES:
        return Finding("DISK_FULL", BAD, f"{told}: no deployment will be accepted", fix)
    if free_files == 0:
        return Finding("DISK_NO_FILES", BAD, f"{where} has no room for another file (inodes)", fix)
    if free_bytes < DISK_LOW_BYTES:
        return Finding("DISK_LOW", WARNING, told, fix)
    return Finding("DISK", GOOD, told)


def expiry(code: str, what: str, path: str, valid: certificate.Validity, now: float) -> Finding:
    """Of a certificate; `code` is what all its codes begin with, `what` e.g. "the device certificate"."""
    left_days = (valid.not_after - now) / 86_400
    if now < valid.not_before:
        told = f"{what} {path} is valid only in {(valid.not_before - now) / 3600:.1f} h: the clock may be wrong"
        return Finding(f"{code}_NOT_YET_VALID", BAD, told, "set the clock, or wait")
    if left_days < 0:
        told = f"{what} {path} expired {-left_days:.0f} days ago"
        return Finding(f"{code}_EXPIRED", BAD, told, "give this device a new certificate (marram device create)")
    if valid.not_after - now < EXPIRES_SOON_S:
        told = f"{what} {path} expires in {left_days:.0f} days"
        return Finding(f"{code}_EXPIRES_SOON", WARNING, told, "renew it, or let the nucleus connect so that it does")
    return Finding(code, GOOD, f"{what} is valid for {left_days:.0f} more days")


def mode(path: str, found: int, most: int, *, secret: bool) -> Finding | None:
    """Bits of a file's mode beyond `most`; None if there are none."""
    if not found & 0o777 & ~most:
        return None
    level = BAD if secret else WARNING
    told = f"{path} has mode {found & 0o777:04o}: more people than intended may use it (at most {most:04o})"
    return Finding("PERMISSIONS", level, told, f"chmod {most:04o} {path}")
