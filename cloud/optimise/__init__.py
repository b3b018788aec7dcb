"""`marram model optimise`: finds the form of an ONNX model that is fastest on a target and provably as good as the source.

    targets, samples      what is asked: the target's description, calibration and evaluation sets, their digests
    candidates            the forms worth trying on a target (pure): model (as given, fp16, INT8 …) and session settings
    forms                 makes the files of those models: fp16, static and dynamic INT8, ORT format
    saturation, graphs    which layers must have weights of 7 bits, by the calibration set alone; the nodes of a graph (pure)
    runtimes, worker,     a runtime behind one shape; a fresh process for each candidate, which loads, times and answers;
      bench               the near end of that process
    precision             what a runtime really computes in, whatever it was told
    scores, detections,   answers to additive counts per sample; boxes of an SSD;
      interval, gate      the interval of (candidate - source); accepted, or refused with a reason (all pure)
    search                which candidates are measured how far, early refusals, the pick
    reports, picture      report.json as records; the PNG of latency against accuracy
    golden, components    golden samples of the source; recipe, artifact folder and certificate of the winner
    run                   all of it in order: `optimise(Request) -> Result`

In: an ONNX file, samples, a target, a metric and a margin that somebody stated. Out: a report, and a model component unless
the source wins. Layers: run -> search, components, reports -> bench, forms, precision -> the pure ones. Nothing here prints,
knows the service or a device; signing is the caller's (nucleus.cli.sign). Forbidden: torch, matplotlib, the network.
"""
