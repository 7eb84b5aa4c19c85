"""``basin-gate doctor``: finds what is wrong with an installation by trying it, and says how to put it right."""
