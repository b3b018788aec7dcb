"""What provisioning says to one client reaches no other, and what clients ask of it only the service hears."""

from __future__ import annotations

from tests.cloud.mqtt import harness

CREATE = "$aws/certificates/create/json"


async def test_publish_when_for_one_client_only_then_others_who_subscribed_get_nothing(bench: harness.Bench) -> None:
    pairs = [bench.device(policies=("operator",)) for _ in range(2)]
    await bench.push()
    asking, curious = (bench.crt(pair, f"client{number}") for number, pair in enumerate(pairs))
    for one in (asking, curious):
        await one.connect()
        await one.subscribe("$aws/certificates/#", "$aws/provisioning-templates/#", "plain/#")

    await asking.publish(CREATE, b"{}")
    assert (await bench.inbound(CREATE)).client_id == "client0"
    await bench.port.publish(f"{CREATE}/accepted", b"key", only="client0")
    await bench.port.publish("plain/end", b"")

    assert await asking.heard(2) == [(f"{CREATE}/accepted", b"key"), ("plain/end", b"")]
    assert await curious.heard(1) == [("plain/end", b"")]
