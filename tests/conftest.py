"""Settings of the whole test run: properties never fail because the machine is busy."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")  # else a fork in the same worker meets gRPC's threads

settings.register_profile("marram", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fuzz", parent=settings.get_profile("marram"), max_examples=1_500)  # `make fuzz`
settings.load_profile("marram")
