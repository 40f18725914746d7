"""`tracemill view`: a run in the browser, from an index of its shards. The server and the page's parts serve `tracemill annotate` too."""
