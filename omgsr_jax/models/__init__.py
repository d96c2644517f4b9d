"""Networks. A file is a frozen config and the NNX modules built from it; nothing does I/O."""
