"""`tracemill annotate`: people judge the preference pairs of a run, blind; what they say becomes preference pairs."""
