"""HTTP on the service side: AWS-shaped operator APIs (SigV4) and the device APIs (mutual TLS).

What flows in: requests. What flows out: answers in AWS's shapes. `router.py` is the one table of routes.
Forbidden: importing `cloud.mqtt`; SQL outside `cloud.store`.
"""
