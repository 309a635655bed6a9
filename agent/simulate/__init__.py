"""`strip-agent simulate`: a box without camera, model or ledger, for whoever builds the SCADA side first."""
