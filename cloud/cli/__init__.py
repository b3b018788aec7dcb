"""Operator verbs of `marram`, built on boto3; rich lives here. Only `cloud run` may start `cloud.app`."""
