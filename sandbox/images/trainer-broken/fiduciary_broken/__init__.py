"""A trainer of the tests: its versions pass every gate and every probe, and fail on the days after asOf.

`training.hyperparameters: {fault: nan}` says how (see faults.py). Everything else is the real trainer.
"""
