"""Everything that knows PyTorch's formats: key maps, diffusers folders, peft adapters."""
