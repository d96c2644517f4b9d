from omgsr_jax.serving.server import serve

serve("nano", host="0.0.0.0", port=7860, embedded_by=["https://huggingface.co"])
