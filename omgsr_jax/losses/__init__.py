"""Every loss of both papers. Images are b h w 3 in [-1, 1]; losses are fp32 scalars."""
