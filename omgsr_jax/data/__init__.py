"""Images in: files, the Real-ESRGAN degradation, and the Grain pipeline that feeds training."""
