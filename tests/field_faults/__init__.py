"""Known faults of peers that must not happen here, one test each, named after its address.

The rows marked T of spec/field-faults.md that concern a device.
"""
