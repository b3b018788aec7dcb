"""Which version of a component a device gets: the highest that every requirer allows and that runs on its platform.

Rule and texts: spec/cloud.md 2.2. The texts of refusals are parsed by devices: `no usable version`, `claim platform`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from nucleus.core import recipe, version

_NAMED = 5  # versions listed in a refusal


class Offer(Struct, frozen=True):
    """A deployable version of the component; `recipe` is the JSON handed out to devices."""

    version: str
    arn: str
    recipe: str


class Refusal(Struct, frozen=True):
    """Why there is no candidate, for the device and its operator."""

    message: str


def select(
    name: str, requirements: Mapping[str, str], platform: Mapping[str, str], offers: Sequence[Offer]
) -> Offer | Refusal:
    """`requirements` maps each requirer to its range; `platform` is what the device says of itself.

    Raises NucleusError for a range that cannot be read. Recipes are parsed from the highest version down.
    """
    ranges = [version.Range.parse(text) for text in requirements.values()]
    parsed = sorted(((version.Version.parse(offer.version), offer) for offer in offers), key=lambda pair: pair[0])
    allowed = [offer for number, offer in reversed(parsed) if version.satisfies(number, ranges)]
    if not allowed:
        held = [offer.version for _, offer in reversed(parsed)]
        return Refusal(f"no usable version of component {name}: {_demands(requirements)}; {_held(held)}")
    for offer in allowed:
        if recipe.choose(recipe.read(offer.recipe.encode(), f"{name} {offer.version}"), platform) is not None:
            return offer
    attributes = ", ".join(f"{key}={value}" for key, value in sorted(platform.items())) or "(no attributes)"
    versions = ", ".join(offer.version for offer in allowed[:_NAMED])
    return Refusal(f"component {name}: no manifest of version {versions} does claim platform {attributes}")


def _demands(requirements: Mapping[str, str]) -> str:
    listed = ", ".join(f"{requirer} requires {text}" for requirer, text in sorted(requirements.items()))
    return listed or "nothing requires a certain version"


def _held(versions: Sequence[str]) -> str:
    if not versions:
        return "the registry holds none; publish the component first"
    more = f" and {len(versions) - _NAMED} more" if len(versions) > _NAMED else ""
    return f"the registry holds {', '.join(versions[:_NAMED])}{more}"
