"""`tracemill push`: runs, imports and trainings on the Hugging Face Hub.

`account` says who may push where; `folder`, `run` and `training` what OUT is on the Hub; `public` what of its record is nobody's
business; `push` brings there what is new.
"""
