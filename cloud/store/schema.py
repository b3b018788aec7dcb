"""All tables of the service. SQLite by default, PostgreSQL when a fleet outgrows one machine: only portable types.

Times are epoch milliseconds (`*_ms`, integer). JSON is text, encoded by msgspec.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()


def _t(name: str, *columns: Column[object] | Index) -> Table:
    return Table(name, metadata, *columns)


access_keys = _t(
    "access_keys",
    Column("id", String(64), primary_key=True),
    Column("secret", String(128), nullable=False),
    Column("user_name", String(128), nullable=False),
    Column("active", Boolean, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)

# ---- identities ---------------------------------------------------------------------------------------------------
things = _t(
    "things",
    Column("name", String(128), primary_key=True),
    Column("id", String(64), nullable=False),
    Column("type", String(128)),
    Column("attributes", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)
thing_groups = _t(
    "thing_groups",
    Column("name", String(128), primary_key=True),
    Column("id", String(64), nullable=False),
    Column("parent", String(128)),
    Column("description", Text),
    Column("attributes", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)
group_members = _t(
    "group_members",
    Column("group_name", String(128), ForeignKey("thing_groups.name", ondelete="CASCADE"), primary_key=True),
    Column("thing", String(128), ForeignKey("things.name", ondelete="CASCADE"), primary_key=True),
    Column("added_ms", BigInteger, nullable=False),
)
certificates = _t(
    "certificates",
    Column("id", String(64), primary_key=True),  # SHA-256 of the DER, hexadecimal: also the fingerprint at the broker
    Column("pem", Text, nullable=False),
    Column("status", String(32), nullable=False),  # ACTIVE INACTIVE REVOKED PENDING_ACTIVATION
    Column("not_before_ms", BigInteger, nullable=False),
    Column("not_after_ms", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)
thing_principals = _t(
    "thing_principals",
    Column("thing", String(128), ForeignKey("things.name", ondelete="CASCADE"), primary_key=True),
    Column("certificate_id", String(64), ForeignKey("certificates.id", ondelete="CASCADE"), primary_key=True),
)
policies = _t(
    "policies",
    Column("name", String(128), primary_key=True),
    Column("document", Text, nullable=False),
    Column("version_id", Integer, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)
policy_targets = _t(
    "policy_targets",
    Column("policy", String(128), ForeignKey("policies.name", ondelete="CASCADE"), primary_key=True),
    Column("target", String(256), primary_key=True),  # ARN of a certificate or a thing group
)
role_aliases = _t(
    "role_aliases",
    Column("alias", String(128), primary_key=True),
    Column("role_arn", String(640), nullable=False),
    Column("duration_s", Integer, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("modified_ms", BigInteger, nullable=False),
)
temporary_keys = _t(  # what devices got through a role alias
    "temporary_keys",
    Column("id", String(64), primary_key=True),
    Column("secret", String(128), nullable=False),
    Column("token_digest", String(64), nullable=False),
    Column("thing", String(128), nullable=False),
    Column("certificate_id", String(64), ForeignKey("certificates.id", ondelete="CASCADE"), nullable=False),
    Column("role", String(512), nullable=False),
    Column("expires_ms", BigInteger, nullable=False, index=True),
    Column("created_ms", BigInteger, nullable=False),
)
certificate_renewals = _t(  # certificates that a device asked for and has not used yet
    "certificate_renewals",
    Column("old_id", String(64), ForeignKey("certificates.id", ondelete="CASCADE"), primary_key=True),
    Column("new_id", String(64), ForeignKey("certificates.id", ondelete="CASCADE"), nullable=False, unique=True),
    Column("created_ms", BigInteger, nullable=False),
)
provisioning_templates = _t(
    "provisioning_templates",
    Column("name", String(36), primary_key=True),
    Column("description", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("role_arn", String(640), nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("modified_ms", BigInteger, nullable=False),
)
ownership_tokens = _t(  # who may provision with a certificate that is PENDING_ACTIVATION
    "ownership_tokens",
    Column("token_digest", String(64), primary_key=True),
    Column("certificate_id", String(64), ForeignKey("certificates.id", ondelete="CASCADE"), nullable=False),
    Column("expires_ms", BigInteger, nullable=False, index=True),
)
# One row; bumped by every change of certificates, things, policies or attachments: the broker's snapshot version.
principals_version = _t(
    "principals_version", Column("id", Integer, primary_key=True), Column("version", BigInteger, nullable=False)
)

# ---- component registry ---------------------------------------------------------------------------------------------
components = _t(
    "components",
    Column("name", String(128), primary_key=True),
    Column("version", String(64), primary_key=True),
    Column("arn", String(512), nullable=False, unique=True),
    Column("author_recipe", Text, nullable=False),  # JSON: the author's URIs, digests added (GetComponent)
    Column(
        "device_recipe", Text, nullable=False
    ),  # JSON: artifacts rewritten to greengrass: (ResolveComponentCandidates)
    Column("description", Text, nullable=False),
    Column("publisher", Text, nullable=False),
    Column("platforms", Text, nullable=False),  # JSON list of {name, attributes}
    Column("state", String(32), nullable=False),  # DEPLOYABLE | FAILED | DEPRECATED
    Column("message", Text, nullable=False),
    Column("errors", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)
artifacts = _t(
    "artifacts",
    Column("component", String(128), primary_key=True),
    Column("version", String(64), primary_key=True),
    Column("artifact_id", String(64), primary_key=True),  # base64url SHA-256 (design decision 19)
    Column("file", String(255), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),  # base64 SHA-256
)
objects = _t(
    "objects",
    Column("bucket", String(128), primary_key=True),
    Column("key", String(1024), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("etag", String(64), nullable=False),
    Column("sha256", String(64), nullable=False),  # hexadecimal; the file's name in the object store
    Column("content_type", String(256), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)
buckets = _t("buckets", Column("name", String(128), primary_key=True), Column("created_ms", BigInteger, nullable=False))
tags = _t(
    "tags",
    Column("arn", String(512), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("value", String(256), nullable=False),
)
client_tokens = _t(
    "client_tokens",
    Column("operation", String(64), primary_key=True),
    Column("token", String(64), primary_key=True),
    Column("answer", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)

# ---- deployments ------------------------------------------------------------------------------------------------------
deployments = _t(
    "deployments",
    Column("id", String(64), primary_key=True),
    Column("target_arn", String(512), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("name", String(256), nullable=False),
    Column("status", String(16), nullable=False),  # ACTIVE COMPLETED CANCELED FAILED INACTIVE
    Column("job_id", String(64), nullable=False),  # "" for a thing target
    Column("components", Text, nullable=False),  # as given to CreateDeployment
    Column("policies", Text, nullable=False),
    Column("job_configuration", Text, nullable=False),
    Column("parent_target_arn", String(512)),
    Column("document", Text, nullable=False),  # the job document (spec/cloud.md 3.3)
    Column("is_latest", Boolean, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Index("deployments_target", "target_arn", "revision", unique=True),
)
job_executions = _t(
    "job_executions",
    Column("job_id", String(64), primary_key=True),
    Column("thing", String(128), primary_key=True),
    Column("deployment_id", String(64), ForeignKey("deployments.id", ondelete="CASCADE"), nullable=False),
    Column("status", String(16), nullable=False),
    Column("status_details", Text, nullable=False),
    Column("queued_ms", BigInteger, nullable=False),
    Column("started_ms", BigInteger),
    Column("updated_ms", BigInteger, nullable=False),
    Column("version", Integer, nullable=False),
    Column("execution_number", Integer, nullable=False),
    Index("job_executions_thing", "thing", "status", "queued_ms"),
)
shadows = _t(
    "shadows",
    Column("thing", String(128), primary_key=True),
    Column("name", String(64), primary_key=True),  # "" = classic
    Column("state", Text, nullable=False),  # {"desired": …, "reported": …}
    Column("metadata", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
)

# ---- what devices report ------------------------------------------------------------------------------------------------
core_devices = _t(
    "core_devices",
    Column("thing", String(128), primary_key=True),
    Column("core_version", String(64), nullable=False),
    Column("platform", String(64), nullable=False),
    Column("architecture", String(64), nullable=False),
    Column("runtime", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
)
device_modes = _t(  # a table of its own: a database that is there already gets it when the service starts
    "device_modes",
    Column("thing", String(128), primary_key=True),
    Column("mode", String(32), nullable=False),
    Column("reason", Text, nullable=False),
)
installed_components = _t(
    "installed_components",
    Column("thing", String(128), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("version", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("state_details", Text, nullable=False),
    Column("status_codes", Text, nullable=False),
    Column("is_root", Boolean, nullable=False),
    Column("configuration_arns", Text, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
    Column("reported_ms", BigInteger, nullable=False),
)
status_chunks = _t(  # parts of a COMPLETE message that wait for the others
    "status_chunks",
    Column("thing", String(128), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("chunk", Integer, primary_key=True),
    Column("payload", LargeBinary, nullable=False),
)
thing_deployments = _t(  # a thing target's result, from the deployment shadow's reported part
    "thing_deployments",
    Column("deployment_id", String(64), ForeignKey("deployments.id", ondelete="CASCADE"), primary_key=True),
    Column("thing", String(128), nullable=False, index=True),
    Column("status", String(16), nullable=False),
    Column("status_details", Text, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
)
outbox = _t(
    "outbox",
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("topic", String(512), nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)
