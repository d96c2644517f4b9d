"""Networks. Each file is a frozen config and the NNX modules built from it; nothing here does I/O."""
