"""Rules of topics and topic filters at the broker: what is valid, what belongs to the service.

Sources: MQTT 5.0, 4.7; limits of AWS IoT (spec/cloud.md 3.1); service-owned topics (design.md 4.5).
"""

from __future__ import annotations

MAXIMUM_BYTES = 256
MAXIMUM_SLASHES = 7
MAXIMUM_SHADOW_BYTES = 1024  # reserved topics carry names of up to 128 characters several times over

# What only the service may say, whatever a policy allows: answers, notifications, presence, and our own control topics.
_SERVICE_OWNED = ("$aws/things/", "$aws/certificates/", "$aws/provisioning-templates/")
_SERVICE_WORDS = frozenset({"accepted", "rejected", "delta", "documents"})
CONTROL = "$marram/"


def is_service_owned(topic: str) -> bool:
    """Whether only the service's own principal may publish to the topic."""
    if not topic.startswith("$"):
        return False
    if topic.startswith((CONTROL, "$SYS/", "$aws/events/")):
        return True
    word = topic.rpartition("/")[2]
    return (word in _SERVICE_WORDS or word.startswith("notify")) and topic.startswith(_SERVICE_OWNED)


def fault_of_topic(topic: str) -> str:
    """Why the topic cannot be published to, or "" if it can."""
    if not topic:
        return "it is empty"
    if "+" in topic or "#" in topic:
        return "it contains a wildcard"
    return _fault_of_size(topic)


def fault_of_filter(topic_filter: str) -> str:
    """Why the topic filter cannot be subscribed to, or "" if it can; `$share` must have been split off."""
    if not topic_filter:
        return "it is empty"
    levels = topic_filter.split("/")
    if any("#" in level for level in levels[:-1]) or ("#" in levels[-1] and levels[-1] != "#"):
        return "'#' may only be the whole last level"
    if any("+" in level and level != "+" for level in levels):
        return "'+' may only be a whole level"
    return _fault_of_size(topic_filter)


def split_share(topic_filter: str) -> tuple[str, str] | None:
    """Group and filter of a `$share/<group>/<filter>`; ("", filter) of any other; None when it is malformed."""
    if not topic_filter.startswith("$share/"):
        return "", topic_filter
    _, group, *rest = topic_filter.split("/", 2)
    if not group or not rest or not rest[0] or "+" in group or "#" in group:
        return None
    return group, rest[0]


def _fault_of_size(topic: str) -> str:
    if topic.startswith("$"):  # reserved topics are exempt from the slash count after their prefix
        return "" if len(topic.encode()) <= MAXIMUM_SHADOW_BYTES else f"it has more than {MAXIMUM_SHADOW_BYTES} bytes"
    if len(topic.encode()) > MAXIMUM_BYTES:
        return f"it has more than {MAXIMUM_BYTES} bytes"
    if topic.count("/") > MAXIMUM_SLASHES:
        return f"it has more than {MAXIMUM_SLASHES} slashes"
    return ""
