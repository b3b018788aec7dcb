"""`make demo-vision`: a camera, a detector, and three versions of its model on one device; real video, real processes.

`__main__.py` is the story, `steps.py` its acts, `figures.py` what was measured (pure), `sheet.py` the contact sheet. It plays
on the stage of `marram demo` (cloud/cli/demo_stage.py) and leaves its folder, pictures and logs included.
"""
