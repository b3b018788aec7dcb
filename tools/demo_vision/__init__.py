"""`make demo-vision`: a camera, a detector, and three versions of its model on one device; real video, real processes.

`__main__.py` plays the story, `steps.py` has its acts, `releases.py` the models that its publisher makes, `figures.py` what was
measured (pure), `sheet.py` the contact sheet. It plays on the stage of `marram demo` (cloud/cli/demo_stage.py) and leaves its
folder, pictures and logs included. tests/whole/test_vision.py plays it in a small.
"""
