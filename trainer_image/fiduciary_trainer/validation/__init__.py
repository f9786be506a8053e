"""What a quant asks beyond the gates' numbers: where every split lies, how results scatter over paths, which forecasts
the data can tell apart, how long a track record must be. Nothing here decides; it is logged, and shown.
"""
