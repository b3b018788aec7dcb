"""A bucket of permits that fills with time, as a value."""

from __future__ import annotations

from msgspec import Struct


class Bucket(Struct, frozen=True):
    """Holds at most one second's worth. `at_s` is the time of any steady clock to which `permits` refers."""

    rate: float
    permits: float
    at_s: float


def full(rate: float, now_s: float) -> Bucket:
    return Bucket(rate, max(rate, 1.0), now_s)


def take(bucket: Bucket, now_s: float, amount: float = 1.0) -> tuple[Bucket, float]:
    """Takes permits: the bucket afterwards and 0.0, or the bucket as it is and the seconds until there are enough.

    More than it can hold counts as all it can hold.
    """
    size = max(bucket.rate, 1.0)
    amount = min(amount, size)
    permits = min(size, bucket.permits + max(now_s - bucket.at_s, 0.0) * bucket.rate)
    if permits >= amount - 1e-9:
        return Bucket(bucket.rate, permits - amount, now_s), 0.0
    return Bucket(bucket.rate, permits, now_s), (amount - permits) / bucket.rate
