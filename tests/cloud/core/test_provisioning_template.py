"""Provisioning templates: what a device gets, and what is refused when they are made."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloud.core import provisioning_template

BODY: dict[str, Any] = {
    "Parameters": {"SerialNumber": {"Type": "String"}, "Site": {"Type": "String", "Default": "west"}},
    "Resources": {
        "thing": {
            "Type": "AWS::IoT::Thing",
            "Properties": {
                "ThingName": {"Fn::Join": ["-", ["turbine", {"Ref": "SerialNumber"}]]},
                "AttributePayload": {"site": {"Ref": "Site"}},
                "ThingGroups": [{"Fn::Sub": "site-${Site}"}],
            },
        },
        "certificate": {
            "Type": "AWS::IoT::Certificate",
            "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "Active"},
        },
        "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "Core"}},
    },
    "DeviceConfiguration": {"home": {"Ref": "Site"}},
}


def changed(path: str, value: Any) -> str:
    """The body with one member replaced, `/` between the levels."""
    body = json.loads(json.dumps(BODY))
    *levels, last = path.split("/")
    node = body
    for level in levels:
        node = node[level]
    node[last] = value
    return json.dumps(body)


def test_fill_when_parameters_are_given_then_functions_and_defaults_are_used() -> None:
    found = provisioning_template.fill(
        provisioning_template.read(json.dumps(BODY)), {"SerialNumber": "7", "Other": "x"}, "c1"
    )

    assert found == provisioning_template.Provision(
        thing="turbine-7",
        thing_type=None,
        attributes={"site": "west"},
        groups=("site-west",),
        status="ACTIVE",
        policies=(("Core", ""),),
        device_configuration={"home": "west"},
    )


def test_fill_when_policy_is_a_document_then_named_after_it() -> None:
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}
    template = provisioning_template.read(changed("Resources/policy/Properties", {"PolicyDocument": document}))

    ((name, text),) = provisioning_template.fill(template, {"SerialNumber": "7"}, "c1").policies

    assert name.startswith("provisioned-")
    assert json.loads(text) == document


@pytest.mark.parametrize("given", [{}, {"SerialNumber": "a b"}, {"SerialNumber": "x" * 130}])
def test_fill_when_parameters_do_not_do_then_refused(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"missing: SerialNumber|thing's name"):
        provisioning_template.fill(provisioning_template.read(json.dumps(BODY)), given, "c1")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[", "no JSON object"),
        ("[]", "no JSON object"),
        (json.dumps({"Mappings": {}}), "Mappings"),
        (json.dumps({"Resources": {}}), "exactly one"),
        (changed("Resources/thing/Type", "AWS::Lambda"), "not one of"),
        (changed("Resources/thing/Properties/ThingName", {"Ref": "Nobody"}), "Nobody is no parameter"),
        (changed("Resources/thing/Properties/ThingName", {"Fn::Select": [0, []]}), "Fn::Select is not supported"),
        (changed("Resources/thing/Properties/BillingGroup", "x"), "BillingGroup"),
        (changed("Resources/thing/Properties/ThingGroups", "x"), "must be a list"),
        (changed("Resources/certificate/Properties/Status", "Maybe"), "neither Active"),
        (changed("Resources/policy/Properties", {}), "either PolicyName or"),
        (changed("Parameters/Site", {"Type": "Number"}), "only Type String"),
    ],
)
def test_read_when_it_cannot_be_carried_out_then_the_place_is_named(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        provisioning_template.read(text)
