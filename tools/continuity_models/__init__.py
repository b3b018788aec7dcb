"""`make continuity-models`: what two streams of requests notice while everything around a model changes.

One client process (`stream.py`) asks two models at a steady rate, whether or not earlier answers have come: the INT8 detector
at 70 % of its measured saturation, a small CNN at 200 a second and more. Meanwhile `events.py` updates, breaks, kills and
rolls back, on a real service and device (`world.py`) with models of known answers (`models.py`). `sample.py` is the same job
as Greengrass's sample does it: an application whose run command names the model's path, restarted by each update; it sees
the same events. `report.py` reckons (pure) and prints. Every answer is compared with what its version must answer.
"""
