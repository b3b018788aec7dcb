"""Which secrets are configured, what a name means, which version answers, and what labels do when versions change."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleus.core import errors, secrets

HEAD = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:"
WHOLE = HEAD + "shop/db-AbC123"
PART = HEAD + "shop/db"


def settings(*ids: str, labels: tuple[str, ...] = (secrets.CURRENT,)) -> secrets.Settings:
    return secrets.Settings(tuple(secrets.Configured(one, labels) for one in ids))


def version(arn: str = WHOLE, id_: str = "v1", *stages: str, name: str = "shop/db") -> secrets.Version:
    return secrets.Version(arn, name, id_, stages or (secrets.CURRENT,))


def test_read_when_whole_then_labels_have_awscurrent_first_and_the_interval_is_in_seconds() -> None:
    found = secrets.read(
        {"CloudSecrets": [{"arn": WHOLE, "labels": ["blue"]}, {"ARN": PART}], "periodicrefreshintervalmin": "5"}
    )

    assert found == secrets.Settings(
        (secrets.Configured(WHOLE, ("AWSCURRENT", "blue")), secrets.Configured(PART, ("AWSCURRENT",))), 300.0
    )


def test_read_when_one_secret_is_listed_twice_then_its_labels_are_together() -> None:
    found = secrets.read({"cloudSecrets": [{"arn": WHOLE, "labels": ["a"]}, {"arn": WHOLE, "labels": ["b"]}]})

    assert found.secrets == (secrets.Configured(WHOLE, ("AWSCURRENT", "a", "b")),)


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ({"arn": "arn:aws:s3:::bucket"}, "neither an ARN"),
        ({"arn": HEAD + "with blank"}, "neither an ARN"),
        ({"labels": ["a"]}, "neither an ARN"),
        (7, "neither an ARN"),
        ({"arn": WHOLE, "labels": "blue"}, "labels"),
        ({"arn": WHOLE, "labels": [1]}, "labels"),
    ],
)
def test_read_when_an_entry_is_wrong_then_it_is_told_and_the_others_stay(entry: Any, word: str) -> None:
    found = secrets.read({"cloudSecrets": [entry, {"name": "other"}]})

    assert secrets.Configured("other", ("AWSCURRENT",)) in found.secrets
    assert len(found.problems) == 1
    assert word in found.problems[0]
    assert "cloudSecrets[0]" in found.problems[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"cloudSecrets": "x"},
        {"periodicRefreshIntervalMin": -1},
        {"periodicRefreshIntervalMin": []},
        {"periodicRefreshIntervalMin": True},
        {"periodicRefreshIntervalMin": "nan"},
    ],
)
def test_read_when_a_setting_is_wrong_then_it_counts_as_absent_and_is_told(wrong: dict[str, Any]) -> None:
    found = secrets.read(wrong)

    assert (found.secrets, found.every_s, len(found.problems)) == ((), 0.0, 1)


@pytest.mark.parametrize("minutes", [None, "", 0, "0"])
def test_read_when_there_is_no_interval_then_never_and_no_problem(minutes: Any) -> None:
    assert secrets.read({"periodicRefreshIntervalMin": minutes}) == secrets.Settings()


def test_read_when_the_interval_is_tiny_then_a_minute() -> None:
    assert secrets.read({"periodicRefreshIntervalMin": 0.001}).every_s == 60.0


@pytest.mark.parametrize("configured", [WHOLE, PART, "shop/db"])
@pytest.mark.parametrize("asked", [WHOLE, PART, "shop/db"])
@pytest.mark.parametrize("known", [(), (version(),)])
def test_resolve_when_configured_and_asked_differently_then_the_same_secret(
    configured: str, asked: str, known: tuple[secrets.Version, ...]
) -> None:
    found = secrets.resolve(settings(configured), known, asked)

    assert found is not None
    assert found.id == configured
    assert secrets.arn(found, known) == (WHOLE if known else configured)


@pytest.mark.parametrize(
    "asked",
    [
        "",
        "shop",
        "db",
        "shop/db-",
        HEAD + "shop/d",
        HEAD + "shop/db-ABCDEF",
        "AWSCURRENT",
        WHOLE.replace("eu-west-1", "us-east-1"),
    ],
)
@pytest.mark.parametrize("known", [(), (version(),)])
def test_resolve_when_it_is_another_secret_then_none(asked: str, known: tuple[secrets.Version, ...]) -> None:
    assert secrets.resolve(settings(WHOLE), known, asked) is None


def test_resolve_when_the_end_of_a_name_looks_like_an_arns_end_then_the_cloud_decides() -> None:
    part = HEAD + "my-secret"  # the name may be "my", or "my-secret"
    told = (version(part + "-AbC123", name="my-secret"),)

    assert secrets.resolve(settings(part), (), "my") is not None
    assert secrets.resolve(settings(part), told, "my") is None
    assert secrets.resolve(settings(part), told, "my-secret") is not None


def test_resolve_when_two_could_be_meant_then_none_until_the_cloud_has_told() -> None:
    other = WHOLE.replace("eu-west-1", "us-east-1")

    assert secrets.resolve(settings(WHOLE, other), (), "shop/db") is None
    found = secrets.resolve(settings(WHOLE, other), (version(other),), "shop/db")
    assert found is not None
    assert found.id == other


def test_choose_when_asked_by_id_label_or_neither_then_that_version_of_that_secret() -> None:
    secret = secrets.Configured(WHOLE, ("AWSCURRENT",))
    known = (
        version(HEAD + "other-AbC123", "v9", name="other"),
        version(WHOLE, "v1", "AWSPREVIOUS"),
        version(WHOLE, "v2", "AWSCURRENT", "blue"),
    )

    chosen = [secrets.choose(secret, known, *one) for one in (("", ""), ("v1", ""), ("", "AWSPREVIOUS"), ("", "blue"))]

    assert [one.id for one in chosen if one] == ["v2", "v1", "v1", "v2"]
    assert secrets.choose(secret, known, "v9", "") is None
    assert secrets.choose(secret, known, "", "green") is None


def test_merged_when_a_label_moves_then_it_lies_on_one_version_only() -> None:
    known = (version(WHOLE, "v1", "AWSCURRENT", "blue"), version(HEAD + "x-AbC123", "v1", "AWSCURRENT", name="x"))

    found = secrets.merged(known, version(WHOLE, "v2", "AWSCURRENT"))

    assert {(one.arn, one.id): one.stages for one in found} == {
        (WHOLE, "v1"): ("blue",),
        (WHOLE, "v2"): ("AWSCURRENT",),
        (HEAD + "x-AbC123", "v1"): ("AWSCURRENT",),
    }


def test_kept_when_a_version_has_no_configured_label_left_then_it_goes() -> None:
    known = (
        version(WHOLE, "v1", "AWSPREVIOUS"),
        version(WHOLE, "v2"),
        version(HEAD + "gone-AbC123", "v3", name="gone"),
    )

    assert secrets.kept(settings(WHOLE), known) == known[1:2]
    assert secrets.kept(settings(WHOLE, labels=("AWSCURRENT", "AWSPREVIOUS")), known) == known[:2]


def test_missing_when_labels_moved_between_two_answers_then_the_lost_one_is_asked_for_again() -> None:
    wanted = settings(WHOLE, labels=("AWSCURRENT", "AWSPREVIOUS"))
    first = secrets.merged((), version(WHOLE, "v1", "AWSCURRENT"))
    then = secrets.merged(first, version(WHOLE, "v1", "AWSPREVIOUS"))  # rotated meanwhile

    assert secrets.missing(wanted, then) == (secrets.Ask(WHOLE, "AWSCURRENT"),)
    assert secrets.missing(wanted, secrets.merged(then, version(WHOLE, "v2", "AWSCURRENT"))) == ()


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.sampled_from(["v1", "v2", "v3"]), st.sets(st.sampled_from("xyz"), min_size=1)
        )
    )
)
def test_merged_when_any_answers_come_then_a_label_of_a_secret_is_unique_and_the_last_word_counts(
    answers: list[tuple[str, str, set[str]]],
) -> None:
    known: tuple[secrets.Version, ...] = ()
    for name, id_, stages in answers:
        answer = secrets.Version(f"{HEAD}{name}-AbC123", name, id_, tuple(sorted(stages)))
        known = secrets.merged(known, answer)
        labels = [(one.arn, stage) for one in known for stage in one.stages]
        assert len(labels) == len(set(labels))
        assert answer in known
        assert len({(one.arn, one.id) for one in known}) == len(known)


def test_endpoint_when_nothing_is_set_then_the_regional_address_of_the_arn() -> None:
    assert secrets.endpoint("", WHOLE, "us-east-1") == "https://secretsmanager.eu-west-1.amazonaws.com"
    assert secrets.endpoint("", "shop/db", "us-east-1") == "https://secretsmanager.us-east-1.amazonaws.com"
    china = WHOLE.replace("arn:aws:", "arn:aws-cn:").replace("eu-west-1", "cn-north-1")
    assert secrets.endpoint("", china, "us-east-1") == "https://secretsmanager.cn-north-1.amazonaws.com.cn"


@pytest.mark.parametrize(
    "good", ["https://secrets.example.com:8443", "http://localhost:5000/", "http://127.0.0.1:5000", "http://[::1]:1"]
)
def test_endpoint_when_it_is_https_or_of_this_machine_then_taken(good: str) -> None:
    assert secrets.endpoint(good, WHOLE, "us-east-1") == good.rstrip("/")


@pytest.mark.parametrize(
    "bad",
    [
        "http://secrets.example.com",
        "ftp://localhost",
        "localhost:5000",
        "https://",
        "http://[",
        "https://h:x",
        "http://127.evil.example",
    ],
)
def test_endpoint_when_secrets_must_not_travel_there_then_refused(bad: str) -> None:
    with pytest.raises(errors.NucleusError, match="secretsEndpoint"):
        secrets.endpoint(bad, WHOLE, "us-east-1")
