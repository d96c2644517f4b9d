"""Any-size upscaling: image edges, sizes, tiles, colour, batching, compiled programs."""
