"""The same examples in every run, so that a failure is the same everywhere."""

from hypothesis import HealthCheck, settings

settings.register_profile("same-examples", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same-examples")
